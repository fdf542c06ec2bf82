package podworker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/images"
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
