package patch_test

import (
	"testing"

	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/patch"
)

// TestKindWithoutSchema applies an object of a kind that client-go knows no
// schema of.
func TestKindWithoutSchema(t *testing.T) {
	k := &api.Kind{
		Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService", Resource: "apiservices", Singular: "apiservice",
		New: func() api.Object { return &apiregistrationv1.APIService{} },
	}
	f := patch.NewFields(api.NewKinds(k))
	text := "apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: v1.a.b}\nspec: {group: a.b, version: v1, groupPriorityMinimum: 5, versionPriority: 5}\n"
	obj, err := f.New(k, "", "v1.a.b", []byte(text), api.WriteOptions{FieldManager: "me"})
	if err != nil || len(obj.GetManagedFields()) != 1 {
		t.Fatalf("applied: %+v, %v", obj, err)
	}
	obj.SetUID("u")
	next := obj.DeepCopyObject().(*apiregistrationv1.APIService)
	next.Spec.VersionPriority = 6
	if err := f.Update(k, obj, next, "other", ""); err != nil || len(next.ManagedFields) != 2 {
		t.Errorf("updated: %+v, %v", next.ManagedFields, err)
	}
}
