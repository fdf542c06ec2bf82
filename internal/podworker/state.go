package podworker

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/images"
	"github.com/wherry-project/wherry/internal/runtime"
)

// state is what a worker knows of its pod's part on the node.
type state struct {
	orphan bool // the API has the pod no longer
	doubt  bool // the sandbox may be lost: the runtime must be asked
	// attached says that this noded has attached the pod; address is good
	// only then.
	attached bool
	address  netip.Addr
	netns    string
	// former is the address that the pod had before. A pod that begins anew on
	// a machine that was powered off gets it again if it can: services know it
	// by that address, also while no control plane could tell them another.
	former netip.Addr
	// volumesDone says that the volumes are there, and where; stale that
	// files in them may have changed since, staleFail why that is so still.
	volumesDone bool
	volumes     map[string]string
	stale       bool
	staleFail   *problem
	sandbox     bool
	// begun says that a container that is no init container has started in
	// this sandbox: init containers are history then.
	begun     bool
	torn      bool // nothing is left but the folder and the logs
	swept     bool // nor these
	startedAt time.Time
	// ending is when the end of the whole pod began.
	ending time.Time
	// problem is why the set-up cannot go on now; it is tried again.
	problem    *problem
	containers map[string]*container
	// failed ends the whole pod, with a reason (Evicted, DeadlineExceeded).
	failed *problem
	// resize is why other resources cannot be given to a container now.
	resize *problem
	// conditions are those last reported, for their times.
	conditions []corev1.PodCondition
}

type problem struct {
	reason, message string
	at, again       time.Time
	times           int
	told            bool // that it is tried again later
}

// container is one container of the pod.
type container struct {
	name string
	// image is what a start uses; nil until found or pulled.
	image    *images.Image
	pulling  bool
	pullFail *problem
	// current is the newest run: running, or how it ended. Nil before the
	// first, and when an init container has to run once more.
	current *run
	last    *run
	// starts counts the runs that began.
	starts int
	// fails counts ends in a row, for the back-off; again is when the next
	// start may be.
	fails int
	again time.Time
	// has are the resources of the newest run; nil if there is none yet.
	has *corev1.ResourceRequirements
	// config is why the container cannot be made.
	config *problem
	// hooking says that the postStart hook runs.
	hooking bool
	// kill is why a running container has to be stopped though the pod goes
	// on; stopping is the stop that is under way.
	kill     *kill
	stopping *stopping
	// probing are the ends of the probes that run, for run number probed.
	probing map[probeKind]context.CancelFunc
	// probeReady and probeStarted are what probes say; without a probe they
	// are not asked.
	probeReady, probeStarted bool
}

type kill struct {
	message string
	grace   *time.Duration // nil: the pod's
}

type stopping struct {
	grace  time.Duration
	cancel context.CancelFunc
}

// run is one run of a container.
type run struct {
	runtime.Container
	// reason and message are set when it ended and that was seen to.
	reason, message string
	imageID, image  string
	over            chan struct{} // made when somebody waits for the end
}

func (r *run) running() bool { return r != nil && r.State == runtime.Running }
func (r *run) ended() bool   { return r != nil && r.State != runtime.Running }

// done reports whether an init container has done its work.
func (c *container) done() bool { return c.current.ended() && c.current.ExitCode == 0 }

// lostMessage is what Kubernetes says of a container that nobody saw end.
const lostMessage = "The container could not be located when the pod was terminated"

// newState is the state of a pod that is new here, or that an earlier noded
// left: as the newest status known has it, and over it what the runtime found.
func newState(pod *corev1.Pod, known *corev1.PodStatus, found *runtime.Sandbox, now time.Time) state {
	s := state{containers: map[string]*container{}, startedAt: now, conditions: known.Conditions}
	if known.StartTime != nil {
		s.startedAt = known.StartTime.Time
	}
	if a, err := netip.ParseAddr(known.PodIP); err == nil && !pod.Spec.HostNetwork {
		s.former = a
	}
	for _, c := range everyContainer(pod) {
		s.containers[c.Name] = &container{name: c.Name}
	}
	s.remember(known, now)
	if found != nil {
		s.sandbox = found.State == runtime.SandboxReady
		list := slices.Clone(found.Containers)
		slices.SortFunc(list, func(a, b runtime.Container) int { return a.Attempt - b.Attempt })
		for _, rc := range list {
			s.adopt(rc)
		}
		for _, spec := range pod.Spec.Containers {
			s.begun = s.begun || s.sandbox && s.containers[spec.Name].current != nil
		}
	}
	for _, spec := range allContainers(pod) {
		if c := s.containers[spec.Name]; c.has == nil && c.current.running() {
			c.has = spec.Resources.DeepCopy()
		}
	}
	for _, c := range s.containers {
		c.resume()
	}
	return s
}

// remember takes what a status says of earlier runs.
func (s *state) remember(known *corev1.PodStatus, now time.Time) {
	for i, st := range slices.Concat(known.InitContainerStatuses, known.ContainerStatuses, known.EphemeralContainerStatuses) {
		c := s.containers[st.Name]
		if c == nil {
			continue
		}
		c.has = st.Resources.DeepCopy()
		c.starts = int(st.RestartCount)
		if t := st.LastTerminationState.Terminated; t != nil {
			c.last = ended(t, &st)
		}
		switch {
		case st.State.Terminated != nil:
			c.current = ended(st.State.Terminated, &st)
		case st.State.Running != nil:
			c.current = &run{imageID: st.ImageID, image: st.Image, Container: runtime.Container{
				ID: runID(st.ContainerID), Name: st.Name, State: runtime.Lost, ExitCode: runtime.ExitLost,
				StartedAt: st.State.Running.StartedAt.Time, FinishedAt: now,
			}}
			c.probeReady, c.probeStarted = st.Ready, st.Started != nil && *st.Started
		case c.last != nil && (c.last.ExitCode != 0 || i >= len(known.InitContainerStatuses)): // a restart was due
			c.current, c.last = c.last, nil
		}
		if c.current != nil || c.last != nil {
			c.starts++
		}
	}
}

// ended is a run as a status tells its end.
func ended(t *corev1.ContainerStateTerminated, st *corev1.ContainerStatus) *run {
	reason := t.Reason
	if reason == "" {
		reason = "Error"
	}
	return &run{
		Container: runtime.Container{
			ID: runID(t.ContainerID), Name: st.Name, State: runtime.Exited, ExitCode: int(t.ExitCode),
			StartedAt: t.StartedAt.Time, FinishedAt: t.FinishedAt.Time,
		},
		reason: reason, message: t.Message, imageID: st.ImageID, image: st.Image,
	}
}

// adopt takes a container that the runtime has. What the status knows of later
// runs counts more.
func (s *state) adopt(rc runtime.Container) {
	c := s.containers[rc.Name]
	if c == nil || rc.Attempt < c.starts-1 {
		return
	}
	r := &run{Container: rc, imageID: rc.Labels[labelImageID], image: rc.Labels[labelImage]}
	switch {
	case rc.Attempt >= c.starts:
		if c.current != nil {
			c.last = c.current
		}
		c.starts = rc.Attempt + 1
		c.probeReady, c.probeStarted = false, false
	case c.current != nil && r.ended(): // it was seen to already, if it has a reason
		r.reason, r.message = c.current.reason, c.current.message
	}
	if r.running() && c.current != nil && c.current.ID != r.ID {
		c.probeReady, c.probeStarted = false, false
	}
	c.current = r
}

// resume works out where a container is in its back-off.
func (c *container) resume() {
	if c.current != nil && c.current.reason == "" || c.current.running() {
		c.fails = min(c.starts-1, maxFails)
		if c.last != nil && c.last.reason == "" {
			c.last.reason = "Error"
		}
		return
	}
	if c.current != nil {
		c.fails = min(c.starts, maxFails)
		c.again = c.current.FinishedAt.Add(backOff(c.fails - 1))
	}
}

// observe takes the end of a container.
func (s *state) observe(e runtime.Event) {
	c := s.containers[e.Container.Name]
	if c != nil && c.current.running() && c.current.ID == e.Container.ID {
		c.current.Container = e.Container
	}
}

// seen takes what the runtime has of the sandbox; nil is nothing.
func (s *state) seen(sb *runtime.Sandbox, now time.Time) {
	s.doubt, s.sandbox = false, sb != nil && sb.State == runtime.SandboxReady
	for _, c := range s.containers {
		if !c.current.running() {
			continue
		}
		if sb != nil {
			if rc, ok := sb.Container(c.current.ID); ok {
				c.current.Container = rc
				continue
			}
		}
		c.current.lose(now)
	}
}

// lose notes that nobody can tell how a run ended.
func (r *run) lose(now time.Time) {
	r.State, r.ExitCode, r.FinishedAt = runtime.Lost, runtime.ExitLost, now
}

// refresh lets what failed for want of a ConfigMap or Secret be tried at once.
func (s *state) refresh() {
	s.stale, s.staleFail = true, nil
	if s.problem != nil && s.problem.reason == failedMount {
		s.problem.again = time.Time{}
	}
	for _, c := range s.containers {
		if c.config != nil {
			c.config.again = time.Time{}
		}
	}
}

// changed takes a new spec: a container whose image changed starts over, and
// new labels and annotations show in the volumes.
func (s *state) changed(old, pod *corev1.Pod) {
	was := map[string]string{}
	for _, c := range everyContainer(old) {
		was[c.Name] = c.Image
	}
	for _, spec := range everyContainer(pod) {
		c := s.containers[spec.Name]
		if c == nil {
			s.containers[spec.Name] = &container{name: spec.Name}
		} else if was[spec.Name] != spec.Image {
			c.image, c.pullFail, c.config, c.again, c.fails = nil, nil, nil, time.Time{}, 0
		}
	}
	if old.Generation != pod.Generation {
		s.resize = nil // whatever was asked for, it may be another thing now
	}
	s.stale = s.stale || !sameMap(old.Labels, pod.Labels) || !sameMap(old.Annotations, pod.Annotations)
}

func sameMap(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// rerun forgets what a sandbox that is gone had: init containers run again.
func (s *state) rerun(pod *corev1.Pod) {
	s.begun = false
	for i := range pod.Spec.InitContainers {
		spec := &pod.Spec.InitContainers[i]
		if c := s.containers[spec.Name]; !sidecar(spec) && c.current.ended() {
			c.last, c.current, c.again = c.current, nil, time.Time{}
		}
	}
}

// ran reports whether anything ever ran.
func (s *state) ran() bool {
	for _, c := range s.containers {
		if c.starts > 0 {
			return true
		}
	}
	return false
}

func (s *state) anyRunning() bool {
	for _, c := range s.containers {
		if c.current.running() {
			return true
		}
	}
	return false
}

// allContainers are the init containers and then the others.
func allContainers(pod *corev1.Pod) []*corev1.Container {
	var out []*corev1.Container
	for i := range pod.Spec.InitContainers {
		out = append(out, &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		out = append(out, &pod.Spec.Containers[i])
	}
	return out
}

// sidecar reports whether an init container stays beside the others.
func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// idPrefix begins a container's ID in the API: wherry://POD/RUN.
const idPrefix = "wherry://"

// runID is the runtime's ID of a container by the API's.
func runID(id string) string {
	_, rest, _ := strings.Cut(strings.TrimPrefix(id, idPrefix), "/")
	return rest
}
