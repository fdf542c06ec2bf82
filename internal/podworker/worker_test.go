package podworker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/images"
	"github.com/wherry-project/wherry/internal/runtime"
)

func TestLife(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		w := b.run(p)
		b.history(p, "Running Ready | a Running ready")
		b.happened(
			`0s Normal Pulled: Container image "img" already present on machine`,
			"0s Normal Created: Created container: a", "0s Normal Started: Started container a")
		st := b.status(p)
		if st.PodIP != "10.244.0.7" || st.HostIP != "192.0.2.1" || st.StartTime == nil || st.ObservedGeneration != 1 {
			t.Errorf("status %+v", st)
		}
		if c := st.ContainerStatuses[0]; c.ContainerID != "wherry://uid-1/a-0" || c.ImageID != "img@sha256:1" || c.Image != "img" || !*c.Started {
			t.Errorf("container %+v", c)
		}
		for name, want := range map[string]string{"resolv.conf": "nameserver 10.96.0.10\n", "hosts": "[10.244.0.7] p\n", "hostname": "p\n"} {
			if got, err := os.ReadFile(filepath.Join(b.node.Dir, "uid-1", "etc", name)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		time.Sleep(time.Minute)
		w.Want(deleted(b.stored(p), 30))
		b.happened("1m0s Normal Killing: Stopping container a", "1m0s down a")
		b.is(p, "Succeeded | a Completed/0")
		b.removed(p, w)
	})
}

func TestBackOff(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "run", "1s", "fail"))
		b.run(p)
		time.Sleep(14 * time.Minute)
		b.kill()
		var at []string
		for _, e := range b.events {
			if s, ok := strings.CutSuffix(e, " Normal Started: Started container a"); ok {
				at = append(at, s)
			}
		}
		if got, want := strings.Join(at, " "), "0s 1s 12s 33s 1m14s 2m35s 5m16s 10m17s"; got != want {
			t.Errorf("started at %s, want %s", got, want)
		}
		b.start()
		want := []string{"Running Ready | a Running ready", "Running | a Error/1"}
		for n := 1; n < 8; n++ {
			want = append(want, fmt.Sprintf("Running Ready | a Running last Error/1 #%d ready", n), fmt.Sprintf("Running | a CrashLoopBackOff last Error/1 #%d", n))
		}
		b.history(p, want...)
		if got, want := b.status(p).ContainerStatuses[0].State.Waiting.Message, "back-off 5m0s restarting failed container=a pod=p_demo(uid-1)"; got != want {
			t.Errorf("message %q, want %q", got, want)
		}
		if !b.had("Warning BackOff: Back-off restarting failed container a in pod p_demo(uid-1)") {
			t.Error("no event of the back-off")
		}
		// Only the logs of the last two runs are kept.
		logs, err := filepath.Glob(filepath.Join(LogDir(b.node.LogDir, p), "a", "*"))
		if err != nil || len(logs) != 2 {
			t.Errorf("logs %v, %v", logs, err)
		}
		// The next noded goes on where this one was: 15m18s is the next start.
		b.run(b.stored(p))
		time.Sleep(time.Minute)
		b.is(p, "Running | a CrashLoopBackOff last Error/1 #7")
		time.Sleep(20 * time.Second)
		b.is(p, "Running | a CrashLoopBackOff last Error/1 #8")
	})
}

func TestGoodRunEndsBackOff(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "run", "10m", "fail"))
		b.run(p)
		time.Sleep(31 * time.Minute)
		b.is(p, "Running Ready | a Running last Error/1 #3 ready") // each at once
	})
}

func TestRestartPolicies(t *testing.T) {
	tests := []struct {
		policy corev1.RestartPolicy
		args   []string
		want   string
	}{
		{corev1.RestartPolicyAlways, []string{"true"}, "Running | a CrashLoopBackOff last Completed/0 #1"},
		{corev1.RestartPolicyOnFailure, []string{"true"}, "Succeeded | a Completed/0"},
		{corev1.RestartPolicyOnFailure, []string{"false"}, "Running | a CrashLoopBackOff last Error/1 #1"},
		{corev1.RestartPolicyNever, []string{"true"}, "Succeeded | a Completed/0"},
		{corev1.RestartPolicyNever, []string{"false"}, "Failed | a Error/1"},
		{corev1.RestartPolicyNever, []string{"absent"}, "Failed | a StartError/128"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.policy, tt.args), func(t *testing.T) {
			inBubble(t, func(b *bed) {
				p := podOf(tt.policy, con("a", tt.args...))
				b.run(p)
				b.is(p, tt.want)
				if strings.HasPrefix(tt.want, "Running") {
					return
				}
				// Ended: nothing is left but the logs and the status, also after
				// a restart; then it is deleted.
				list, err := b.rt.List(b.ctx)
				if err != nil || len(list) > 0 || len(b.net.pods) > 0 {
					t.Errorf("left: %v %v, %v", list, b.net.pods, err)
				}
				if b.status(p).PodIP == "" {
					t.Error("the address is forgotten")
				}
				if _, err := os.Stat(LogDir(b.node.LogDir, p)); tt.args[0] != "absent" && err != nil {
					t.Errorf("logs: %v", err)
				}
				b.restart(b.stored(p))
				b.is(p, tt.want)
				w := b.workers["uid-1"]
				w.Want(deleted(b.stored(p), 30))
				b.is(p, tt.want)
				b.removed(p, w)
			})
		})
	}
}

func TestStartError(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "absent"))
		b.run(p)
		b.history(p, "Running | a StartError/128", "Running | a CrashLoopBackOff last StartError/128 #1")
		if got, want := b.status(p).ContainerStatuses[0].LastTerminationState.Terminated.Message, `exec: "absent": executable file not found in $PATH`; got != want {
			t.Errorf("message %q, want %q", got, want)
		}
		if !b.had(`Warning Failed: Error: exec: "absent": executable file not found in $PATH`) {
			t.Error("no event")
		}
		time.Sleep(11 * time.Second)
		b.is(p, "Running | a CrashLoopBackOff last StartError/128 #2")
		b.restart(b.stored(p)) // the runtime knows nothing of these runs
		b.is(p, "Running | a CrashLoopBackOff last StartError/128 #2")
		time.Sleep(20 * time.Second)
		b.is(p, "Running | a CrashLoopBackOff last StartError/128 #3")
		w := b.workers["uid-1"]
		w.Want(deleted(b.stored(p), 30))
		b.is(p, "Failed | a StartError/128 last StartError/128 #3")
		b.removed(p, w)
	})
}

func TestPullErrors(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.imgs.fail, b.imgs.takes = errors.New("registry says: manifest unknown"), 2*time.Second
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		p.Spec.Containers[0].Image = "no/such"
		b.run(p)
		b.history(p, "Pending | a ContainerCreating")
		time.Sleep(25 * time.Second)
		// 0-2 pull, 2 error, 3 back-off, 12-14 pull, 14 error, 15 back-off.
		b.history(p, "Pending | a ContainerCreating", "Pending | a ErrImagePull", "Pending | a ImagePullBackOff", "Pending | a ErrImagePull", "Pending | a ImagePullBackOff")
		b.happened(
			`0s Normal Pulling: Pulling image "no/such"`,
			`2s Warning Failed: Failed to pull image "no/such": registry says: manifest unknown`,
			"2s Warning Failed: Error: ErrImagePull",
			`3s Normal BackOff: Back-off pulling image "no/such"`, "3s Warning Failed: Error: ImagePullBackOff",
			`12s Normal Pulling: Pulling image "no/such"`,
			`14s Warning Failed: Failed to pull image "no/such": registry says: manifest unknown`,
			"14s Warning Failed: Error: ErrImagePull",
			`15s Normal BackOff: Back-off pulling image "no/such"`, "15s Warning Failed: Error: ImagePullBackOff",
		)
		if got, want := b.status(p).ContainerStatuses[0].State.Waiting.Message, `Back-off pulling image "no/such": ErrImagePull: registry says: manifest unknown`; got != want {
			t.Errorf("message %q, want %q", got, want)
		}
		b.imgs.mu.Lock()
		b.imgs.fail = nil
		b.imgs.mu.Unlock()
		time.Sleep(20 * time.Second)
		b.is(p, "Running Ready | a Running ready")
		if !b.had(`Normal Pulled: Successfully pulled image "no/such" in 2s (2s including waiting). Image size: 42 bytes.`) {
			t.Errorf("events %v", b.events)
		}
	})
}

func TestOtherImageProblems(t *testing.T) {
	tests := []struct {
		policy corev1.PullPolicy
		err    error
		want   string
	}{
		{corev1.PullNever, nil, "Pending | a ErrImageNeverPull"},
		{corev1.PullAlways, fmt.Errorf("%w: bad", images.ErrInvalidName), "Pending | a InvalidImageName"},
		{corev1.PullIfNotPresent, nil, "Running Ready | a Running ready"},
	}
	for _, tt := range tests {
		inBubble(t, func(b *bed) {
			b.imgs.fail = tt.err
			p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
			p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = "other", tt.policy
			b.run(p)
			b.is(p, tt.want)
			time.Sleep(time.Minute)
			b.is(p, tt.want)
		})
	}
}

func TestInitContainersAndSidecars(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyNever, con("a", "run", "10s"))
		p.Spec.InitContainers = []corev1.Container{con("i1", "run", "2s"), side("s1", "serve"), con("i2", "run", "3s"), side("s2", "serve")}
		w := b.run(p)
		b.is(p, "Pending | i1 Running | s1 PodInitializing | i2 PodInitializing | s2 PodInitializing | a PodInitializing")
		time.Sleep(2 * time.Second)
		b.is(p, "Pending | i1 Completed/0 ready | s1 Running ready | i2 Running | s2 PodInitializing | a PodInitializing")
		time.Sleep(3 * time.Second)
		b.is(p, "Running Ready | i1 Completed/0 ready | s1 Running ready | i2 Completed/0 ready | s2 Running ready | a Running ready")
		b.forget()
		time.Sleep(10 * time.Second)
		b.happened("15s Normal Killing: Stopping container s2", "15s down s2", "15s Normal Killing: Stopping container s1", "15s down s1")
		b.is(p, "Succeeded | i1 Completed/0 ready | s1 Completed/0 | i2 Completed/0 ready | s2 Completed/0 | a Completed/0")
		w.Want(deleted(b.stored(p), 0))
		b.removed(p, w)
	})
}

func TestInitFailure(t *testing.T) {
	for policy, want := range map[corev1.RestartPolicy]string{
		corev1.RestartPolicyNever:  "Failed | i Error/1 | a PodInitializing",
		corev1.RestartPolicyAlways: "Pending | i CrashLoopBackOff last Error/1 #1 | a PodInitializing",
	} {
		inBubble(t, func(b *bed) {
			p := podOf(policy, con("a", "serve"))
			p.Spec.InitContainers = []corev1.Container{con("i", "false")}
			b.run(p)
			b.is(p, want)
		})
	}
}

func TestSidecarRestartsBesideTheOthers(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyNever, con("a", "run", "1h"))
		p.Spec.InitContainers = []corev1.Container{side("s", "run", "5s", "fail"), con("i", "true")}
		b.run(p)
		b.is(p, "Running Ready | s Running ready | i Completed/0 ready | a Running ready")
		time.Sleep(11 * time.Second)
		b.is(p, "Running | s CrashLoopBackOff last Error/1 #1 | i Completed/0 ready | a Running ready")
		for _, c := range b.status(p).Conditions {
			if c.Type == corev1.PodInitialized && c.Status != corev1.ConditionTrue {
				t.Errorf("%+v", c)
			}
		}
		time.Sleep(10 * time.Second)
		b.is(p, "Running Ready | s Running last Error/1 #2 ready | i Completed/0 ready | a Running ready")
	})
}

func TestDeletion(t *testing.T) {
	always := corev1.RestartPolicyAlways
	hooked := func(args ...string) corev1.Container {
		c := con("a", "serve")
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: args}}}
		return c
	}
	tests := []struct {
		name  string
		pod   *corev1.Pod
		grace int64
		takes time.Duration
		want  string // status
		event string
	}{
		{"polite", podOf(always, con("a", "serve"), con("b", "serve")), 30, 0, "Succeeded | a Completed/0 | b Completed/0", "Stopping container b"},
		{"slow", podOf(always, con("a", "slow")), 30, 5 * time.Second, "Succeeded | a Completed/0", ""},
		{"deaf", podOf(always, con("a", "deaf")), 30, 30 * time.Second, "Failed | a Error/137", "killed a"},
		{"deaf, at the same time", podOf(always, con("a", "deaf"), con("b", "deaf")), 10, 10 * time.Second, "Failed | a Error/137 | b Error/137", ""},
		{"now", podOf(always, con("a", "deaf")), 1, time.Second, "Failed | a Error/137", ""},
		{"hook", podOf(always, hooked("run", "4s")), 30, 4 * time.Second, "Succeeded | a Completed/0", ""},
		{"hook fails", podOf(always, hooked("run", "4s", "fail")), 30, 4 * time.Second, "Succeeded | a Completed/0", "Warning FailedPreStopHook: PreStopHook failed: command exited with 1: "},
		{"hook takes all", podOf(always, hooked("hang")), 10, 10 * time.Second, "Succeeded | a Completed/0", "Warning FailedPreStopHook: PreStopHook failed: context deadline exceeded"},
		{"crashing", podOf(always, con("a", "false")), 30, 0, "Failed | a Error/1 last Error/1 #1", ""},
		{"not found", podOf(always, con("a", "absent")), 30, 0, "Failed | a StartError/128 last StartError/128 #1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(b *bed) {
				w := b.run(tt.pod)
				synctest.Wait()
				began := time.Now()
				w.Want(deleted(b.stored(tt.pod), tt.grace))
				synctest.Wait()
				for range 100 {
					b.mu.Lock()
					gone := b.gone["uid-1"]
					b.mu.Unlock()
					if gone {
						break
					}
					time.Sleep(500 * time.Millisecond)
					synctest.Wait()
				}
				if took := time.Since(began); took < tt.takes || took > tt.takes+500*time.Millisecond {
					t.Errorf("took %v, want %v", took, tt.takes)
				}
				b.is(tt.pod, tt.want)
				if !b.had(tt.event) {
					t.Errorf("no event %q: %v", tt.event, b.events)
				}
				b.removed(tt.pod, w)
			})
		})
	}
}

func TestSidecarsShareTheGrace(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "deaf"))
		p.Spec.InitContainers = []corev1.Container{side("s", "deaf")}
		w := b.run(p)
		b.forget()
		w.Want(deleted(b.stored(p), 10))
		time.Sleep(13 * time.Second)
		b.happened("0s Normal Killing: Stopping container a", "10s killed a", "10s Normal Killing: Stopping container s", "12s killed s")
		b.removed(p, w)
	})
}

func TestHurriedDeletion(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "deaf"))
		w := b.run(p)
		synctest.Wait()
		w.Want(deleted(b.stored(p), 30))
		b.forget()
		time.Sleep(5 * time.Second)
		w.Want(deleted(b.stored(p), 3)) // kubectl delete --grace-period=3, once more
		time.Sleep(4 * time.Second)
		b.happened("8s killed a")
		b.removed(p, w)
	})
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "deaf"))
		w := b.run(p)
		synctest.Wait()
		w.Want(deleted(b.stored(p), 30))
		b.forget()
		time.Sleep(5 * time.Second)
		w.Want(nil) // kubectl delete --force: the object is gone
		time.Sleep(3 * time.Second)
		b.happened("7s killed a")
		b.empty(p)
	})
}

func TestDeletionWhileStarting(t *testing.T) {
	inBubble(t, func(b *bed) { // while pulling
		b.imgs.takes = time.Hour
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		p.Spec.Containers[0].Image = "far"
		w := b.run(p)
		b.is(p, "Pending | a ContainerCreating")
		w.Want(deleted(b.stored(p), 30))
		b.is(p, "Failed | a ContainerCreating")
		b.removed(p, w)
	})
	inBubble(t, func(b *bed) { // without a network
		b.net.fail = errors.New("no address is free")
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		w := b.run(p)
		b.is(p, "Pending | a ContainerCreating")
		if !b.had("Warning FailedCreatePodSandBox: Failed to create pod sandbox: attach the pod to the network: no address is free") {
			t.Errorf("events %v", b.events)
		}
		w.Want(deleted(b.stored(p), 30))
		b.removed(p, w)
	})
	inBubble(t, func(b *bed) { // without a sandbox
		b.m.FailSandboxes(func(runtime.SandboxConfig) error { return errors.New("no cgroup") })
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		w := b.run(p)
		b.is(p, "Pending | a ContainerCreating")
		b.m.FailSandboxes(nil)
		time.Sleep(time.Second)
		b.is(p, "Running Ready | a Running ready")
		w.Want(nil)
		time.Sleep(time.Second)
		b.empty(p)
	})
	inBubble(t, func(b *bed) { // before anything
		p := deleted(podOf(corev1.RestartPolicyAlways, con("a", "serve")), 30)
		w := b.run(p)
		b.is(p, "Failed | a ContainerCreating")
		b.removed(p, w)
	})
	inBubble(t, func(b *bed) { // an orphan before anything
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		w := b.run(p)
		w.Want(nil)
		synctest.Wait()
		b.empty(p)
	})
}

func TestNodedRestart(t *testing.T) {
	inBubble(t, func(b *bed) {
		ready := con("b", "run", "30s", "fail")
		ready.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"exists", "b"}}}, PeriodSeconds: 10, FailureThreshold: 3}
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"), ready)
		b.set("b", true)
		b.run(p)
		b.is(p, "Running Ready | a Running ready | b Running ready")
		b.forget()
		before := b.stored(p)
		b.restart(p) // with a pod as old as the checkpoint may have it
		b.is(p, "Running Ready | a Running ready | b Running ready")
		b.happened() // nobody noticed
		if got := b.stored(p); got.Status.ContainerStatuses[0].ContainerID != before.Status.ContainerStatuses[0].ContainerID {
			t.Error("another container")
		}
		// One ends while nobody looks: its exit code comes.
		b.kill()
		time.Sleep(40 * time.Second)
		b.start()
		b.run(before)
		b.history(p, "Running | a Running ready | b Running", "Running Ready | a Running ready | b Running ready",
			"Running | a Running ready | b Error/1", "Running | a Running ready | b Running last Error/1 #1", "Running Ready | a Running ready | b Running last Error/1 #1 ready")
	})
}

func TestNodedRestartWhileEnding(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "deaf"))
		w := b.run(p)
		synctest.Wait()
		d := deleted(b.stored(p), 20)
		w.Want(d)
		time.Sleep(15 * time.Second)
		b.restart(d)
		time.Sleep(21 * time.Second)
		b.is(p, "Failed | a Error/137")
		b.removed(p, b.workers["uid-1"])
	})
	// The end is not acknowledged when noded dies: how it ended is not lost.
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyNever, con("a", "run", "5s"))
		b.run(p)
		synctest.Wait()
		running := b.stored(p)
		time.Sleep(6 * time.Second)
		b.is(p, "Succeeded | a Completed/0")
		b.restart(running)
		b.is(p, "Succeeded | a Completed/0")
		b.restart(deleted(running, 30))
		b.is(p, "Succeeded | a Completed/0")
		b.removed(p, b.workers["uid-1"])
	})
	// Nor is the end of a deletion, whose object is still there.
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		w := b.run(p)
		synctest.Wait()
		d := deleted(b.stored(p), 30)
		w.Want(d)
		b.is(p, "Succeeded | a Completed/0")
		b.restart(d)
		b.is(p, "Succeeded | a Completed/0")
		b.removed(p, b.workers["uid-1"])
	})
}

// blind is a runtime that looks at the pod's folder when it forgets a pod.
type blind struct {
	runtime.Runtime
	look func()
}

func (r blind) RemoveSandbox(ctx context.Context, id string) error {
	r.look()
	return r.Runtime.RemoveSandbox(ctx, id)
}

func TestEndIsKeptBeforeTheRuntimeForgetsIt(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.kill()
		kept := ""
		b.hook = func(r runtime.Runtime) runtime.Runtime {
			return blind{r, func() {
				w := &Worker{node: b.node, pod: podOf(corev1.RestartPolicyAlways)}
				if st, err := w.lastStatus(); err == nil && st != nil {
					kept = words(st)
				}
			}}
		}
		b.start()
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		w := b.run(p)
		synctest.Wait()
		w.Want(deleted(b.stored(p), 30))
		synctest.Wait()
		if want := "Succeeded | a Completed/0"; kept != want {
			t.Errorf("when the runtime forgot the pod there was kept %q, want %q", kept, want)
		}
	})
}

func TestReboot(t *testing.T) {
	for policy, want := range map[corev1.RestartPolicy]string{
		corev1.RestartPolicyAlways: "Running Ready | i Completed/0 last Completed/0 #1 ready | a Running last ContainerStatusUnknown/137 #1 ready",
		corev1.RestartPolicyNever:  "Failed | i Completed/0 ready | a ContainerStatusUnknown/137",
	} {
		inBubble(t, func(b *bed) {
			p := podOf(policy, con("a", "serve"))
			p.Spec.InitContainers = []corev1.Container{con("i", "true")}
			b.run(p)
			b.is(p, "Running Ready | i Completed/0 ready | a Running ready")
			b.reboot(p)
			b.is(p, want)
		})
	}
}

// A machine that loses its power again and again is not a pod that fails: the
// pod starts at once each time.
func TestRebootsAreNoFailures(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		b.run(p)
		b.is(p, "Running Ready | a Running ready")
		for n := 1; n <= 4; n++ {
			time.Sleep(5 * time.Second)
			b.reboot(b.stored(p))
			b.is(p, fmt.Sprintf("Running Ready | a Running last ContainerStatusUnknown/137 #%d ready", n))
		}
	})
}

func TestAddressStays(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		b.run(p)
		synctest.Wait()
		b.net.next = "10.244.0.9"
		time.Sleep(5 * time.Second)
		b.reboot(p)
		if got := b.status(p).PodIP; got != "10.244.0.7" {
			t.Errorf("after a reboot the pod is at %s", got)
		}
		b.net.taken = "10.244.0.7"
		time.Sleep(5 * time.Second)
		b.reboot(p)
		if got := b.status(p).PodIP; got != "10.244.0.9" {
			t.Errorf("its address is another's, it is at %s", got)
		}
		b.is(p, "Running Ready | a Running last ContainerStatusUnknown/137 #2 ready")
	})
}

func TestSandboxLost(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		p.Spec.InitContainers = []corev1.Container{con("i", "true")}
		b.run(p)
		b.is(p, "Running Ready | i Completed/0 ready | a Running ready")
		b.forget()
		b.m.LoseSandbox("uid-1")
		b.is(p, "Running Ready | i Completed/0 last Completed/0 #1 ready | a Running last ContainerStatusUnknown/137 #1 ready")
		if !b.had("Normal SandboxChanged: Pod sandbox changed, it will be killed and re-created.") || !b.had("true i") {
			t.Errorf("events %v", b.events)
		}
		// An event of the former sandbox does nothing to this one.
		b.workers["uid-1"].Event(runtime.Event{Kind: runtime.SandboxLost, SandboxID: "uid-1"})
		b.is(p, "Running Ready | i Completed/0 last Completed/0 #1 ready | a Running last ContainerStatusUnknown/137 #1 ready")
	})
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyNever, con("a", "serve"))
		w := b.run(p)
		synctest.Wait()
		b.m.LoseSandbox("uid-1")
		b.is(p, "Failed | a ContainerStatusUnknown/137")
		w.Want(deleted(b.stored(p), 1))
		b.removed(p, w)
	})
}

func TestActiveDeadline(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyNever, con("a", "slow"))
		seconds := int64(60)
		p.Spec.ActiveDeadlineSeconds = &seconds
		b.run(p)
		time.Sleep(61 * time.Second)
		b.is(p, "Running Ready | a Running ready") // not Failed before it has ended
		time.Sleep(5 * time.Second)
		b.is(p, "Failed(DeadlineExceeded) | a Completed/0")
		if got := b.status(p).Message; got != deadlineMessage || !b.had("1m0s Normal DeadlineExceeded: "+deadlineMessage) {
			t.Errorf("message %q, events %v", got, b.events)
		}
		b.restart(b.stored(p))
		b.is(p, "Failed(DeadlineExceeded) | a Completed/0")
	})
}

func TestConfigProblems(t *testing.T) {
	inBubble(t, func(b *bed) {
		c := con("a", "serve")
		c.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}}
		p := podOf(corev1.RestartPolicyAlways, c)
		w := b.run(p)
		b.is(p, "Pending | a CreateContainerConfigError")
		if got := b.status(p).ContainerStatuses[0].State.Waiting.Message; got != `configmap "cm" not found` || !b.had(`Warning Failed: Error: configmap "cm" not found`) {
			t.Errorf("message %q", got)
		}
		time.Sleep(100 * time.Millisecond)
		b.cl.maps["demo/cm"] = &corev1.ConfigMap{}
		w.Refresh()
		b.is(p, "Running Ready | a Running ready") // at once
	})
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}}}
		w := b.run(p)
		b.is(p, "Pending | a ContainerCreating")
		if !b.had(`Warning FailedMount: MountVolume.SetUp failed for volume "v" : secret "s" not found`) {
			t.Errorf("events %v", b.events)
		}
		b.cl.secrets["demo/s"] = &corev1.Secret{}
		w.Refresh()
		b.is(p, "Running Ready | a Running ready")
		// A Secret that goes does nothing to a pod that has it.
		delete(b.cl.secrets, "demo/s")
		b.forget()
		w.Refresh()
		b.is(p, "Running Ready | a Running ready")
		if !b.had("Warning FailedMount") {
			t.Errorf("events %v", b.events)
		}
	})
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}}
		b.run(p)
		b.is(p, "Failed(SysctlForbidden) | a ContainerCreating")
	})
}

func TestOverwrittenStatusIsSaidAgain(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		w := b.run(p)
		b.is(p, "Running Ready | a Running ready")
		lost := b.stored(p)
		lost.Status.Conditions = nil
		b.mu.Lock()
		b.last, b.pending = map[string]*corev1.PodStatus{}, true
		b.mu.Unlock()
		w.Want(lost)
		synctest.Wait()
		b.mu.Lock()
		if b.last["uid-1"] != nil {
			t.Error("said again though the former is on its way")
		}
		b.pending = false
		b.mu.Unlock()
		w.Want(lost)
		b.is(p, "Running Ready | a Running ready")
	})
}

func TestImageChange(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		w := b.run(p)
		b.forget()
		next := b.stored(p)
		next.Spec.Containers[0].Image = "img2"
		next.Generation++
		w.Want(next)
		b.happened("0s Normal Killing: Container a definition changed, will be restarted", "0s down a",
			`0s Normal Pulled: Container image "img2" already present on machine`, "0s Normal Created: Created container: a", "0s Normal Started: Started container a")
		b.is(p, "Running Ready | a Running last Completed/0 #1 ready")
		if c := b.status(p).ContainerStatuses[0]; c.Image != "img2" || c.ImageID != "img2@sha256:1" {
			t.Errorf("container %+v", c)
		}
	})
}

func TestPostStart(t *testing.T) {
	hook := func(args ...string) corev1.Container {
		c := con("a", "serve")
		c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: args}}}
		return c
	}
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, hook("run", "5s"), con("b", "serve"))
		b.run(p)
		b.is(p, "Pending | a ContainerCreating | b ContainerCreating")
		time.Sleep(5 * time.Second)
		b.is(p, "Running Ready | a Running ready | b Running ready")
	})
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyNever, hook("run", "5s", "fail"))
		b.run(p)
		b.forget()
		time.Sleep(6 * time.Second)
		b.happened("5s Warning FailedPostStartHook: PostStartHook failed: command exited with 1: ", "5s Normal Killing: FailedPostStartHook", "5s down a")
		b.is(p, "Succeeded | a Completed/0")
	})
	inBubble(t, func(b *bed) { // a kind that cannot be run fails, as Kubernetes has it
		c := con("a", "serve")
		c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{TCPSocket: &corev1.TCPSocketAction{}}}
		p := podOf(corev1.RestartPolicyNever, c)
		b.run(p)
		b.is(p, "Succeeded | a Completed/0")
		if !b.had("FailedPostStartHook") {
			t.Error("no event")
		}
	})
}

func probe(name string, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"exists", name}}},
		PeriodSeconds: 10, FailureThreshold: failures, SuccessThreshold: 1, TimeoutSeconds: 1,
	}
}

func TestProbes(t *testing.T) {
	inBubble(t, func(b *bed) {
		c := con("a", "serve")
		c.StartupProbe, c.LivenessProbe, c.ReadinessProbe = probe("up", 3), probe("live", 2), probe("ready", 1)
		p := podOf(corev1.RestartPolicyAlways, c)
		b.set("live", true)
		w := b.run(p)
		b.is(p, "Running | a Running")
		if *b.status(p).ContainerStatuses[0].Started {
			t.Error("started before its startup probe")
		}
		time.Sleep(5 * time.Second)
		b.set("up", true)
		b.set("ready", true)
		time.Sleep(6 * time.Second)
		b.is(p, "Running Ready | a Running ready")
		b.forget()
		b.set("ready", false)
		time.Sleep(10 * time.Second)
		b.is(p, "Running | a Running")
		b.set("ready", true)
		time.Sleep(10 * time.Second)
		b.is(p, "Running Ready | a Running ready")
		b.happened("20s Warning Unhealthy: Readiness probe failed: ")
		b.set("live", false)
		b.set("up", false)
		time.Sleep(20 * time.Second)
		if !b.had("40s Warning Unhealthy: Liveness probe failed: ") || !b.had("50s Warning Unhealthy: Liveness probe failed: ") ||
			!b.had("50s Normal Killing: Container a failed liveness probe, will be restarted") {
			t.Errorf("events %v", b.events)
		}
		b.is(p, "Running | a Running last Completed/0 #1")
		b.forget()
		time.Sleep(22 * time.Second)
		if !b.had("Normal Killing: Container a failed startup probe, will be restarted") {
			t.Errorf("events %v", b.events)
		}
		w.Want(deleted(b.stored(p), 5))
		b.removed(p, w)
	})
}

func TestReadinessWhileEnding(t *testing.T) {
	inBubble(t, func(b *bed) {
		c := con("a", "deaf")
		c.LivenessProbe, c.ReadinessProbe = probe("live", 1), probe("ready", 1)
		p := podOf(corev1.RestartPolicyAlways, c)
		b.set("live", true)
		b.set("ready", true)
		w := b.run(p)
		b.is(p, "Running Ready | a Running ready")
		w.Want(deleted(b.stored(p), 60))
		b.forget()
		b.set("live", false)
		b.set("ready", false)
		time.Sleep(11 * time.Second)
		b.happened("10s Warning Unhealthy: Readiness probe failed: ")
		b.is(p, "Running | a Running")
	})
}

func TestInfo(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"), con("b", "run", "5s", "fail"))
		w := b.run(p)
		synctest.Wait()
		info, err := w.Info(b.ctx, "b")
		if err != nil || info.ID != "b-0" || !info.Running || info.Newest != 0 || info.Previous != -1 || info.NetNS != "/run/netns/uid-1" {
			t.Errorf("%+v, %v", info, err)
		}
		select {
		case <-info.Ended:
			t.Error("ended")
		default:
		}
		time.Sleep(6 * time.Second)
		<-info.Ended
		time.Sleep(5 * time.Second)
		if info, err = w.Info(b.ctx, "b"); err != nil || info.Running || info.Newest != 1 || info.Previous != 1 { // in back-off
			t.Errorf("%+v, %v", info, err)
		}
		if _, err := w.Info(b.ctx, "c"); !errors.Is(err, apierr.ErrBadRequest) {
			t.Errorf("container c: %v", err)
		}
		if info, err = w.Info(b.ctx, ""); err != nil || info.Pod == nil {
			t.Errorf("%+v, %v", info, err)
		}
		w.Want(nil)
		time.Sleep(3 * time.Second)
		if _, err := w.Info(b.ctx, "a"); !errors.Is(err, apierr.ErrNotFound) {
			t.Errorf("gone: %v", err)
		}
	})
}

// flaky is a runtime that fails when told to.
type flaky struct {
	runtime.Runtime
	stop  func() error
	start func() error
}

func (f *flaky) StopContainer(ctx context.Context, sb, id string, sig syscall.Signal, grace time.Duration) (runtime.Container, error) {
	if err := f.stop(); err != nil {
		return runtime.Container{}, err
	}
	return f.Runtime.StopContainer(ctx, sb, id, sig, grace)
}

func (f *flaky) StartContainer(ctx context.Context, sb string, cfg runtime.ContainerConfig) (runtime.Container, error) {
	c, err := f.Runtime.StartContainer(ctx, sb, cfg)
	if ferr := f.start(); ferr != nil {
		return runtime.Container{}, ferr
	}
	return c, err
}

func TestRuntimeFails(t *testing.T) {
	inBubble(t, func(b *bed) {
		times := 2
		b.kill()
		b.hook = func(r runtime.Runtime) runtime.Runtime {
			fail := func() error {
				if times--; times >= 0 {
					return errors.New("it is ill")
				}
				return nil
			}
			return &flaky{r, fail, func() error { return nil }}
		}
		b.start()
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		w := b.run(p)
		synctest.Wait()
		w.Want(deleted(b.stored(p), 30))
		time.Sleep(5 * time.Second)
		if !b.had("0s Warning FailedKillPod: error killing pod: stop container \"a\": it is ill") || !b.had("1s Warning FailedKillPod") {
			t.Errorf("events %v", b.events)
		}
		b.removed(p, w)
	})
	inBubble(t, func(b *bed) { // a start that succeeded though it said it had not
		b.kill()
		once := true
		b.hook = func(r runtime.Runtime) runtime.Runtime {
			return &flaky{r, func() error { return nil }, func() error {
				if once {
					once = false
					return errors.New("no answer")
				}
				return nil
			}}
		}
		b.start()
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		b.run(p)
		b.is(p, "Pending | a CreateContainerError")
		time.Sleep(5 * time.Second)
		b.is(p, "Running Ready | a Running ready")
	})
	inBubble(t, func(b *bed) { // the network of a noded that just started
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		b.run(p)
		b.is(p, "Running Ready | a Running ready")
		b.net.fail = apierr.Unavailable("not configured yet")
		b.forget()
		b.restart(b.stored(p))
		time.Sleep(3 * time.Second)
		b.happened()
		b.is(p, "Running Ready | a Running ready")
		if b.status(p).PodIP == "" {
			t.Error("the address is forgotten")
		}
	})
}
