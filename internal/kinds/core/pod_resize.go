package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

// KeepForResize makes obj what a write of /resize may make of old: old with the
// resources and resize policies of obj's containers. Where obj has other
// containers than old it is left as it is, for ValidateResizeUpdate to refuse.
func KeepForResize(obj, old *corev1.Pod) {
	api.KeepMeta(obj, old)
	obj.Status = *old.Status.DeepCopy()
	if len(orderErrors(obj, old)) > 0 {
		return
	}
	spec := old.Spec.DeepCopy()
	for i := range spec.Containers {
		spec.Containers[i].Resources = obj.Spec.Containers[i].Resources
		spec.Containers[i].ResizePolicy = obj.Spec.Containers[i].ResizePolicy
	}
	for i := range spec.InitContainers {
		if podspec.Sidecar(&spec.InitContainers[i]) {
			spec.InitContainers[i].Resources = obj.Spec.InitContainers[i].Resources
			spec.InitContainers[i].ResizePolicy = obj.Spec.InitContainers[i].ResizePolicy
		}
	}
	spec.Resources = obj.Spec.Resources
	obj.Spec = *spec
}

// ValidateResizeUpdate checks a write of /resize: cpu and memory of containers
// may change, as long as nothing is taken away that was set and the pod's
// quality of service stays. The pod's Validate runs as well.
func ValidateResizeUpdate(p, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec")
	if _, ok := old.Annotations[corev1.MirrorPodAnnotationKey]; ok {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	}
	errs := orderErrors(p, old)
	if len(errs) > 0 {
		return errs // the rest compares container by container
	}
	if is, was := podspec.QOS(&p.Spec), podspec.QOS(&old.Spec); is != was {
		errs = append(errs, field.Invalid(path, is, "Pod QOS Class may not change as a result of resizing"))
	}
	munged := p.Spec.DeepCopy()
	for i := range munged.Containers {
		errs = append(errs, resized(&munged.Containers[i], &old.Spec.Containers[i], path.Child("containers").Index(i))...)
	}
	for i := range munged.InitContainers {
		if podspec.Sidecar(&munged.InitContainers[i]) {
			errs = append(errs, resized(&munged.InitContainers[i], &old.Spec.InitContainers[i], path.Child("initContainers").Index(i))...)
		}
	}
	if !equality.Semantic.DeepEqual(*munged, old.Spec) {
		errs = append(errs, field.Forbidden(path, fmt.Sprintf("only cpu and memory resources are mutable\n%v", diff.Diff(*munged, old.Spec))))
	}
	return errs
}

// orderErrors reports containers that are not those of old, one by one.
func orderErrors(p, old *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	for _, l := range []struct {
		name    string
		is, was []corev1.Container
	}{
		{"containers", p.Spec.Containers, old.Spec.Containers},
		{"initContainers", p.Spec.InitContainers, old.Spec.InitContainers},
	} {
		same := len(l.is) == len(l.was)
		for i := 0; same && i < len(l.is); i++ {
			same = l.is[i].Name == l.was[i].Name
		}
		if !same {
			errs = append(errs, field.Forbidden(field.NewPath("spec", l.name), l.name+" may not be renamed or reordered on resize"))
		}
	}
	return errs
}

// resized checks that no request and no limit was taken away, and puts the old
// values of what may change into c.
func resized(c, old *corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, l := range []struct {
		name, what string
		is         *corev1.ResourceList
		was        corev1.ResourceList
	}{
		{"requests", "resource requests cannot be removed", &c.Resources.Requests, old.Resources.Requests},
		{"limits", "resource limits cannot be removed", &c.Resources.Limits, old.Resources.Limits},
	} {
		next := l.is.DeepCopy()
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			_, is := (*l.is)[name]
			was, had := l.was[name]
			if had && !is {
				errs = append(errs, field.Forbidden(path.Child("resources", l.name), l.what))
			}
			delete(next, name)
			if had {
				if next == nil {
					next = corev1.ResourceList{}
				}
				next[name] = was
			}
		}
		*l.is = next
	}
	c.ResizePolicy = old.ResizePolicy
	return errs
}
