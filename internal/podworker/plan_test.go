package podworker

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/images"
	"github.com/wherry-project/wherry/internal/runtime"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func later(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }

// planned is a pod with a sidecar s, an init container i and containers a and
// b, all set up and nothing started; change makes the case.
func planned(change func(p *corev1.Pod, s *state)) (*corev1.Pod, *state) {
	p := podOf(corev1.RestartPolicyAlways, con("a", "serve"), con("b", "serve"))
	p.Spec.InitContainers = []corev1.Container{side("s", "serve"), con("i", "true")}
	s := newState(p, &p.Status, nil, now)
	s.volumesDone, s.attached, s.sandbox = true, true, true
	s.address = netip.MustParseAddr("10.244.0.7")
	for _, c := range s.containers {
		c.image = &images.Image{}
	}
	change(p, &s)
	return p, &s
}

func up(c *container) {
	c.current = &run{Container: runtime.Container{ID: c.name + "-0", State: runtime.Running, StartedAt: now}, image: "img"}
	c.starts = 1
}

func down(c *container, code int) {
	up(c)
	c.current.State, c.current.ExitCode, c.current.FinishedAt, c.current.reason = runtime.Exited, code, now, "Error"
	if code == 0 {
		c.current.reason = "Completed"
	}
}

// allUp is the usual state of a pod.
func allUp(s *state) {
	up(s.containers["s"])
	down(s.containers["i"], 0)
	up(s.containers["a"])
	up(s.containers["b"])
	s.begun = true
}

func TestPlan(t *testing.T) {
	deadline := func(p *corev1.Pod, seconds int64) { p.Spec.ActiveDeadlineSeconds = &seconds }
	remove := func(p *corev1.Pod, grace int64) {
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: now}, &grace
	}
	tests := []struct {
		name   string
		change func(p *corev1.Pod, s *state)
		want   string
	}{
		{"volumes first", func(_ *corev1.Pod, s *state) { s.volumesDone, s.attached, s.sandbox = false, false, false }, "volumes"},
		{"then the network", func(_ *corev1.Pod, s *state) { s.attached, s.sandbox = false, false }, "attach"},
		{"then the sandbox", func(_ *corev1.Pod, s *state) { s.sandbox = false }, "sandbox"},
		{"a problem waits", func(_ *corev1.Pod, s *state) { s.sandbox, s.problem = false, &problem{again: later(7)} }, "wait 7s"},
		{"and is tried again", func(_ *corev1.Pod, s *state) { s.sandbox, s.problem = false, &problem{again: now} }, "sandbox"},
		{"doubt asks", func(_ *corev1.Pod, s *state) { allUp(s); s.doubt = true }, "ask"},
		{"doubt waits after a problem", func(_ *corev1.Pod, s *state) { s.doubt, s.problem = true, &problem{again: later(2)} }, "wait 2s"},
		{"the sidecar starts first", func(*corev1.Pod, *state) {}, "start s"},
		{"the next waits for its startup probe", func(p *corev1.Pod, s *state) {
			p.Spec.InitContainers[0].StartupProbe = &corev1.Probe{}
			up(s.containers["s"])
		}, "wait"},
		{"and for its hook", func(_ *corev1.Pod, s *state) { up(s.containers["s"]); s.containers["s"].hooking = true }, "wait"},
		{"then the init container", func(_ *corev1.Pod, s *state) { up(s.containers["s"]) }, "start i"},
		{"which must end", func(_ *corev1.Pod, s *state) { up(s.containers["s"]); up(s.containers["i"]) }, "wait"},
		{"a failed one waits its back-off", func(_ *corev1.Pod, s *state) {
			up(s.containers["s"])
			down(s.containers["i"], 1)
			s.containers["i"].again = later(9)
		}, "wait 9s"},
		{"and starts again", func(_ *corev1.Pod, s *state) { up(s.containers["s"]); down(s.containers["i"], 1) }, "start i"},
		{"a sidecar that ended starts again before it", func(_ *corev1.Pod, s *state) { down(s.containers["s"], 1) }, "start s"},
		{"containers in order", func(_ *corev1.Pod, s *state) { up(s.containers["s"]); down(s.containers["i"], 0) }, "start a"},
		{"the second waits for the hook of the first", func(_ *corev1.Pod, s *state) {
			allUp(s)
			s.containers["a"].hooking, s.containers["b"].current = true, nil
		}, "wait"},
		{"and then starts", func(_ *corev1.Pod, s *state) { allUp(s); s.containers["b"].current = nil }, "start b"},
		{"all up", func(_ *corev1.Pod, s *state) { allUp(s) }, "wait"},
		{"a run that ended is noted first", func(_ *corev1.Pod, s *state) {
			allUp(s)
			down(s.containers["b"], 1)
			s.containers["b"].current.reason = ""
		}, "retire b"},
		{"the sooner of two waits", func(_ *corev1.Pod, s *state) {
			allUp(s)
			for n, name := range []string{"a", "b", "s"} {
				down(s.containers[name], 1)
				s.containers[name].again = later(30 - n)
			}
		}, "wait 28s"},
		{"a sidecar in back-off holds up nobody", func(_ *corev1.Pod, s *state) {
			allUp(s)
			down(s.containers["s"], 1)
			s.containers["s"].again = later(5)
			down(s.containers["b"], 1)
		}, "start b"},
		{"image", func(_ *corev1.Pod, s *state) { s.containers["s"].image = nil }, "pull s"},
		{"pulling", func(_ *corev1.Pod, s *state) { s.containers["s"].image, s.containers["s"].pulling = nil, true }, "wait"},
		{"a failed pull shows its error", func(_ *corev1.Pod, s *state) {
			s.containers["s"].image, s.containers["s"].pullFail = nil, &problem{reason: errImagePull, at: now, again: later(10)}
		}, "wait 1s"},
		{"then its back-off", func(_ *corev1.Pod, s *state) {
			s.containers["s"].image, s.containers["s"].pullFail = nil, &problem{reason: errImagePull, at: later(-1), again: later(9)}
		}, "pull later s"},
		{"and waits", func(_ *corev1.Pod, s *state) {
			s.containers["s"].image, s.containers["s"].pullFail = nil, &problem{reason: errImagePull, at: later(-2), again: later(8), told: true}
		}, "wait 8s"},
		{"and is tried again", func(_ *corev1.Pod, s *state) {
			s.containers["s"].image, s.containers["s"].pullFail = nil, &problem{reason: errImagePull, at: later(-10), again: now, told: true}
		}, "pull s"},
		{"a bad name only waits", func(_ *corev1.Pod, s *state) {
			s.containers["s"].image, s.containers["s"].pullFail = nil, &problem{reason: "InvalidImageName", at: now, again: later(10)}
		}, "wait 10s"},
		{"a bad configuration waits", func(_ *corev1.Pod, s *state) { s.containers["s"].config = &problem{again: later(3)} }, "wait 3s"},
		{"kill", func(_ *corev1.Pod, s *state) { allUp(s); s.containers["b"].kill = &kill{} }, "stop b"},
		{"killing", func(_ *corev1.Pod, s *state) {
			allUp(s)
			s.containers["b"].kill, s.containers["b"].stopping = &kill{}, &stopping{}
		}, "wait"},
		{"another image", func(p *corev1.Pod, s *state) { allUp(s); p.Spec.Containers[0].Image = "new" }, "stop a"},
		{"stale files", func(_ *corev1.Pod, s *state) { allUp(s); s.stale = true }, "fresh files"},
		{"stale files after a problem", func(_ *corev1.Pod, s *state) { allUp(s); s.stale, s.staleFail = true, &problem{again: later(4)} }, "wait 4s"},
		{"starts before stale files", func(_ *corev1.Pod, s *state) { s.stale = true }, "start s"},
		{"time is not up", func(p *corev1.Pod, s *state) { allUp(s); deadline(p, 60) }, "wait 1m0s"},
		{"time is up", func(p *corev1.Pod, s *state) { allUp(s); deadline(p, 60); s.startedAt = later(-60) }, "expire"},
		{"time is up, but all is over", func(p *corev1.Pod, s *state) {
			deadline(p, 60)
			s.startedAt = later(-60)
			p.Status.Phase = corev1.PodFailed
			s.torn = true
		}, "wait"},
		{"refused", func(p *corev1.Pod, s *state) {
			s.sandbox = false
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.x"}}}
		}, "refuse"},
		{"not refused once it runs", func(p *corev1.Pod, s *state) {
			allUp(s)
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.x"}}}
		}, "wait"},
		{"end: the containers first", func(p *corev1.Pod, s *state) { allUp(s); remove(p, 30) }, "stop a"},
		{"end: at the same time", func(p *corev1.Pod, s *state) {
			allUp(s)
			remove(p, 30)
			s.containers["a"].stopping = &stopping{grace: 30 * time.Second}
		}, "stop b"},
		{"end: the sidecar waits", func(p *corev1.Pod, s *state) {
			allUp(s)
			remove(p, 30)
			s.containers["a"].stopping, s.containers["b"].stopping = &stopping{grace: 30 * time.Second}, &stopping{grace: 30 * time.Second}
		}, "wait"},
		{"end: in a hurry", func(p *corev1.Pod, s *state) {
			allUp(s)
			remove(p, 5)
			s.containers["a"].stopping = &stopping{grace: 30 * time.Second}
		}, "stop a"},
		{"end: an orphan hurries", func(_ *corev1.Pod, s *state) {
			allUp(s)
			s.orphan = true
			s.containers["a"].stopping = &stopping{grace: 30 * time.Second}
		}, "stop a"},
		{"end: then the sidecar", func(p *corev1.Pod, s *state) {
			allUp(s)
			remove(p, 30)
			down(s.containers["a"], 0)
			down(s.containers["b"], 0)
		}, "stop s"},
		{"end: a kill that failed", func(p *corev1.Pod, s *state) {
			allUp(s)
			remove(p, 30)
			s.problem = &problem{reason: killFailed, again: later(1)}
		}, "wait 1s"},
		{"end: another problem does not count", func(p *corev1.Pod, s *state) {
			allUp(s)
			remove(p, 30)
			s.problem = &problem{reason: failedMount, again: later(1)}
		}, "stop a"},
		{"end: then everything else", func(p *corev1.Pod, _ *state) { remove(p, 30) }, "tear down"},
		{"end: the object stays", func(p *corev1.Pod, s *state) { remove(p, 30); s.torn = true }, "wait"},
		{"end: until it is gone", func(p *corev1.Pod, s *state) { remove(p, 30); s.torn, s.orphan = true, true }, "sweep"},
		{"end: finished", func(p *corev1.Pod, s *state) { remove(p, 30); s.torn, s.orphan, s.swept = true, true, true }, "finish"},
		{"over: sidecars are stopped", func(p *corev1.Pod, s *state) {
			allUp(s)
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			down(s.containers["a"], 0)
			down(s.containers["b"], 1)
		}, "stop s"},
		{"over: on failure only", func(p *corev1.Pod, s *state) {
			allUp(s)
			p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
			down(s.containers["a"], 0)
			down(s.containers["b"], 1)
		}, "start b"},
		{"over: an init container failed for good", func(p *corev1.Pod, s *state) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			up(s.containers["s"])
			down(s.containers["i"], 1)
		}, "stop s"},
		{"over: the API says so", func(p *corev1.Pod, s *state) { allUp(s); p.Status.Phase = corev1.PodFailed }, "stop a"},
		{"failed", func(_ *corev1.Pod, s *state) { allUp(s); s.failed = &problem{reason: "Evicted"} }, "stop a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, s := planned(tt.change)
			got := plan(p, s, now)
			text := strings.TrimSpace(string(got.kind) + " " + got.container)
			if got.delay > 0 {
				text += " " + got.delay.String()
			}
			if text != tt.want {
				t.Errorf("planned %q, want %q", text, tt.want)
			}
		})
	}
}

func TestBackOffTimes(t *testing.T) {
	for n, want := range []int{0, 10, 20, 40, 80, 160, 300, 300, 300} {
		if got := backOff(n); got != time.Duration(want)*time.Second {
			t.Errorf("after %d: %v, want %d s", n, got, want)
		}
	}
	if backOff(1<<30) != lastBackOff || backOff(-1) != 0 {
		t.Error("out of bounds")
	}
}

func TestStatus(t *testing.T) {
	tests := []struct {
		name   string
		change func(p *corev1.Pod, s *state)
		want   string
		init   string // condition Initialized: status and reason
		ready  string // condition Ready: reason and message
	}{
		{"fresh", func(*corev1.Pod, *state) {}, "Pending | s PodInitializing | i PodInitializing | a PodInitializing | b PodInitializing",
			"False ContainersNotInitialized containers with incomplete status: [s i]", "ContainersNotReady containers with unready status: [s a b]"},
		{"no init containers", func(p *corev1.Pod, _ *state) { p.Spec.InitContainers = nil }, "Pending | a ContainerCreating | b ContainerCreating",
			"True", "ContainersNotReady containers with unready status: [a b]"},
		{"up", func(_ *corev1.Pod, s *state) { allUp(s) }, "Running Ready | s Running ready | i Completed/0 ready | a Running ready | b Running ready", "True", ""},
		{"one is not yet", func(_ *corev1.Pod, s *state) { allUp(s); s.containers["b"] = &container{name: "b"} }, "Pending | s Running ready | i Completed/0 ready | a Running ready | b PodInitializing",
			"True", "ContainersNotReady containers with unready status: [b]"},
		{"hook", func(_ *corev1.Pod, s *state) { allUp(s); s.containers["b"].hooking = true }, "Pending | s Running ready | i Completed/0 ready | a Running ready | b PodInitializing",
			"True", "ContainersNotReady containers with unready status: [b]"},
		{"readiness probe", func(p *corev1.Pod, s *state) { allUp(s); p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{} }, "Running | s Running ready | i Completed/0 ready | a Running | b Running ready",
			"True", "ContainersNotReady containers with unready status: [a]"},
		{"startup probe of the sidecar", func(p *corev1.Pod, s *state) {
			up(s.containers["s"])
			p.Spec.InitContainers[0].StartupProbe = &corev1.Probe{}
		}, "Pending | s Running | i PodInitializing | a PodInitializing | b PodInitializing",
			"False ContainersNotInitialized containers with incomplete status: [s i]", "ContainersNotReady containers with unready status: [s a b]"},
		{"all ended, sidecar runs", func(p *corev1.Pod, s *state) {
			allUp(s)
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			down(s.containers["a"], 0)
			down(s.containers["b"], 0)
		}, "Running | s Running ready | i Completed/0 ready | a Completed/0 | b Completed/0", "True", "ContainersNotReady containers with unready status: [a b]"},
		{"succeeded", func(p *corev1.Pod, s *state) {
			allUp(s)
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			for n, code := range map[string]int{"a": 0, "b": 0, "s": 9} {
				down(s.containers[n], code)
			}
		}, "Succeeded | s Error/9 | i Completed/0 ready | a Completed/0 | b Completed/0", "True PodCompleted", "PodCompleted"},
		{"failed", func(p *corev1.Pod, s *state) {
			allUp(s)
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			for n, code := range map[string]int{"a": 0, "b": 1, "s": 0} {
				down(s.containers[n], code)
			}
		}, "Failed | s Completed/0 | i Completed/0 ready | a Completed/0 | b Error/1", "True", "PodFailed"},
		{"back-off", func(_ *corev1.Pod, s *state) {
			allUp(s)
			down(s.containers["b"], 1)
			s.containers["b"].fails, s.containers["b"].again, s.containers["b"].starts = 2, later(10), 2
		}, "Running | s Running ready | i Completed/0 ready | a Running ready | b CrashLoopBackOff last Error/1 #1", "True", "ContainersNotReady containers with unready status: [b]"},
		{"ended just now", func(_ *corev1.Pod, s *state) { allUp(s); down(s.containers["b"], 1) }, "Running | s Running ready | i Completed/0 ready | a Running ready | b Error/1",
			"True", "ContainersNotReady containers with unready status: [b]"},
		{"restart needs an image", func(_ *corev1.Pod, s *state) {
			allUp(s)
			down(s.containers["b"], 1)
			s.containers["b"].pullFail = &problem{reason: errImagePull, message: "m"}
		}, "Running | s Running ready | i Completed/0 ready | a Running ready | b ErrImagePull last Error/1", "True", "ContainersNotReady containers with unready status: [b]"},
		{"sidecar restarts", func(_ *corev1.Pod, s *state) { allUp(s); down(s.containers["s"], 1) }, "Running | s Error/1 | i Completed/0 ready | a Running ready | b Running ready",
			"True", "ContainersNotReady containers with unready status: [s]"},
		{"evicted, still running", func(_ *corev1.Pod, s *state) { allUp(s); s.failed = &problem{reason: "Evicted"} }, "Running Ready | s Running ready | i Completed/0 ready | a Running ready | b Running ready", "True", ""},
		{"evicted", func(_ *corev1.Pod, s *state) {
			allUp(s)
			s.failed = &problem{reason: "Evicted", message: "m"}
			for _, n := range []string{"a", "b", "s"} {
				down(s.containers[n], 0)
			}
		}, "Failed(Evicted) | s Completed/0 | i Completed/0 ready | a Completed/0 | b Completed/0", "True", "PodFailed"},
		{"a final phase stays, with its reason", func(p *corev1.Pod, s *state) {
			allUp(s)
			p.Status.Phase, p.Status.Reason = corev1.PodFailed, "NodeLost"
		}, "Failed(NodeLost) | s Running ready | i Completed/0 ready | a Running ready | b Running ready", "True", "PodFailed"},
		{"readiness gates", func(p *corev1.Pod, s *state) {
			allUp(s)
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "x"}, {ConditionType: "y"}, {ConditionType: "z"}}
			p.Status.Conditions = []corev1.PodCondition{{Type: "x", Status: corev1.ConditionTrue}, {Type: "y", Status: corev1.ConditionFalse}}
		}, "Running | s Running ready | i Completed/0 ready | a Running ready | b Running ready", "True",
			`ReadinessGatesNotReady the status of pod readiness gate "y" is not "True", but False, corresponding condition of pod readiness gate "z" does not exist.`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, s := planned(tt.change)
			st := status(p, s, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, now)
			if got := words(st); got != tt.want {
				t.Errorf("status\n     %s\nwant %s", got, tt.want)
			}
			for _, c := range st.Conditions {
				text := strings.TrimSpace(strings.Join([]string{c.Reason, c.Message}, " "))
				switch c.Type {
				case corev1.PodInitialized:
					if got := strings.TrimSpace(string(c.Status) + " " + text); got != tt.init {
						t.Errorf("initialized: %q, want %q", got, tt.init)
					}
				case corev1.PodReady:
					if text != tt.ready {
						t.Errorf("ready: %q, want %q", text, tt.ready)
					}
				}
				if !c.LastTransitionTime.Equal(&metav1.Time{Time: now}) || c.ObservedGeneration != 1 {
					t.Errorf("condition %+v", c)
				}
			}
		})
	}
}

func TestStatusKeepsTimes(t *testing.T) {
	p, s := planned(func(_ *corev1.Pod, s *state) { allUp(s) })
	first := status(p, s, nil, now)
	s.conditions = first.Conditions
	down(s.containers["a"], 1)
	second := status(p, s, nil, later(60))
	for i, c := range second.Conditions {
		changed := c.Status != first.Conditions[i].Status
		if c.LastTransitionTime.Equal(&first.Conditions[i].LastTransitionTime) == changed {
			t.Errorf("%s: %v then %v", c.Type, first.Conditions[i].LastTransitionTime, c.LastTransitionTime)
		}
	}
}

func TestLongMessagesShareTheirRoom(t *testing.T) {
	p, s := planned(func(_ *corev1.Pod, s *state) {
		allUp(s)
		down(s.containers["a"], 1)
		s.containers["a"].current.message = strings.Repeat("ä", 4000)
	})
	got := status(p, s, nil, now).ContainerStatuses[0].State.Terminated.Message
	if len(got) > 12<<10/4 || len(got) < 12<<10/4-2 || strings.ContainsRune(got, '\ufffd') {
		t.Errorf("%d bytes", len(got))
	}
}

func TestRemember(t *testing.T) {
	p := podOf(corev1.RestartPolicyAlways, con("a", "serve"), con("b", "serve"))
	ended := &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error", ContainerID: "wherry://uid-1/a-4", FinishedAt: metav1.Time{Time: later(-5)}}
	known := &corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
		{Name: "a", RestartCount: 4, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}, LastTerminationState: corev1.ContainerState{Terminated: ended}},
		{Name: "b", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, ContainerID: "wherry://uid-1/b-0", Ready: true},
	}}
	s := newState(p, known, nil, now)
	a, b := s.containers["a"], s.containers["b"]
	if a.starts != 5 || a.current.ExitCode != 3 || a.current.ID != "a-4" || !a.again.Equal(later(-5).Add(80*time.Second)) {
		t.Errorf("a: %+v %+v", a, a.current)
	}
	if b.starts != 1 || b.current.State != runtime.Lost || b.current.reason != "" {
		t.Errorf("b: %+v %+v", b, b.current)
	}
	// What the runtime has counts more, unless the status knows of later runs.
	found := &runtime.Sandbox{State: runtime.SandboxReady, Containers: []runtime.Container{
		{ID: "a-3", Name: "a", Attempt: 3, State: runtime.Exited, ExitCode: 9},
		{ID: "b-0", Name: "b", State: runtime.Running}, {ID: "x-0", Name: "x"},
	}}
	s = newState(p, known, found, now)
	a, b = s.containers["a"], s.containers["b"]
	if !s.sandbox || !s.begun || a.current.ID != "a-4" || !b.current.running() || !b.probeReady || b.starts != 1 {
		t.Errorf("a: %+v, b: %+v", a.current, b.current)
	}
	found.Containers = []runtime.Container{{ID: "b-1", Name: "b", Attempt: 1, State: runtime.Running}}
	b = newState(p, known, found, now).containers["b"]
	if b.starts != 2 || b.current.ID != "b-1" || b.last == nil || b.probeReady {
		t.Errorf("b: %+v", b)
	}
}
