package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

// PodTemplate is the kind of pod templates that are kept by themselves.
func PodTemplate() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "PodTemplate",
		Resource: "podtemplates", Singular: "podtemplate",
		Warn:       api.Warn(warnPodTemplate),
		Namespaced: true,
		Verbs:      allVerbs(),
		New:        func() api.Object { return &corev1.PodTemplate{} },
		Default:    api.On(func(t *corev1.PodTemplate) { podspec.DefaultTemplate(&t.Template) }),
		SpecOf:     api.Of(func(t *corev1.PodTemplate) any { return &t.Template }),
		Validate: api.Check(func(t *corev1.PodTemplate) field.ErrorList {
			return podspec.ValidateTemplate(&t.Template, field.NewPath("template"))
		}),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Containers", "The names of the template's containers."),
			api.TextColumn("Images", "The images of the template's containers."),
			api.TextColumn("Pod Labels", "The labels that pods of the template get."),
		},
		Cells: api.Row(func(t *corev1.PodTemplate, _ time.Time) []any {
			s := &t.Template.Spec
			return []any{t.Name, podspec.ContainerNames(s), podspec.Images(s), labels.FormatLabels(t.Template.Labels)}
		}),
		DeleteAnswersObject: true,
	}
}
