package podworker

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/runtime"
)

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
