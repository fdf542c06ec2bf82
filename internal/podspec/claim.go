package podspec

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// DefaultClaim fills in what a claim, or a template of claims, leaves out.
func DefaultClaim(c *corev1.PersistentVolumeClaim) {
	setString(&c.Status.Phase, corev1.ClaimPending)
	DefaultClaimSpec(&c.Spec)
}

// DefaultClaimSpec fills in what the spec of a claim leaves out.
func DefaultClaimSpec(s *corev1.PersistentVolumeClaimSpec) {
	setPtr(&s.VolumeMode, corev1.PersistentVolumeFilesystem)
}

// ValidateClaimSpec checks the spec of a claim at path.
func ValidateClaimSpec(s *corev1.PersistentVolumeClaimSpec, path *field.Path) field.ErrorList {
	v := &checker{}
	if len(s.AccessModes) == 0 {
		v.add(field.Required(path.Child("accessModes"), "at least 1 access mode is required"))
	}
	v.selector(s.Selector, path.Child("selector"))
	v.add(ValidateAccessModes(s.AccessModes, path.Child("accessModes"))...)
	at := path.Child("resources").Key(string(corev1.ResourceStorage))
	if q, ok := s.Resources.Requests[corev1.ResourceStorage]; !ok {
		v.add(field.Required(at, ""))
	} else {
		v.add(ValidateQuantity(corev1.ResourceStorage, q, at)...)
		if q.Sign() <= 0 {
			v.invalid(at, q.String(), "must be greater than zero")
		}
	}
	for _, n := range []struct {
		field string
		name  *string
	}{{"storageClassName", s.StorageClassName}, {"volumeAttributesClassName", s.VolumeAttributesClassName}} {
		if n.name != nil && *n.name != "" {
			v.msgs(path.Child(n.field), *n.name, apivalidation.NameIsDNSSubdomain(*n.name, false))
		}
	}
	oneOfPtr(v, path.Child("volumeMode"), s.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	v.dataSources(s, path)
	return v.errs
}

// ValidateAccessModes checks the access modes of a volume or claim.
func ValidateAccessModes(modes []corev1.PersistentVolumeAccessMode, path *field.Path) field.ErrorList {
	all := []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod}
	var errs field.ErrorList
	for _, m := range modes {
		if !slices.Contains(all, m) {
			errs = append(errs, field.NotSupported(path, m, all))
		}
	}
	alone := slices.Contains(modes, corev1.ReadWriteOncePod)
	if alone && slices.ContainsFunc(modes, func(m corev1.PersistentVolumeAccessMode) bool { return m != corev1.ReadWriteOncePod }) {
		errs = append(errs, field.Forbidden(path, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

// dataSources checks from what a claim wants to be filled.
func (v *checker) dataSources(s *corev1.PersistentVolumeClaimSpec, path *field.Path) {
	if d := s.DataSource; d != nil {
		v.dataSource(d.Name, d.Kind, d.APIGroup, path.Child("dataSource"))
	}
	r := s.DataSourceRef
	if r == nil {
		return
	}
	at := path.Child("dataSourceRef")
	v.dataSource(r.Name, r.Kind, r.APIGroup, at)
	elsewhere := r.Namespace != nil && *r.Namespace != ""
	if elsewhere {
		v.msgs(at.Child("namespace"), *r.Namespace, apivalidation.ValidateNamespaceName(*r.Namespace, false))
	}
	switch d := s.DataSource; {
	case d == nil:
	case elsewhere:
		v.invalid(path, path.Child("dataSource").String(), "may not be specified when dataSourceRef.namespace is specified")
	case d.Name != r.Name || d.Kind != r.Kind || text(d.APIGroup) != text(r.APIGroup):
		v.invalid(path, path.Child("dataSource").String(), "must match dataSourceRef")
	}
}

func (v *checker) dataSource(name, kind string, group *string, path *field.Path) {
	v.required(path.Child("name"), name)
	v.required(path.Child("kind"), kind)
	if g := text(group); g != "" {
		v.msgs(path.Child("apiGroup"), g, validation.IsDNS1123Subdomain(g))
	} else if kind != "PersistentVolumeClaim" {
		v.invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// ephemeralClaim checks the template of an ephemeral volume's claim.
func (v *checker) ephemeralClaim(t *corev1.PersistentVolumeClaimTemplate, path *field.Path) {
	if t == nil {
		v.add(field.Required(path, ""))
		return
	}
	at := path.Child("metadata")
	v.add(metavalidation.ValidateLabels(t.Labels, at.Child("labels"))...)
	v.add(apivalidation.ValidateAnnotations(t.Annotations, at.Child("annotations"))...)
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"name", t.Name != ""}, {"generateName", t.GenerateName != ""}, {"namespace", t.Namespace != ""},
		{"ownerReferences", len(t.OwnerReferences) > 0}, {"finalizers", len(t.Finalizers) > 0},
	} {
		if f.set {
			v.add(field.Forbidden(at.Child(f.name), "not allowed"))
		}
	}
	v.add(ValidateClaimSpec(&t.Spec, path.Child("spec"))...)
}

// ValidateHostPath checks a path of the node.
func ValidateHostPath(h *corev1.HostPathVolumeSource, path *field.Path) field.ErrorList {
	v := &checker{}
	v.hostPath(h, path)
	return v.errs
}

// ValidateNFS checks a share.
func ValidateNFS(n *corev1.NFSVolumeSource, path *field.Path) field.ErrorList {
	v := &checker{}
	v.nfs(n, path)
	return v.errs
}

// ValidateNodeSelector checks the terms by which nodes are picked.
func ValidateNodeSelector(s *corev1.NodeSelector, path *field.Path) field.ErrorList {
	v := &checker{}
	v.nodeSelector(s, path)
	return v.errs
}

// ValidateNoBacksteps refuses a path that climbs.
func ValidateNoBacksteps(name string, path *field.Path) field.ErrorList {
	v := &checker{}
	v.noBacksteps(name, path)
	return v.errs
}

// ResourceNames lists the names of a list of resources, in order.
func ResourceNames(l corev1.ResourceList) []corev1.ResourceName { return slices.Sorted(maps.Keys(l)) }
