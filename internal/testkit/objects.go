package testkit

import (
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/randfill"
)

// Objects fills objects of any kind with what their types can hold, the same for
// the same seed.
func Objects(seed int64) *randfill.Filler {
	return randfill.NewWithSeed(seed).NilChance(0.4).NumElements(0, 3).MaxDepth(14).Funcs(
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewQuantity(c.Int63n(1000), resource.DecimalSI)
		},
		func(v *intstr.IntOrString, c randfill.Continue) {
			if *v = intstr.FromInt32(c.Int31n(200) - 50); c.Bool() {
				*v = intstr.FromString(c.String(5))
			}
		},
		func(v *metav1.Time, c randfill.Continue) { *v = metav1.Unix(c.Int63n(1<<32), 0) },
		func(v *metav1.MicroTime, c randfill.Continue) {
			*v = metav1.NewMicroTime(time.Unix(c.Int63n(1<<32), 0))
		},
		func(v *runtime.RawExtension, c randfill.Continue) { v.Raw = fmt.Appendf(nil, "%d", c.Int31()) },
		func(s *apiextensionsv1.JSONSchemaProps, c randfill.Continue) { // it nests without end
			*s = apiextensionsv1.JSONSchemaProps{Type: c.String(6), Description: c.String(6)}
		},
		func(v *metav1.ManagedFieldsEntry, _ randfill.Continue) { *v = metav1.ManagedFieldsEntry{} },
	)
}
