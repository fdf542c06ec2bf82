package api_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// FuzzAny unwraps what a gRPC client sends as an object.
func FuzzAny(f *testing.F) {
	kinds := api.NewKinds(
		&api.Kind{Version: "v1", Kind: "Pod", Resource: "pods", New: func() api.Object { return &corev1.Pod{} }},
		&api.Kind{Group: "apps", Version: "v1", Kind: "Deployment", Resource: "deployments", New: func() api.Object { return &appsv1.Deployment{} }},
	)
	for _, obj := range []api.Object{managedPod(1), &appsv1.Deployment{}} {
		a, err := api.ToAny(obj)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.GetTypeUrl(), a.GetValue())
	}
	f.Add("type.googleapis.com/k8s.io.api.autoscaling.v1.Scale", []byte("\n\x00"))
	f.Add("/", []byte(nil))
	f.Fuzz(func(t *testing.T, url string, value []byte) {
		obj, err := kinds.ObjectOf(&anypb.Any{TypeUrl: url, Value: value})
		if err != nil {
			return
		}
		if _, err := obj.Marshal(); err != nil {
			t.Fatal(err)
		}
		if obj.GetObjectKind().GroupVersionKind().Empty() || !strings.HasSuffix(url, obj.GetObjectKind().GroupVersionKind().Kind) {
			t.Errorf("%q became %v", url, obj.GetObjectKind().GroupVersionKind())
		}
	})
}
