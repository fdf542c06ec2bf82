package podworker

import (
	"net/netip"
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/images"
	"github.com/wherry-project/wherry/internal/runtime"
)

// state is what a worker knows of its pod's part on the node.
type state struct {
	orphan   bool // the API has the pod no longer
	attached bool
	address  netip.Addr
	netns    string
	// volumesDone says that the volumes are as wanted; paths are where.
	volumesDone bool
	volumes     map[string]string
	sandbox     bool
	torn        bool // nothing is left but logs
	startedAt   time.Time
	// problem is why the set-up cannot go on now; it is tried again.
	problem    *problem
	containers map[string]*container
	// failed ends the whole pod, with a reason (Evicted, DeadlineExceeded).
	failed *problem
}

type problem struct {
	reason, message string
	again           time.Time
	times           int
}

// container is one container of the pod.
type container struct {
	name string
	// image is what a start uses; nil until found or pulled.
	image    *images.Image
	pulling  bool
	pullFail *problem
	// current is the newest run: running, or how it ended. Nil before the
	// first and while a restart is due.
	current *run
	last    *run
	// starts counts the runs that began.
	starts int
	// fails counts ends in a row, for the back-off; again is when the next
	// start may be.
	fails int
	again time.Time
	// config is why the container cannot be made from its spec.
	config *problem
	// stopping says that a stop is under way.
	stopping bool
	// probed is what probes say; without a probe it is not asked.
	probeReady, probeStarted bool
}

// run is one run of a container.
type run struct {
	runtime.Container
	// reason and message are set when it ended.
	reason, message string
	imageID, image  string
	over            chan struct{} // made when somebody waits for the end
}

func (r *run) running() bool { return r != nil && r.State == runtime.Running }
func (r *run) ended() bool   { return r != nil && r.State != runtime.Running }

// newState is the state of a pod that is new here, or that an earlier noded
// left.
func newState(pod *corev1.Pod, found *runtime.Sandbox) state {
	s := state{containers: map[string]*container{}, startedAt: time.Now()}
	if pod.Status.StartTime != nil {
		s.startedAt = pod.Status.StartTime.Time
	}
	for _, c := range allContainers(pod) {
		s.containers[c.Name] = &container{name: c.Name}
	}
	if found == nil {
		s.remember(pod)
		return s
	}
	s.sandbox = found.State == runtime.SandboxReady
	list := append([]runtime.Container(nil), found.Containers...)
	sort.Slice(list, func(i, j int) bool { return list[i].Attempt < list[j].Attempt })
	for _, rc := range list {
		c := s.containers[rc.Name]
		if c == nil {
			continue
		}
		c.last = c.current
		c.current = &run{Container: rc, imageID: rc.Labels[labelImageID], image: rc.Labels[labelImage]}
		c.starts = rc.Attempt + 1
		c.fails = min(rc.Attempt, maxFails)
	}
	s.remember(pod)
	return s
}

// remember takes from the status that the API has what the runtime has not:
// counts, and how containers ended whose sandbox is gone.
func (s *state) remember(pod *corev1.Pod) {
	all := append(append([]corev1.ContainerStatus{}, pod.Status.InitContainerStatuses...), pod.Status.ContainerStatuses...)
	for _, st := range all {
		c := s.containers[st.Name]
		if c == nil || c.current != nil {
			continue
		}
		c.starts = int(st.RestartCount)
		if t := st.State.Terminated; t != nil {
			c.current = runOf(t, st)
			c.starts++
		} else if t := st.LastTerminationState.Terminated; t != nil {
			c.last = runOf(t, st)
		}
		if st.State.Running != nil {
			c.starts++
			c.current = &run{
				Container: runtime.Container{Name: st.Name, State: runtime.Lost, ExitCode: runtime.ExitLost, StartedAt: st.State.Running.StartedAt.Time, FinishedAt: time.Now()},
				reason:    "ContainerStatusUnknown", message: "The container could not be located when the pod was looked at on its node", imageID: st.ImageID, image: st.Image,
			}
		}
	}
}

func runOf(t *corev1.ContainerStateTerminated, st corev1.ContainerStatus) *run {
	return &run{
		Container: runtime.Container{
			Name: st.Name, State: runtime.Exited, ExitCode: int(t.ExitCode), StartedAt: t.StartedAt.Time, FinishedAt: t.FinishedAt.Time,
		},
		reason: t.Reason, message: t.Message, imageID: st.ImageID, image: st.Image,
	}
}

// observe takes an event of the runtime.
func (s *state) observe(e runtime.Event) {
	if e.Kind == runtime.SandboxLost {
		s.sandbox = false
		for _, c := range s.containers {
			if c.current.running() {
				c.current.State, c.current.ExitCode, c.current.FinishedAt = runtime.Lost, runtime.ExitLost, time.Now()
				c.current.reason = "ContainerStatusUnknown"
				c.current.message = "The container could not be located when the pod was looked at on its node"
			}
		}
		return
	}
	c := s.containers[e.Container.Name]
	if c == nil || c.current == nil || c.current.ID != e.Container.ID {
		return
	}
	c.current.Container = e.Container
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
