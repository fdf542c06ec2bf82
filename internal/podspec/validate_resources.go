package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (v *checker) resources(r *corev1.ResourceRequirements, path *field.Path) {
	v.amounts(r, path, ValidateContainerResourceName)
	names := map[string]bool{}
	for _, c := range v.spec.ResourceClaims {
		names[c.Name] = true
	}
	seen := map[corev1.ResourceClaim]bool{}
	for i, c := range r.Claims {
		at := path.Child("claims").Index(i)
		switch {
		case c.Name == "":
			v.add(field.Required(at, ""))
		case seen[c]:
			v.add(field.Duplicate(at, c.Name))
		case !names[c.Name]:
			v.add(field.NotFound(at, c.Name))
		}
		seen[c] = true
	}
}

// podResources checks the requirements of the pod as a whole.
func (v *checker) podResources(path *field.Path) {
	r := v.spec.Resources
	if r == nil {
		return
	}
	if len(r.Claims) > 0 {
		v.add(field.Forbidden(path.Child("claims"), "claims may not be set for Resources at pod-level"))
	}
	v.amounts(r, path, func(name corev1.ResourceName, path *field.Path) field.ErrorList {
		errs := ValidateResourceName(name, path)
		if len(errs) == 0 && !podLevelResource(name) {
			errs = append(errs, field.NotSupported(path, name, []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceHugePagesPrefix}))
		}
		return errs
	})
	v.podOverContainers(r, path)
}

// podOverContainers refuses pod-level requests below what the containers
// request together.
func (v *checker) podOverContainers(r *corev1.ResourceRequirements, path *field.Path) {
	of := *v.spec
	of.Resources, of.Overhead = nil, nil
	containers := Requests(&of)
	for _, name := range ResourceNames(r.Requests) {
		pod, sum := r.Requests[name], containers[name]
		if sum.Cmp(pod) > 0 {
			v.invalid(path.Child("requests").Key(string(name)), pod.String(), "must be greater than or equal to aggregate container requests of %s", sum.String())
		}
	}
}

func (v *checker) amounts(r *corev1.ResourceRequirements, path *field.Path, validName func(corev1.ResourceName, *field.Path) field.ErrorList) {
	limits, requests := path.Child("limits"), path.Child("requests")
	huge, base := false, false
	note := func(name corev1.ResourceName) {
		huge = huge || hugePages(name)
		base = base || name == corev1.ResourceCPU || name == corev1.ResourceMemory
	}
	for _, name := range ResourceNames(r.Limits) {
		note(name)
		v.add(validName(name, limits.Key(string(name)))...)
		v.add(ValidateQuantity(name, r.Limits[name], limits.Key(string(name)))...)
		v.pages(name, r.Limits[name], limits.Key(string(name)))
	}
	for _, name := range ResourceNames(r.Requests) {
		note(name)
		q := r.Requests[name]
		v.add(validName(name, requests.Key(string(name)))...)
		v.add(ValidateQuantity(name, q, requests.Key(string(name)))...)
		v.pages(name, q, requests.Key(string(name)))
		limit, limited := r.Limits[name]
		switch {
		case !limited && !Overcommit(name):
			v.add(field.Required(limits, "Limit must be set for non overcommitable resources"))
		case limited && !Overcommit(name) && q.Cmp(limit) != 0:
			v.invalid(requests, q.String(), "must be equal to %s limit of %s", name, limit.String())
		case limited && q.Cmp(limit) > 0:
			v.invalid(requests, q.String(), "must be less than or equal to %s limit of %s", name, limit.String())
		}
	}
	if huge && !base {
		v.add(field.Forbidden(path, "HugePages require cpu or memory"))
	}
}

// pages demands that an amount of huge pages is a number of whole pages.
func (v *checker) pages(name corev1.ResourceName, q resource.Quantity, path *field.Path) {
	if !hugePages(name) {
		return
	}
	page, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	if err != nil || page.Sign() <= 0 || page.MilliValue()%1000 != 0 || q.Value()%page.Value() != 0 {
		v.invalid(path, q.String(), "%s is not positive integer multiple of %s", q.String(), name)
	}
}

func (v *checker) overhead(path *field.Path) {
	for _, name := range ResourceNames(v.spec.Overhead) {
		v.add(ValidateContainerResourceName(name, path.Key(string(name)))...)
		v.add(ValidateQuantity(name, v.spec.Overhead[name], path.Key(string(name)))...)
	}
}

func (v *checker) resizePolicy(all []corev1.ContainerResizePolicy, path *field.Path) {
	seen := map[corev1.ResourceName]bool{}
	for i, p := range all {
		at := path.Index(i)
		if seen[p.ResourceName] {
			v.add(field.Duplicate(at, p.ResourceName))
		}
		seen[p.ResourceName] = true
		v.oneOf(at.Child("resourceName"), p.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)
		v.oneOf(at.Child("restartPolicy"), p.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)
		if v.spec.RestartPolicy == corev1.RestartPolicyNever && p.RestartPolicy != corev1.NotRequired {
			v.invalid(at, p.RestartPolicy, "%s", fmt.Sprintf("must be 'NotRequired' when `restartPolicy` is '%s'", v.spec.RestartPolicy))
		}
	}
}
