package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// maxData is how much a ConfigMap or a Secret holds.
const maxData = corev1.MaxSecretSize

// ConfigMap is the kind of config maps.
func ConfigMap() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "ConfigMap",
		Resource: "configmaps", Singular: "configmap",
		ShortNames:     []string{"cm"},
		Namespaced:     true,
		Verbs:          allVerbs(),
		New:            func() api.Object { return &corev1.ConfigMap{} },
		Validate:       api.Check(validateConfigMap),
		ValidateUpdate: api.CheckPair(validateConfigMapUpdate),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.NumberColumn("Data", "How many keys the map holds, text and binary together."),
			api.AgeColumn(),
		},
		Cells: api.Row(func(m *corev1.ConfigMap, now time.Time) []any {
			return []any{m.Name, int64(len(m.Data) + len(m.BinaryData)), api.Age(m.CreationTimestamp, now)}
		}),
	}
}

func validateConfigMap(m *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	total := 0
	for key, value := range m.Data {
		path := field.NewPath("data").Key(key)
		errs = append(errs, validateKey(path, key)...)
		if _, ok := m.BinaryData[key]; ok {
			errs = append(errs, field.Invalid(path, key, "duplicate of key present in binaryData"))
		}
		total += len(value)
	}
	for key, value := range m.BinaryData {
		path := field.NewPath("binaryData").Key(key)
		errs = append(errs, validateKey(path, key)...)
		if _, ok := m.Data[key]; ok {
			errs = append(errs, field.Invalid(path, key, "duplicate of key present in data"))
		}
		total += len(value)
	}
	if total > maxData {
		errs = append(errs, field.TooLong(field.NewPath(""), "", maxData))
	}
	return errs
}

func validateKey(path *field.Path, key string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsConfigMapKey(key) {
		errs = append(errs, field.Invalid(path, key, msg))
	}
	return errs
}

func validateConfigMapUpdate(m, old *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	if !isTrue(old.Immutable) {
		return nil
	}
	if !isTrue(m.Immutable) {
		errs = append(errs, field.Forbidden(field.NewPath("immutable"), "field is immutable when `immutable` is set"))
	}
	if !equality.Semantic.DeepEqual(m.Data, old.Data) {
		errs = append(errs, field.Forbidden(field.NewPath("data"), "field is immutable when `immutable` is set"))
	}
	if !equality.Semantic.DeepEqual(m.BinaryData, old.BinaryData) {
		errs = append(errs, field.Forbidden(field.NewPath("binaryData"), "field is immutable when `immutable` is set"))
	}
	return errs
}

func isTrue(b *bool) bool { return b != nil && *b }
