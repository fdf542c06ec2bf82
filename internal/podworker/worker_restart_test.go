package podworker

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/runtime"
)

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
