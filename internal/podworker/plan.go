package podworker

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// kind is what a step does.
type kind string

const (
	waitFor   kind = "wait"      // for a message, or for delay
	setVolume kind = "volumes"   // make or refresh the volumes
	attach    kind = "attach"    // network
	sandbox   kind = "sandbox"   // namespaces and the shim
	pull      kind = "pull"      // find the container's image
	start     kind = "start"     // the container
	retire    kind = "retire"    // note how a run ended and when the next may be
	stop      kind = "stop"      // the container, gracefully
	teardown  kind = "tear down" // sandbox, network, volumes
	finish    kind = "finish"    // nothing is left
)

// step is the next thing to do for a pod.
type step struct {
	kind      kind
	container string
	delay     time.Duration
}

const (
	firstBackOff = 10 * time.Second
	lastBackOff  = 5 * time.Minute
	// A run of this length ends a row of failures.
	goodRun  = 10 * time.Minute
	maxFails = 6
)

// plan is the choice of the next step: a pure function of what is wanted and
// what is there.
func plan(pod *corev1.Pod, s *state, now time.Time) step {
	for _, spec := range allContainers(pod) {
		if c := s.containers[spec.Name]; c.current.ended() && c.current.reason == "" {
			return step{kind: retire, container: spec.Name}
		}
	}
	if s.orphan || pod.DeletionTimestamp != nil || s.failed != nil || over(pod, s) {
		return end(pod, s, now)
	}
	if p := s.problem; p != nil && now.Before(p.again) {
		return step{kind: waitFor, delay: p.again.Sub(now)}
	}
	switch {
	case !s.volumesDone:
		return step{kind: setVolume}
	case !s.attached:
		return step{kind: attach}
	case !s.sandbox:
		return step{kind: sandbox}
	}
	return advance(pod, s, now)
}

// advance starts what is due: init containers in order, then the others.
func advance(pod *corev1.Pod, s *state, now time.Time) step {
	wait := step{kind: waitFor}
	for i := range pod.Spec.InitContainers {
		spec := &pod.Spec.InitContainers[i]
		c := s.containers[spec.Name]
		if !sidecar(spec) && c.current.ended() && c.current.ExitCode == 0 {
			continue
		}
		if sidecar(spec) && c.current.running() && started(spec, c) {
			continue
		}
		next := oneContainer(pod, spec, c, now)
		if next.kind != waitFor {
			return next
		}
		if !sidecar(spec) || !started(spec, c) {
			return next // the next one waits for this one
		}
		wait = sooner(wait, next)
	}
	for i := range pod.Spec.Containers {
		spec := &pod.Spec.Containers[i]
		next := oneContainer(pod, spec, s.containers[spec.Name], now)
		if next.kind != waitFor {
			return next
		}
		wait = sooner(wait, next)
	}
	return wait
}

// oneContainer gives the next step of one container that should run.
func oneContainer(pod *corev1.Pod, spec *corev1.Container, c *container, now time.Time) step {
	idle := step{kind: waitFor}
	switch {
	case c.current.running(), c.stopping, c.pulling:
		return idle
	case c.current.ended() && !again(pod, spec, c):
		return idle
	case now.Before(c.again):
		return step{kind: waitFor, delay: c.again.Sub(now)}
	case c.image == nil && c.pullFail != nil && now.Before(c.pullFail.again):
		return step{kind: waitFor, delay: c.pullFail.again.Sub(now)}
	case c.image == nil:
		return step{kind: pull, container: c.name}
	case c.config != nil && now.Before(c.config.again):
		return step{kind: waitFor, delay: c.config.again.Sub(now)}
	}
	return step{kind: start, container: c.name}
}

// again reports whether a container that ended is started once more.
func again(pod *corev1.Pod, spec *corev1.Container, c *container) bool {
	policy := pod.Spec.RestartPolicy
	if spec.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*spec.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return c.current.ExitCode != 0
	}
	// Always: but an init container that succeeded has done its work.
	return sidecar(spec) || !isInit(pod, spec.Name) || c.current.ExitCode != 0
}

func isInit(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return true
		}
	}
	return false
}

func started(spec *corev1.Container, c *container) bool {
	return c.current.running() && (spec.StartupProbe == nil || c.probeStarted)
}

func sooner(a, b step) step {
	if b.delay > 0 && (a.delay == 0 || b.delay < a.delay) {
		return b
	}
	return a
}

// over reports that all containers of the pod have ended for good.
func over(pod *corev1.Pod, s *state) bool {
	if p := pod.Status.Phase; p == corev1.PodSucceeded || p == corev1.PodFailed {
		return true
	}
	for i := range pod.Spec.InitContainers {
		spec := &pod.Spec.InitContainers[i]
		c := s.containers[spec.Name]
		if !sidecar(spec) && c.current.ended() && c.current.ExitCode != 0 && !again(pod, spec, c) {
			return true
		}
	}
	for i := range pod.Spec.Containers {
		spec := &pod.Spec.Containers[i]
		c := s.containers[spec.Name]
		if !c.current.ended() || again(pod, spec, c) {
			return false
		}
	}
	return true
}

// end stops what runs, sidecars after the others and in reverse order, and then
// takes everything down.
func end(pod *corev1.Pod, s *state, now time.Time) step {
	if p := s.problem; p != nil && p.reason == killFailed && now.Before(p.again) {
		return step{kind: waitFor, delay: p.again.Sub(now)}
	}
	busy := false
	for i := range pod.Spec.Containers {
		c := s.containers[pod.Spec.Containers[i].Name]
		if c.current.running() && !c.stopping {
			return step{kind: stop, container: c.name}
		}
		busy = busy || c.stopping
	}
	for i := len(pod.Spec.InitContainers) - 1; i >= 0 && !busy; i-- {
		c := s.containers[pod.Spec.InitContainers[i].Name]
		if c.current.running() && !c.stopping {
			return step{kind: stop, container: c.name}
		}
		busy = busy || c.stopping
	}
	switch {
	case busy:
		return step{kind: waitFor}
	case !s.torn:
		return step{kind: teardown}
	case s.orphan || pod.DeletionTimestamp != nil:
		return step{kind: finish}
	}
	return step{kind: waitFor} // ended; the object stays until it is deleted
}

// backOff is the pause before the start after n failures in a row: none at
// first, then 10 s, 20 s, 40 s … 5 min.
func backOff(n int) time.Duration {
	if n <= 0 {
		return 0
	}
	return min(firstBackOff<<min(n-1, maxFails), lastBackOff)
}
