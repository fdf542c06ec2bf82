package podworker

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// kind is what a step does.
type kind string

const (
	waitFor    kind = "wait"        // for a message, or for delay
	ask        kind = "ask"         // the runtime what it has
	refuse     kind = "refuse"      // a pod that the node does not take
	expire     kind = "expire"      // the pod's time is up
	setVolume  kind = "volumes"     // make the volumes
	attach     kind = "attach"      // network
	sandbox    kind = "sandbox"     // namespaces and the shim
	pull       kind = "pull"        // find the container's image
	pullLater  kind = "pull later"  // tell that a pull is tried again later
	start      kind = "start"       // the container
	resize     kind = "resize"      // give the container other resources
	retire     kind = "retire"      // note how a run ended and when the next may be
	stop       kind = "stop"        // the container, gracefully
	freshFiles kind = "fresh files" // bring the files in volumes up to date
	teardown   kind = "tear down"   // sandbox, network, volumes
	sweep      kind = "sweep"       // folder and logs
	finish     kind = "finish"      // nothing is left
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
	goodRun = 10 * time.Minute
	// So does one that was lost with its sandbox, mostly because the machine
	// lost its power, unless that comes of its start.
	lostRun  = time.Second
	maxFails = 7 // the back-off is the longest by then
	// pullErrorShown is how long the error of a pull shows before the pause
	// does.
	pullErrorShown = time.Second
	// killFailed is the reason of an end that has to be tried again.
	killFailed = "FailedKillPod"
	// shortGrace is what a container gets at least, and when its pod is gone
	// from the API.
	shortGrace = 2 * time.Second
)

// plan is the choice of the next step: a pure function of what is wanted and
// what is there.
func plan(pod *corev1.Pod, s *state, now time.Time) step {
	for _, spec := range everyContainer(pod) {
		if c := s.containers[spec.Name]; c.current.ended() && c.current.reason == "" {
			return step{kind: retire, container: spec.Name}
		}
	}
	if s.doubt {
		if p := s.problem; p != nil && now.Before(p.again) {
			return step{kind: waitFor, delay: p.again.Sub(now)}
		}
		return step{kind: ask}
	}
	if ending(pod, s) || over(pod, s) {
		return end(pod, s, now)
	}
	if refusal(pod) != nil && !s.sandbox && !s.ran() {
		return step{kind: refuse}
	}
	next := live(pod, s, now)
	if t := deadline(pod, s); !t.IsZero() {
		if !now.Before(t) {
			return step{kind: expire}
		}
		if next.kind == waitFor {
			next = sooner(next, step{delay: t.Sub(now)})
		}
	}
	return next
}

// ending reports whether the whole pod has to end.
func ending(pod *corev1.Pod, s *state) bool {
	return s.orphan || pod.DeletionTimestamp != nil || s.failed != nil
}

// deadline is when the pod's time is up; zero is never.
func deadline(pod *corev1.Pod, s *state) time.Time {
	if pod.Spec.ActiveDeadlineSeconds == nil {
		return time.Time{}
	}
	return s.startedAt.Add(time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second)
}

// live is the next step of a pod that should run.
func live(pod *corev1.Pod, s *state, now time.Time) step {
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
	next := advance(pod, s, now)
	if next.kind != waitFor || !s.stale {
		return next
	}
	if f := s.staleFail; f != nil && now.Before(f.again) {
		return sooner(next, step{delay: f.again.Sub(now)})
	}
	return step{kind: freshFiles}
}

// advance starts what is due: init containers in order, then the others, each
// after the postStart hook of the one before.
func advance(pod *corev1.Pod, s *state, now time.Time) step {
	wait := step{kind: waitFor}
	for _, spec := range ephemeral(pod) {
		next := oneContainer(pod, spec, s, now)
		if next.kind != waitFor {
			return next
		}
		wait = sooner(wait, next)
	}
	for i := range pod.Spec.InitContainers {
		spec := &pod.Spec.InitContainers[i]
		c := s.containers[spec.Name]
		if !sidecar(spec) && (s.begun || c.done()) {
			continue
		}
		next := oneContainer(pod, spec, s, now)
		if next.kind != waitFor {
			return next
		}
		wait = sooner(wait, next)
		if !s.begun && (!sidecar(spec) || !started(spec, c)) {
			return wait // the next one waits for this one
		}
	}
	for i := range pod.Spec.Containers {
		spec := &pod.Spec.Containers[i]
		c := s.containers[spec.Name]
		next := oneContainer(pod, spec, s, now)
		if next.kind != waitFor {
			return next
		}
		wait = sooner(wait, next)
		if c.hooking {
			return wait
		}
	}
	return wait
}

// oneContainer gives the next step of one container that should run.
func oneContainer(pod *corev1.Pod, spec *corev1.Container, s *state, now time.Time) step {
	c := s.containers[spec.Name]
	idle := step{kind: waitFor}
	until := func(t time.Time) step { return step{kind: waitFor, delay: t.Sub(now)} }
	if c.stopping != nil || c.pulling {
		return idle
	}
	if c.current.running() {
		if c.kill != nil || outdated(spec, c) {
			return step{kind: stop, container: c.name}
		}
		if next, ok := resizeStep(spec, c, s, now); ok {
			return next
		}
		return idle
	}
	if c.current.ended() && !again(pod, spec, c) {
		return idle
	}
	if now.Before(c.again) {
		return until(c.again)
	}
	if c.image == nil {
		f := c.pullFail
		switch {
		case f == nil || !now.Before(f.again):
			return step{kind: pull, container: c.name}
		case f.reason == errImagePull && !f.told && now.Before(f.at.Add(pullErrorShown)):
			return until(f.at.Add(pullErrorShown))
		case f.reason == errImagePull && !f.told:
			return step{kind: pullLater, container: c.name}
		}
		return until(f.again)
	}
	if c.config != nil && now.Before(c.config.again) {
		return until(c.config.again)
	}
	return step{kind: start, container: c.name}
}

// outdated reports whether a running container is of another image than its
// spec has now.
func outdated(spec *corev1.Container, c *container) bool {
	return c.current.image != "" && c.current.image != spec.Image
}

// again reports whether a container that ended is started once more.
func again(pod *corev1.Pod, spec *corev1.Container, c *container) bool {
	switch restartPolicy(pod, spec) {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return c.current.ExitCode != 0
	}
	// Always: but an init container that succeeded has done its work.
	return sidecar(spec) || !isInit(pod, spec.Name) || c.current.ExitCode != 0
}

func restartPolicy(pod *corev1.Pod, spec *corev1.Container) corev1.RestartPolicy {
	if isEphemeral(pod, spec.Name) {
		return corev1.RestartPolicyNever
	}
	if spec.RestartPolicy != nil {
		return corev1.RestartPolicy(*spec.RestartPolicy)
	}
	return pod.Spec.RestartPolicy
}

func isInit(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
}

// started reports whether what comes after a container may start: it runs, its
// postStart hook is over and its startup probe has succeeded.
func started(spec *corev1.Container, c *container) bool {
	return c.current.running() && !c.hooking && (spec.StartupProbe == nil || c.probeStarted)
}

func sooner(a, b step) step {
	if b.delay > 0 && (a.delay == 0 || b.delay < a.delay) {
		a.delay = b.delay
	}
	return a
}

// over reports that all containers of the pod have ended for good.
func over(pod *corev1.Pod, s *state) bool {
	if final(pod.Status.Phase) {
		return true
	}
	if initFailed(pod, s) {
		return true
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

// initFailed reports that an init container failed and is not tried again.
func initFailed(pod *corev1.Pod, s *state) bool {
	for i := range pod.Spec.InitContainers {
		spec := &pod.Spec.InitContainers[i]
		c := s.containers[spec.Name]
		if !sidecar(spec) && !s.begun && c.current.ended() && c.current.ExitCode != 0 && !again(pod, spec, c) {
			return true
		}
	}
	return false
}

func final(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

// end stops what runs, sidecars after the others and in reverse order, and then
// takes everything down.
func end(pod *corev1.Pod, s *state, now time.Time) step {
	if p := s.problem; p != nil && p.reason == killFailed && now.Before(p.again) {
		return step{kind: waitFor, delay: p.again.Sub(now)}
	}
	hurry := grace(pod, s)
	busy := false
	for _, spec := range ephemeral(pod) {
		c := s.containers[spec.Name]
		if mustStop(c, hurry) {
			return step{kind: stop, container: c.name}
		}
		busy = busy || c.stopping != nil
	}
	for i := range pod.Spec.Containers {
		c := s.containers[pod.Spec.Containers[i].Name]
		if mustStop(c, hurry) {
			return step{kind: stop, container: c.name}
		}
		busy = busy || c.stopping != nil
	}
	for i := len(pod.Spec.InitContainers) - 1; i >= 0 && !busy; i-- {
		c := s.containers[pod.Spec.InitContainers[i].Name]
		if mustStop(c, hurry) {
			return step{kind: stop, container: c.name}
		}
		busy = busy || c.stopping != nil
	}
	switch {
	case busy:
		return step{kind: waitFor}
	case !s.torn:
		return step{kind: teardown}
	case s.orphan && !s.swept:
		return step{kind: sweep}
	case s.orphan:
		return step{kind: finish}
	}
	return step{kind: waitFor} // ended; the object stays until somebody deletes it
}

// mustStop reports whether a container has to be told to end, for the first
// time or once more with a shorter grace.
func mustStop(c *container, grace time.Duration) bool {
	if c.stopping != nil {
		return grace < c.stopping.grace
	}
	return c.current.running()
}

// grace is how long the containers of a pod that ends may take.
func grace(pod *corev1.Pod, s *state) time.Duration {
	if s.orphan {
		return shortGrace
	}
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		seconds = *g
	}
	if g := pod.DeletionGracePeriodSeconds; g != nil && pod.DeletionTimestamp != nil {
		seconds = *g
	}
	return time.Duration(max(seconds, 1)) * time.Second
}

// backOff is the pause before the start after n failures in a row: none at
// first, then 10 s, 20 s, 40 s … 5 min.
func backOff(n int) time.Duration {
	if n <= 0 {
		return 0
	}
	return min(firstBackOff<<min(n-1, maxFails), lastBackOff)
}
