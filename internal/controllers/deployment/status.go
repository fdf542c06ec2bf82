package deployment

import (
	"fmt"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The reasons of the condition Progressing that decisions rest on.
const (
	reasonDone     = "NewReplicaSetAvailable"
	reasonUpdated  = "ReplicaSetUpdated"
	reasonTooLate  = "ProgressDeadlineExceeded"
	reasonPaused   = "DeploymentPaused"
	reasonResumed  = "DeploymentResumed"
	reasonNotMade  = "ReplicaSetCreateError"
	reasonMinimum  = "MinimumReplicasAvailable"
	reasonTooFew   = "MinimumReplicasUnavailable"
	textMinimum    = "Deployment has minimum availability."
	textTooFew     = "Deployment does not have minimum availability."
	noDeadline     = math.MaxInt32
	secondsOfGrace = time.Second
)

func condition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

func progressing(s *appsv1.DeploymentStatus) *appsv1.DeploymentCondition {
	return condition(s, appsv1.DeploymentProgressing)
}

func drop(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}

// set writes a condition unless its status and reason stay; the time of
// transition stays while the status does.
func set(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition) {
	if old := condition(s, c.Type); old != nil {
		if old.Status == c.Status && old.Reason == c.Reason {
			return
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
	}
	drop(s, c.Type)
	s.Conditions = append(s.Conditions, c)
}

func (p *planner) condition(t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) appsv1.DeploymentCondition {
	now := metav1.Time{Time: p.now.Truncate(time.Second)}
	return appsv1.DeploymentCondition{Type: t, Status: status, Reason: reason, Message: message, LastUpdateTime: now, LastTransitionTime: now}
}

func (p *planner) progress(status corev1.ConditionStatus, reason, message string) {
	set(&p.d.Status, p.condition(appsv1.DeploymentProgressing, status, reason, message))
}

func tracksProgress(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != noDeadline
}

// notePause stops and restarts the clock of the deadline.
func (p *planner) notePause() {
	if !tracksProgress(p.d) {
		return
	}
	c := progressing(&p.d.Status)
	if c != nil && c.Reason == reasonTooLate {
		return // it is not forgotten
	}
	was := c != nil && c.Reason == reasonPaused
	if p.d.Spec.Paused && !was {
		p.progress(corev1.ConditionUnknown, reasonPaused, "Deployment is paused")
	}
	if !p.d.Spec.Paused && was {
		p.progress(corev1.ConditionUnknown, reasonResumed, "Deployment is resumed")
	}
}

// count fills in the numbers and the condition Available.
func (p *planner) count() appsv1.DeploymentStatus {
	s := *p.d.Status.DeepCopy()
	s.ObservedGeneration = p.d.Generation
	s.Replicas, s.UpdatedReplicas, s.ReadyReplicas, s.AvailableReplicas = 0, 0, 0, 0
	terminating, known := int32(0), true
	for _, rs := range p.all {
		s.Replicas += rs.Status.Replicas
		s.ReadyReplicas += rs.Status.ReadyReplicas
		s.AvailableReplicas += rs.Status.AvailableReplicas
		if rs.Status.TerminatingReplicas == nil {
			known = known && p.made && rs == p.new
		} else {
			terminating += *rs.Status.TerminatingReplicas
		}
	}
	if p.new != nil {
		s.UpdatedReplicas = p.new.Status.Replicas
	}
	s.TerminatingReplicas = nil
	if known {
		s.TerminatingReplicas = &terminating
	}
	s.UnavailableReplicas = max(0, sizes(p.all)-s.AvailableReplicas)
	_, unavailable := limits(p.d)
	if s.AvailableReplicas >= number(p.d.Spec.Replicas)-unavailable {
		set(&s, p.condition(appsv1.DeploymentAvailable, corev1.ConditionTrue, reasonMinimum, textMinimum))
	} else {
		set(&s, p.condition(appsv1.DeploymentAvailable, corev1.ConditionFalse, reasonTooFew, textTooFew))
	}
	return s
}

// complete reports whether a status says that all is as wanted.
func (p *planner) complete(s *appsv1.DeploymentStatus) bool {
	want := number(p.d.Spec.Replicas)
	return s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want && s.ObservedGeneration >= p.d.Generation
}

// status computes the status; of a rollout it also says how that goes.
func (p *planner) status(rollout bool) {
	s := p.count()
	if rollout {
		p.judge(&s)
		p.failure(&s)
		p.do.again = p.deadline(&s)
	}
	p.do.status = s
}

// judge writes the condition Progressing.
func (p *planner) judge(s *appsv1.DeploymentStatus) {
	if !tracksProgress(p.d) {
		drop(s, appsv1.DeploymentProgressing)
		return
	}
	was := progressing(&p.d.Status)
	if s.Replicas == s.UpdatedReplicas && was != nil && was.Reason == reasonDone {
		return // finished before; what happens to the pods now is no rollout
	}
	what := fmt.Sprintf("Deployment %q", p.d.Name)
	if p.new != nil {
		what = fmt.Sprintf("ReplicaSet %q", p.new.Name)
	}
	switch {
	case p.complete(s):
		set(s, p.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonDone, what+" has successfully progressed."))
	case advanced(&p.deployment.Status, s):
		c := p.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, what+" is progressing.")
		if was != nil && was.Status == corev1.ConditionTrue {
			c.LastTransitionTime = was.LastTransitionTime
		}
		drop(s, appsv1.DeploymentProgressing) // the time of the update moves
		set(s, c)
	case p.late(s):
		set(s, p.condition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonTooLate, what+" has timed out progressing."))
	}
}

// advanced reports whether a rollout came nearer to its end.
func advanced(old, s *appsv1.DeploymentStatus) bool {
	return s.UpdatedReplicas > old.UpdatedReplicas || s.Replicas-s.UpdatedReplicas < old.Replicas-old.UpdatedReplicas ||
		s.ReadyReplicas > old.ReadyReplicas || s.AvailableReplicas > old.AvailableReplicas
}

func (p *planner) late(s *appsv1.DeploymentStatus) bool {
	c := progressing(s)
	if c == nil || c.Reason == reasonDone {
		return false
	}
	return c.Reason == reasonTooLate || p.left(c) <= 0
}

// left is the time until the deadline.
func (p *planner) left(c *appsv1.DeploymentCondition) time.Duration {
	return c.LastUpdateTime.Add(time.Duration(*p.d.Spec.ProgressDeadlineSeconds) * time.Second).Sub(p.now)
}

// deadline is when to look whether the rollout is late; 0 is never.
func (p *planner) deadline(s *appsv1.DeploymentStatus) time.Duration {
	c := progressing(s)
	if !tracksProgress(p.d) || c == nil || c.Reason == reasonDone || c.Reason == reasonTooLate || p.complete(s) {
		return 0
	}
	return max(0, p.left(c)) + secondsOfGrace
}

// failure repeats what keeps a ReplicaSet from making pods.
func (p *planner) failure(s *appsv1.DeploymentStatus) {
	sets := p.old
	if p.new != nil {
		sets = append([]*appsv1.ReplicaSet{p.new}, sets...)
	}
	for _, rs := range sets {
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				set(s, appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
					LastTransitionTime: c.LastTransitionTime, LastUpdateTime: c.LastTransitionTime,
				})
				return
			}
		}
	}
	drop(s, appsv1.DeploymentReplicaFailure)
}
