package podworker

import (
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wherry-project/wherry/internal/runtime"
)

// with is a pod with one more ephemeral container.
func with(p *corev1.Pod, c corev1.Container, target string) *corev1.Pod {
	p = p.DeepCopy()
	p.Generation++
	p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon(c), TargetContainerName: target,
	})
	return p
}

// TestEphemeral adds containers to a pod that runs: they run once, beside it.
func TestEphemeral(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyAlways, con("a", "serve"))
		w := b.run(p)
		b.is(p, "Running Ready | a Running ready")
		p = with(b.stored(p), con("look", "run", "10s", "fail"), "a")
		w.Want(p)
		b.is(p, "Running Ready | a Running ready")
		st := b.status(p).EphemeralContainerStatuses
		if len(st) != 1 || st[0].Name != "look" || st[0].State.Running == nil || st[0].Ready || st[0].ContainerID != "wherry://uid-1/look-0" {
			t.Fatalf("ephemeral %+v", st)
		}
		if b.had("look restart") || b.status(p).ObservedGeneration != 2 {
			t.Errorf("generation %d", b.status(p).ObservedGeneration)
		}
		time.Sleep(time.Minute)
		b.is(p, "Running Ready | a Running ready")
		if st := b.status(p).EphemeralContainerStatuses[0]; st.State.Terminated == nil || st.State.Terminated.ExitCode != 1 || st.RestartCount != 0 {
			t.Errorf("ended as %+v", st)
		}
		// A later noded knows how it ended, and one more may come.
		p = with(b.stored(p), con("again", "serve"), "")
		b.restart(p)
		time.Sleep(time.Minute)
		st = b.status(p).EphemeralContainerStatuses
		if len(st) != 2 || st[0].State.Terminated == nil || st[1].State.Running == nil {
			t.Fatalf("after a restart %+v", st)
		}
		// It ends with the pod.
		w = b.workers["uid-1"]
		b.forget()
		w.Want(deleted(b.stored(p), 30))
		if !b.had("Stopping container again") || !b.had("Stopping container a") {
			t.Errorf("happened %v", b.events)
		}
		b.removed(p, w)
	})
}

// TestEphemeralTarget waits for a target that does not run, says so, and holds
// up nobody.
func TestEphemeralTarget(t *testing.T) {
	inBubble(t, func(b *bed) {
		p := podOf(corev1.RestartPolicyNever, con("a", "serve"), con("b", "true"))
		w := b.run(p)
		b.is(p, "Running | a Running ready | b Completed/0")
		p = with(b.stored(p), con("look", "serve"), "b")
		w.Want(p)
		time.Sleep(time.Second)
		b.is(p, "Running | a Running ready | b Completed/0")
		st := b.status(p).EphemeralContainerStatuses[0]
		if st.State.Waiting == nil || st.State.Waiting.Message != `unable to find target container "b"` {
			t.Errorf("waits as %+v", st.State)
		}
		w.Want(deleted(b.stored(p), 1))
		time.Sleep(10 * time.Second)
		b.removed(p, w)
	})
}

func amounts(cpu, memory string) corev1.ResourceRequirements {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	return corev1.ResourceRequirements{Requests: list, Limits: list.DeepCopy()}
}

// resizedTo is a pod whose container a asks for other resources.
func resizedTo(p *corev1.Pod, r corev1.ResourceRequirements) *corev1.Pod {
	p = p.DeepCopy()
	p.Generation++
	p.Spec.Containers[0].Resources = r
	return p
}

func resizeCondition(st *corev1.PodStatus) string {
	for _, c := range st.Conditions {
		if c.Type == corev1.PodResizePending || c.Type == corev1.PodResizeInProgress {
			return string(c.Type) + " " + c.Reason
		}
	}
	return ""
}

// TestResize changes the limits of a running container.
func TestResize(t *testing.T) {
	inBubble(t, func(b *bed) {
		con := con("a", "serve")
		con.Resources = amounts("100m", "64Mi")
		p := podOf(corev1.RestartPolicyAlways, con)
		var full atomic.Bool
		b.node.Fits = func(*corev1.Pod) (string, string) {
			if full.Load() {
				return corev1.PodReasonDeferred, "no room"
			}
			return "", ""
		}
		w := b.run(p)
		b.is(p, "Running Ready | a Running ready")
		p = resizedTo(b.stored(p), amounts("200m", "128Mi"))
		w.Want(p)
		b.is(p, "Running Ready | a Running ready")
		want := runtime.Resources{CPUShares: 204, CPUQuota: 20000, CPUPeriod: 100000, Memory: 128 << 20}
		if got := b.rt.Resized("a-0"); got.CPUQuota != want.CPUQuota || got.Memory != want.Memory || got.CPUShares != want.CPUShares {
			t.Errorf("container resized to %+v", got)
		}
		if got := b.rt.Resized("uid-1"); got.Memory != want.Memory || got.CPUQuota != want.CPUQuota {
			t.Errorf("pod resized to %+v", got)
		}
		st := b.status(p)
		if c := st.ContainerStatuses[0]; c.RestartCount != 0 || c.Resources.Limits.Cpu().String() != "200m" || c.AllocatedResources.Memory().String() != "128Mi" {
			t.Errorf("status %+v", c)
		}
		if got := resizeCondition(st); got != "" {
			t.Errorf("condition %s", got)
		}
		// No room: it is said, and tried again until there is.
		full.Store(true)
		p = resizedTo(b.stored(p), amounts("300m", "128Mi"))
		w.Want(p)
		b.is(p, "Running Ready | a Running ready")
		if got := resizeCondition(b.status(p)); got != "PodResizePending Deferred" {
			t.Errorf("condition %q", got)
		}
		if c := b.status(p).ContainerStatuses[0]; c.Resources.Limits.Cpu().String() != "200m" {
			t.Errorf("status %+v", c)
		}
		// A noded that starts meanwhile knows what the container has.
		b.restart(b.stored(p))
		if got := resizeCondition(b.status(p)); got != "PodResizePending Deferred" {
			t.Errorf("after a restart: condition %q", got)
		}
		full.Store(false)
		time.Sleep(time.Minute)
		b.is(p, "Running Ready | a Running ready")
		if c := b.status(p).ContainerStatuses[0]; c.Resources.Limits.Cpu().String() != "300m" || resizeCondition(b.status(p)) != "" {
			t.Errorf("status %+v %s", c, resizeCondition(b.status(p)))
		}
		// A container that wants to be restarted for it is.
		p = resizedTo(b.stored(p), amounts("300m", "32Mi"))
		p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}}
		b.workers["uid-1"].Want(p)
		time.Sleep(time.Minute)
		if c := b.status(p).ContainerStatuses[0]; c.RestartCount != 1 || c.Resources.Limits.Memory().String() != "32Mi" || !b.had("Container a resize requires restart") {
			t.Errorf("status %+v", c)
		}
	})
}
