package core

import (
	"fmt"
	"math"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/podspec"
)

func validatePod(p *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec")
	errs := podspec.Validate(&p.Spec, podspec.InPod, path)
	if p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(path.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	if cost, ok := p.Annotations[corev1.PodDeletionCost]; ok {
		if _, err := strconv.ParseInt(cost, 10, 32); err != nil {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "annotations").Key(corev1.PodDeletionCost), cost, "must be a 32bit integer"))
		}
	}
	return errs
}

// validateNewPod refuses what a pod gets later only.
func validateNewPod(p *corev1.Pod) field.ErrorList {
	if len(p.Spec.EphemeralContainers) > 0 {
		return field.ErrorList{field.Forbidden(field.NewPath("spec", "ephemeralContainers"), "cannot be set on create")}
	}
	return nil
}

const mayChange = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`," +
	"`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// validatePodUpdate lets images change, deadlines come nearer, tolerations be
// added and gates be opened; the rest of a pod's spec stays as it was created.
func validatePodUpdate(p, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec")
	if errs := validateContainerNumber(p, old, path); len(errs) > 0 {
		return errs
	}
	if errs := validateDeadline(p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds, path.Child("activeDeadlineSeconds")); len(errs) > 0 {
		return errs
	}
	errs := validateAddedTolerations(p.Spec.Tolerations, old.Spec.Tolerations, path.Child("tolerations"))
	errs = append(errs, validateOpenedGates(p.Spec.SchedulingGates, old.Spec.SchedulingGates, path.Child("schedulingGates"))...)
	munged := mungePodSpec(&p.Spec, &old.Spec)
	if !equality.Semantic.DeepEqual(*munged, old.Spec) {
		errs = append(errs, field.Forbidden(path, fmt.Sprintf("%s\n%v", mayChange, diff.Diff(*munged, old.Spec))))
	}
	return errs
}

func validateContainerNumber(p, old *corev1.Pod, path *field.Path) field.ErrorList {
	if len(p.Spec.Containers) != len(old.Spec.Containers) {
		return field.ErrorList{field.Forbidden(path.Child("containers"), "pod updates may not add or remove containers")}
	}
	if len(p.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return field.ErrorList{field.Forbidden(path.Child("initContainers"), "pod updates may not add or remove containers")}
	}
	return nil
}

func validateDeadline(is, was *int64, path *field.Path) field.ErrorList {
	switch {
	case is == nil && was != nil:
		return field.ErrorList{field.Invalid(path, is, "must not update from a positive integer to nil value")}
	case is == nil:
		return nil
	case *is < 0 || *is > math.MaxInt32:
		return field.ErrorList{field.Invalid(path, *is, utilvalidation.InclusiveRangeError(0, math.MaxInt32))}
	case was != nil && *was < *is:
		return field.ErrorList{field.Invalid(path, *is, "must be less than or equal to previous value")}
	}
	return nil
}

func validateAddedTolerations(is, was []corev1.Toleration, path *field.Path) field.ErrorList {
	for _, t := range was {
		found := false
		for _, n := range is {
			t.TolerationSeconds = n.TolerationSeconds
			if found = equality.Semantic.DeepEqual(t, n); found {
				break
			}
		}
		if !found {
			return field.ErrorList{field.Forbidden(path, "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return nil
}

func validateOpenedGates(is, was []corev1.PodSchedulingGate, path *field.Path) field.ErrorList {
	had := map[string]bool{}
	for _, g := range was {
		had[g.Name] = true
	}
	var errs field.ErrorList
	for i, g := range is {
		if !had[g.Name] {
			errs = append(errs, field.Forbidden(path.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name)))
		}
	}
	return errs
}

// mungePodSpec is the new spec with the old values where change is allowed.
func mungePodSpec(s, old *corev1.PodSpec) *corev1.PodSpec {
	m := s.DeepCopy()
	for i := range m.Containers {
		m.Containers[i].Image = old.Containers[i].Image
	}
	for i := range m.InitContainers {
		m.InitContainers[i].Image = old.InitContainers[i].Image
	}
	m.ActiveDeadlineSeconds = old.ActiveDeadlineSeconds
	m.Tolerations = old.Tolerations
	m.SchedulingGates = old.SchedulingGates
	if t, o := m.TerminationGracePeriodSeconds, old.TerminationGracePeriodSeconds; t != nil && o != nil && *o < 0 && *t == 1 {
		m.TerminationGracePeriodSeconds = o
	}
	if len(old.SchedulingGates) > 0 && tightened(m, old) {
		m.NodeSelector, m.Affinity = old.NodeSelector, old.Affinity
	}
	return m
}

// tightened reports whether a gated pod may go to no node that it could not go
// to before: node selectors are only added, and node affinity either appears or
// has requirements added to each of its terms.
func tightened(s, old *corev1.PodSpec) bool {
	for key, value := range old.NodeSelector {
		if got, ok := s.NodeSelector[key]; !ok || got != value {
			return false
		}
	}
	is, was := s.Affinity.DeepCopy(), old.Affinity
	if was == nil {
		return is == nil || (is.PodAffinity == nil && is.PodAntiAffinity == nil)
	}
	if is == nil || !equality.Semantic.DeepEqual(is.PodAffinity, was.PodAffinity) || !equality.Semantic.DeepEqual(is.PodAntiAffinity, was.PodAntiAffinity) {
		return false
	}
	if was.NodeAffinity == nil || was.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	if is.NodeAffinity == nil || is.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return false
	}
	now := is.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	then := was.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(now) != len(then) {
		return false
	}
	for i := range then {
		if !hasAll(now[i].MatchExpressions, then[i].MatchExpressions) || !hasAll(now[i].MatchFields, then[i].MatchFields) {
			return false
		}
	}
	return true
}

// hasAll reports whether list begins with all of first.
func hasAll(list, first []corev1.NodeSelectorRequirement) bool {
	return len(list) >= len(first) && equality.Semantic.DeepEqual(list[:len(first)], first)
}

func validatePodStatus(p, old *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status")
	if n := p.Status.NominatedNodeName; n != "" {
		for _, msg := range validation.NameIsDNSSubdomain(n, false) {
			errs = append(errs, field.Invalid(path.Child("nominatedNodeName"), n, msg))
		}
	}
	for i, c := range p.Status.Conditions {
		for _, msg := range utilvalidation.IsQualifiedName(string(c.Type)) {
			errs = append(errs, field.Invalid(path.Child("conditions").Index(i).Child("type"), c.Type, msg))
		}
	}
	seen := map[string]bool{}
	for i, ip := range p.Status.PodIPs {
		at := path.Child("podIPs").Index(i)
		errs = append(errs, utilvalidation.IsValidIPForLegacyField(at, ip.IP, false, nil)...)
		if seen[ip.IP] {
			errs = append(errs, field.Duplicate(at, ip))
		}
		seen[ip.IP] = true
	}
	if len(p.Status.PodIPs) > 2 {
		errs = append(errs, field.Invalid(path.Child("podIPs"), p.Status.PodIPs, "may specify no more than one IP for each IP family"))
	}
	errs = append(errs, validateTransitions(p.Status.ContainerStatuses, old.Status.ContainerStatuses, &old.Spec, old.Spec.Containers, path.Child("containerStatuses"))...)
	return append(errs, validateTransitions(p.Status.InitContainerStatuses, old.Status.InitContainerStatuses, &old.Spec, old.Spec.InitContainers, path.Child("initContainerStatuses"))...)
}

// validateTransitions keeps an ended container ended where the pod's policy
// does not start it again.
func validateTransitions(is, was []corev1.ContainerStatus, spec *corev1.PodSpec, containers []corev1.Container, path *field.Path) field.ErrorList {
	if spec.RestartPolicy == corev1.RestartPolicyAlways {
		return nil
	}
	own := map[string]bool{} // has a policy of its own
	for i := range containers {
		own[containers[i].Name] = containers[i].RestartPolicy != nil
	}
	ended := map[string]bool{}
	for _, c := range was {
		t := c.State.Terminated
		if t == nil || own[c.Name] || (t.ExitCode != 0 && spec.RestartPolicy == corev1.RestartPolicyOnFailure) {
			continue
		}
		ended[c.Name] = true
	}
	var errs field.ErrorList
	for i, c := range is {
		if ended[c.Name] && c.State.Terminated == nil {
			errs = append(errs, field.Forbidden(path.Index(i).Child("state"), "may not be transitioned to non-terminated state"))
		}
	}
	return errs
}
