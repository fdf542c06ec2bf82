package rbac

import (
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// RoleBinding is the kind of role bindings.
func RoleBinding() *api.Kind {
	return &api.Kind{
		Group: rbacv1.GroupName, Version: "v1", Kind: "RoleBinding",
		Resource: "rolebindings", Singular: "rolebinding",
		CreateOnUpdate: true,
		Namespaced:     true,
		Verbs:          api.AllVerbs(),
		New:            func() api.Object { return &rbacv1.RoleBinding{} },
		ValidName:      path.ValidatePathSegmentName,
		Default: api.On(func(b *rbacv1.RoleBinding) {
			defaultBinding(&b.RoleRef, b.Subjects)
		}),
		Validate: api.Check(func(b *rbacv1.RoleBinding) field.ErrorList {
			return append(validateRef(&b.RoleRef, []string{kindRole, kindClusterRole}), validateSubjects(b.Subjects, true)...)
		}),
		ValidateUpdate: api.CheckPair(func(b, old *rbacv1.RoleBinding) field.ErrorList {
			return sameRef(b.RoleRef, old.RoleRef)
		}),
		Columns: bindingColumns(rbacv1.RoleBinding{}.SwaggerDoc()),
		Cells: api.Row(func(b *rbacv1.RoleBinding, now time.Time) []any {
			return bindingCells(&b.ObjectMeta, b.RoleRef, b.Subjects, now)
		}),
	}
}

// ClusterRoleBinding is the kind of cluster role bindings.
func ClusterRoleBinding() *api.Kind {
	return &api.Kind{
		Group: rbacv1.GroupName, Version: "v1", Kind: "ClusterRoleBinding",
		Resource: "clusterrolebindings", Singular: "clusterrolebinding",
		CreateOnUpdate: true,
		Verbs:          api.AllVerbs(),
		New:            func() api.Object { return &rbacv1.ClusterRoleBinding{} },
		ValidName:      path.ValidatePathSegmentName,
		Default: api.On(func(b *rbacv1.ClusterRoleBinding) {
			defaultBinding(&b.RoleRef, b.Subjects)
		}),
		Validate: api.Check(func(b *rbacv1.ClusterRoleBinding) field.ErrorList {
			return append(validateRef(&b.RoleRef, []string{kindClusterRole}), validateSubjects(b.Subjects, false)...)
		}),
		ValidateUpdate: api.CheckPair(func(b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
			return sameRef(b.RoleRef, old.RoleRef)
		}),
		Columns: bindingColumns(rbacv1.ClusterRoleBinding{}.SwaggerDoc()),
		Cells: api.Row(func(b *rbacv1.ClusterRoleBinding, now time.Time) []any {
			return bindingCells(&b.ObjectMeta, b.RoleRef, b.Subjects, now)
		}),
	}
}

func defaultBinding(ref *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	if ref.APIGroup == "" {
		ref.APIGroup = rbacv1.GroupName
	}
	for i := range subjects {
		s := &subjects[i]
		if s.APIGroup == "" && (s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind) {
			s.APIGroup = rbacv1.GroupName
		}
	}
}

func validateRef(ref *rbacv1.RoleRef, kinds []string) field.ErrorList {
	var errs field.ErrorList
	at := field.NewPath("roleRef")
	if ref.APIGroup != rbacv1.GroupName {
		errs = append(errs, field.NotSupported(at.Child("apiGroup"), ref.APIGroup, []string{rbacv1.GroupName}))
	}
	known := false
	for _, k := range kinds {
		known = known || ref.Kind == k
	}
	if !known {
		errs = append(errs, field.NotSupported(at.Child("kind"), ref.Kind, kinds))
	}
	if ref.Name == "" {
		return append(errs, field.Required(at.Child("name"), ""))
	}
	for _, msg := range path.ValidatePathSegmentName(ref.Name, false) {
		errs = append(errs, field.Invalid(at.Child("name"), ref.Name, msg))
	}
	return errs
}

func sameRef(is, was rbacv1.RoleRef) field.ErrorList {
	if is == was {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("roleRef"), is, "cannot change roleRef")}
}

func validateSubjects(subjects []rbacv1.Subject, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	for i := range subjects {
		errs = append(errs, validateSubject(&subjects[i], namespaced, field.NewPath("subjects").Index(i))...)
	}
	return errs
}

func validateSubject(s *rbacv1.Subject, namespaced bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	}
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		if s.Name != "" {
			for _, msg := range validation.ValidateServiceAccountName(s.Name, false) {
				errs = append(errs, field.Invalid(at.Child("name"), s.Name, msg))
			}
		}
		if s.APIGroup != "" {
			errs = append(errs, field.NotSupported(at.Child("apiGroup"), s.APIGroup, []string{""}))
		}
		if !namespaced && s.Namespace == "" {
			errs = append(errs, field.Required(at.Child("namespace"), ""))
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
		if s.APIGroup != rbacv1.GroupName {
			errs = append(errs, field.NotSupported(at.Child("apiGroup"), s.APIGroup, []string{rbacv1.GroupName}))
		}
	default:
		errs = append(errs, field.NotSupported(at.Child("kind"), s.Kind, []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
	}
	return errs
}

func bindingColumns(doc map[string]string) []metav1.TableColumnDefinition {
	return append([]metav1.TableColumnDefinition{
		api.NameColumn(), api.TextColumn("Role", doc["roleRef"]), api.AgeColumn(),
	}, api.Wide(
		api.TextColumn("Users", "Users that the role is given to."),
		api.TextColumn("Groups", "Groups that the role is given to."),
		api.TextColumn("ServiceAccounts", "Service accounts that the role is given to."),
	)...)
}

func bindingCells(m *metav1.ObjectMeta, ref rbacv1.RoleRef, subjects []rbacv1.Subject, now time.Time) []any {
	var users, groups, accounts []string
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			users = append(users, s.Name)
		case rbacv1.GroupKind:
			groups = append(groups, s.Name)
		case rbacv1.ServiceAccountKind:
			accounts = append(accounts, s.Namespace+"/"+s.Name)
		}
	}
	return []any{
		m.Name, ref.Kind + "/" + ref.Name, api.Age(m.CreationTimestamp, now),
		strings.Join(users, ", "), strings.Join(groups, ", "), strings.Join(accounts, ", "),
	}
}
