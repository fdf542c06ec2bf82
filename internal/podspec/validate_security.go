package podspec

import (
	"fmt"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	sysctlPattern   = `([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?`
	maxSysctlLength = 253
)

var sysctlName = regexp.MustCompile("^" + sysctlPattern + "$")

func privileged(sc *corev1.SecurityContext) bool {
	return sc != nil && sc.Privileged != nil && *sc.Privileged
}

func (v *checker) userID(id *int64, p *field.Path) {
	if id != nil {
		v.msgs(p, *id, validation.IsValidUserID(*id))
	}
}

func (v *checker) groupID(id *int64, p *field.Path) {
	if id != nil {
		v.msgs(p, *id, validation.IsValidGroupID(*id))
	}
}

func (v *checker) podSecurity(path *field.Path) {
	s, sc, at := v.spec, v.spec.SecurityContext, path.Child("securityContext")
	if s.ShareProcessNamespace != nil && *s.ShareProcessNamespace && s.HostPID {
		v.invalid(at.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled")
	}
	if s.HostUsers != nil && !*s.HostUsers {
		for _, f := range []struct {
			name string
			set  bool
		}{{"hostPID", s.HostPID}, {"hostIPC", s.HostIPC}, {"hostNetwork", s.HostNetwork}} {
			if f.set {
				v.add(field.Forbidden(path.Child(f.name), "when `hostUsers` is false"))
			}
		}
	}
	if sc == nil {
		return
	}
	v.groupID(sc.FSGroup, at.Child("fsGroup"))
	v.userID(sc.RunAsUser, at.Child("runAsUser"))
	v.groupID(sc.RunAsGroup, at.Child("runAsGroup"))
	for i, g := range sc.SupplementalGroups {
		v.groupID(&g, at.Child("supplementalGroups").Index(i))
	}
	v.sysctls(sc.Sysctls, at.Child("sysctls"))
	oneOfPtr(v, at.Child("fsGroupChangePolicy"), sc.FSGroupChangePolicy, corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)
	oneOfPtr(v, at.Child("supplementalGroupsPolicy"), sc.SupplementalGroupsPolicy, corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	v.seccomp(sc.SeccompProfile, at.Child("seccompProfile"))
	v.appArmor(sc.AppArmorProfile, at.Child("appArmorProfile"))
}

func (v *checker) sysctls(all []corev1.Sysctl, path *field.Path) {
	seen := map[string]bool{}
	for i, s := range all {
		at := path.Index(i).Child("name")
		switch {
		case s.Name == "":
			v.add(field.Required(at, ""))
		case len(s.Name) > maxSysctlLength || !sysctlName.MatchString(s.Name):
			v.invalid(at, s.Name, "%s", fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlLength, sysctlPattern))
		case seen[s.Name]:
			v.add(field.Duplicate(at, s.Name))
		}
		seen[s.Name] = true
	}
}

func (v *checker) security(sc *corev1.SecurityContext, path *field.Path) {
	if sc == nil {
		return
	}
	v.userID(sc.RunAsUser, path.Child("runAsUser"))
	v.groupID(sc.RunAsGroup, path.Child("runAsGroup"))
	oneOfPtr(v, path.Child("procMount"), sc.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
	if sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount && (v.spec.HostUsers == nil || *v.spec.HostUsers) {
		v.invalid(path.Child("procMount"), *sc.ProcMount, "`hostUsers` must be false to use `Unmasked`")
	}
	v.seccomp(sc.SeccompProfile, path.Child("seccompProfile"))
	v.appArmor(sc.AppArmorProfile, path.Child("appArmorProfile"))
	if sc.AllowPrivilegeEscalation == nil || *sc.AllowPrivilegeEscalation {
		return
	}
	if privileged(sc) {
		v.invalid(path, sc, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
	}
	if sc.Capabilities != nil && slices.Contains(sc.Capabilities.Add, "CAP_SYS_ADMIN") {
		v.invalid(path, sc, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
	}
}

func (v *checker) seccomp(s *corev1.SeccompProfile, path *field.Path) {
	if s == nil {
		return
	}
	at := path.Child("localhostProfile")
	switch s.Type {
	case corev1.SeccompProfileTypeLocalhost:
		if s.LocalhostProfile == nil {
			v.add(field.Required(at, "must be set when seccomp type is Localhost"))
		} else {
			v.localPath(*s.LocalhostProfile, at)
		}
		return
	case corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined:
	case "":
		v.add(field.Required(path.Child("type"), "type is required when seccompProfile is set"))
	default:
		v.add(field.NotSupported(path.Child("type"), s.Type, []corev1.SeccompProfileType{
			corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined,
		}))
	}
	if s.LocalhostProfile != nil {
		v.invalid(at, s, "can only be set when seccomp type is Localhost")
	}
}

func (v *checker) appArmor(a *corev1.AppArmorProfile, path *field.Path) {
	if a == nil {
		return
	}
	at := path.Child("localhostProfile")
	switch a.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		if a.LocalhostProfile == nil {
			v.add(field.Required(at, "must be set when AppArmor type is Localhost"))
		}
		return
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
	case "":
		v.add(field.Required(path.Child("type"), "type is required when appArmorProfile is set"))
	default:
		v.add(field.NotSupported(path.Child("type"), a.Type, []corev1.AppArmorProfileType{
			corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined,
		}))
	}
	if a.LocalhostProfile != nil {
		v.invalid(at, a, "can only be set when AppArmor type is Localhost")
	}
}
