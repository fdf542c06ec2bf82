package patch_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/patch"
)

// FuzzFieldSets sends managed fields as a client may write them.
func FuzzFieldSets(f *testing.F) {
	kinds, k := table()
	fields := patch.NewFields(kinds)
	f.Add("me", "apps/v1", "Apply", "", []byte(`{"f:spec":{"f:replicas":{}}}`))
	f.Add("me", "apps/v1", "Update", "status", []byte(`{"f:spec":{"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:image":{}}}}}}}`))
	f.Add("", "v0", "x", "y", []byte(`{"v:1":{},"i:0":{},"k:{}":{}}`))
	f.Fuzz(func(t *testing.T, manager, version, operation, sub string, set []byte) {
		live := deployment()
		next := live.DeepCopy()
		next.Spec.Paused = true
		next.ManagedFields = []metav1.ManagedFieldsEntry{{
			Manager: manager, APIVersion: version, Operation: metav1.ManagedFieldsOperationType(operation), Subresource: sub,
			FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: set},
		}}
		if err := fields.Update(k, live, next, "other", ""); err != nil {
			return
		}
		if obj, err := fields.Apply(k, next, []byte(web), "third", "", true); err == nil {
			if _, err := obj.Marshal(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
