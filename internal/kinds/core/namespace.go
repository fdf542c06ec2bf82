package core

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// Namespace is the kind of namespaces.
func Namespace() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "Namespace",
		Resource: "namespaces", Singular: "namespace",
		Warn:       api.Warn(warnNamespace),
		ShortNames: []string{"ns"},
		Verbs:      []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		Subresources: []api.Subresource{
			{Name: "finalize", Verbs: []string{"update"}},
			{Name: "status", Verbs: statusVerbs()},
		},
		New:       func() api.Object { return &corev1.Namespace{} },
		ValidName: validation.ValidateNamespaceName,
		Default: api.On(func(n *corev1.Namespace) {
			if n.Name != "" {
				metav1.SetMetaDataLabel(&n.ObjectMeta, corev1.LabelMetadataName, n.Name)
			}
		}),
		OnCreate: api.On(func(n *corev1.Namespace) {
			n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
			if !slices.Contains(n.Spec.Finalizers, corev1.FinalizerKubernetes) {
				n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
			}
		}),
		OnUpdate: api.OnPair(func(n, old *corev1.Namespace) {
			n.Spec.Finalizers = slices.Clone(old.Spec.Finalizers)
			n.Status = *old.Status.DeepCopy()
		}),
		OnStatus: api.OnPair(func(n, old *corev1.Namespace) {
			api.KeepMeta(n, old)
			n.Spec = *old.Spec.DeepCopy()
		}),
		Validate:       api.Check(validateNamespace),
		ValidateStatus: api.CheckPair(validateNamespaceStatus),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Status", "Whether the namespace is in use (Active) or being deleted (Terminating)."),
			api.AgeColumn(),
		},
		Cells: api.Row(func(n *corev1.Namespace, now time.Time) []any {
			return []any{n.Name, string(n.Status.Phase), api.Age(n.CreationTimestamp, now)}
		}),
		FieldNames: []string{"status.phase"},
		Fields: api.Of(func(n *corev1.Namespace) map[string]string {
			return map[string]string{"status.phase": string(n.Status.Phase)}
		}),
	}
}

func validateNamespace(n *corev1.Namespace) field.ErrorList {
	var errs field.ErrorList
	for i, f := range n.Spec.Finalizers {
		path := field.NewPath("spec", "finalizers").Index(i)
		for _, msg := range utilvalidation.IsQualifiedName(string(f)) {
			errs = append(errs, field.Invalid(path, string(f), msg))
		}
		if !strings.Contains(string(f), "/") && f != corev1.FinalizerKubernetes {
			errs = append(errs, field.Invalid(path, string(f), "name is neither a standard finalizer name nor is it fully qualified"))
		}
	}
	return errs
}

func validateNamespaceStatus(n, _ *corev1.Namespace) field.ErrorList {
	path := field.NewPath("status", "phase")
	switch {
	case n.DeletionTimestamp == nil && n.Status.Phase != corev1.NamespaceActive:
		return field.ErrorList{field.Invalid(path, n.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty")}
	case n.DeletionTimestamp != nil && n.Status.Phase != corev1.NamespaceTerminating:
		return field.ErrorList{field.Invalid(path, n.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")}
	}
	return nil
}

func allVerbs() []string {
	return []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
}

func statusVerbs() []string { return []string{"get", "patch", "update"} }

func proxyVerbs() []string { return []string{"create", "delete", "get", "patch", "update"} }
