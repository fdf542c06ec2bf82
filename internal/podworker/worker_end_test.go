package podworker

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/runtime"
)

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
