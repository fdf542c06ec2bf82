package core_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
)

// made reads a manifest and treats it as a create does.
func made(t *testing.T, k *api.Kind, text string) api.Object {
	t.Helper()
	obj := k.New()
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatal(err)
	}
	if k.Namespaced && obj.GetNamespace() == "" {
		obj.SetNamespace("default")
	}
	if k.OnCreate != nil {
		k.OnCreate(obj)
	}
	if k.Default != nil {
		k.Default(obj)
	}
	return obj
}

// check gives all that is wrong with an object that is created.
func check(k *api.Kind, obj api.Object) field.ErrorList {
	errs := api.ValidateMeta(k, obj)
	if k.Validate != nil {
		errs = append(errs, k.Validate(obj)...)
	}
	if k.ValidateCreate != nil {
		errs = append(errs, k.ValidateCreate(obj)...)
	}
	return errs
}

// match compares the beginnings of errors.
func match(t *testing.T, errs field.ErrorList, want ...string) {
	t.Helper()
	for i, e := range errs {
		if i >= len(want) || !strings.HasPrefix(e.Error(), want[i]) {
			t.Errorf("error %d is %s", i, e)
		}
	}
	if len(errs) != len(want) {
		t.Errorf("%d errors, want %d: %q", len(errs), len(want), want)
	}
}

// invalid is a table of manifests, each with the beginnings of its errors.
type invalid []struct {
	name, text string
	want       []string
}

func (all invalid) run(t *testing.T, k *api.Kind) {
	t.Helper()
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) { match(t, check(k, made(t, k, tt.text)), tt.want...) })
	}
}

// updates is a table of manifests that take the place of others.
type updates []struct {
	name, old, text string
	want            []string
}

func (all updates) run(t *testing.T, k *api.Kind) {
	t.Helper()
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			old, obj := made(t, k, tt.old), k.New()
			if err := yaml.UnmarshalStrict([]byte(tt.text), obj); err != nil {
				t.Fatal(err)
			}
			if k.OnUpdate != nil {
				k.OnUpdate(obj, old)
			}
			if k.Default != nil {
				k.Default(obj)
			}
			errs := k.Validate(obj)
			if k.ValidateUpdate != nil {
				errs = append(errs, k.ValidateUpdate(obj, old)...)
			}
			match(t, errs, tt.want...)
		})
	}
}
