package podworker

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/network"
	"github.com/wherry-project/wherry/internal/runtime"
)

const (
	// stepWithin bounds a step that waits for the kernel or the shim.
	stepWithin  = time.Minute
	failedMount = "FailedMount"
	noSandbox   = "FailedCreatePodSandBox"
	// deadlineMessage is Kubernetes' text.
	deadlineMessage = "Pod was active on the node longer than the specified deadline"
)

// act takes a step. A step that fails is noted in the state, so that the next
// plan waits before it is tried again.
func (w *Worker) act(ctx context.Context, s step) error {
	one, cancel := context.WithTimeout(ctx, stepWithin)
	defer cancel()
	c := w.state.containers[s.container]
	switch s.kind {
	case ask:
		return w.setUp("FailedSync", w.ask(one))
	case refuse:
		w.fail(refusal(w.pod), corev1.EventTypeWarning)
		return nil
	case expire:
		w.fail(&problem{reason: "DeadlineExceeded", message: deadlineMessage}, corev1.EventTypeNormal)
		return nil
	case setVolume:
		return w.setUp(failedMount, w.makeVolumes(one))
	case freshFiles:
		return w.freshFiles(one)
	case attach:
		return w.attach(one)
	case sandbox:
		return w.setUp(noSandbox, w.startSandbox(one))
	case pull:
		return w.findImage(ctx, c)
	case pullLater:
		c.pullFail.told = true
		w.event(corev1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", w.spec(c.name).Image))
		w.event(corev1.EventTypeWarning, "Failed", "Error: ImagePullBackOff")
		return nil
	case start:
		return w.start(ctx, c)
	case resize:
		return w.resize(one, c)
	case retire:
		w.retire(c)
		return nil
	case stop:
		w.stop(ctx, c)
		return nil
	case teardown:
		return w.setUp(killFailed, w.tearDown(one))
	case sweep:
		return w.setUp(killFailed, w.sweep())
	}
	return fmt.Errorf("step %q cannot be taken", s.kind)
}

// fail ends the whole pod.
func (w *Worker) fail(p *problem, eventType string) {
	w.state.failed = p
	w.event(eventType, p.reason, p.message)
}

// setUp notes whether a step of the pod's set-up, or end, went well.
func (w *Worker) setUp(reason string, err error) error {
	if err == nil {
		w.state.problem = nil
		return nil
	}
	w.state.problem = worse(w.state.problem, reason, err.Error(), 500*time.Millisecond, 30*time.Second)
	w.event(corev1.EventTypeWarning, reason, err.Error())
	return err
}

// worse is a problem that was met once more: the pause doubles from first to
// last.
func worse(p *problem, reason, message string, first, last time.Duration) *problem {
	n := 0
	if p != nil {
		n = p.times
	}
	now := time.Now()
	return &problem{reason: reason, message: message, times: n + 1, at: now, again: now.Add(min(first<<min(n, 10), last))}
}

func (w *Worker) event(kind, reason, message string) {
	if !w.state.orphan {
		w.node.Event(w.pod, kind, reason, message)
	}
}

// slot takes one of the node's places for expensive steps.
func (w *Worker) slot(ctx context.Context) (release func(), err error) {
	select {
	case w.node.Slots <- struct{}{}:
		return func() { <-w.node.Slots }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for other pods' starts: %w", ctx.Err())
	}
}

// ask finds out what the runtime has, after it told of a loss: an event may be
// older than a sandbox that was made since.
func (w *Worker) ask(ctx context.Context) error {
	list, err := w.node.Runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("list what runs: %w", err)
	}
	var found *runtime.Sandbox
	for i := range list {
		if list[i].ID == string(w.pod.UID) {
			found = &list[i]
		}
	}
	w.state.seen(found, time.Now())
	return nil
}

func (w *Worker) attach(ctx context.Context) error {
	if w.pod.Spec.HostNetwork {
		w.state.attached = true
		if len(w.node.Addresses) > 0 {
			w.state.address = w.node.Addresses[0]
		}
		return nil
	}
	release, err := w.slot(ctx)
	if err != nil {
		return w.setUp(noSandbox, err)
	}
	defer release()
	p, err := w.node.Network.Attach(ctx, network.PodConfig{ID: string(w.pod.UID), Address: w.state.former})
	if errors.Is(err, apierr.ErrConflict) { // another pod has it, or the node's range is another
		p, err = w.node.Network.Attach(ctx, network.PodConfig{ID: string(w.pod.UID)})
	}
	if w.state.sandbox && errors.Is(err, apierr.ErrUnavailable) {
		// The pod runs; only this noded's network does not stand yet.
		w.state.problem = worse(nil, noSandbox, err.Error(), 200*time.Millisecond, time.Second)
		return nil
	}
	if err != nil {
		return w.setUp(noSandbox, fmt.Errorf("Failed to create pod sandbox: attach the pod to the network: %w", err)) //nolint:staticcheck // the event's text
	}
	w.state.attached, w.state.address, w.state.netns, w.state.problem = true, p.Address, p.NetNS, nil
	return nil
}

func (w *Worker) startSandbox(ctx context.Context) error {
	if w.state.ran() {
		w.event(corev1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
	}
	cfg, err := w.sandboxConfig()
	if err == nil {
		err = w.writeFiles()
	}
	if err != nil {
		return fmt.Errorf("Failed to create pod sandbox: %w", err) //nolint:staticcheck // the event's text
	}
	release, err := w.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	if _, err := w.node.Runtime.StartSandbox(ctx, cfg); err != nil {
		return fmt.Errorf("Failed to create pod sandbox: %w", err) //nolint:staticcheck // the event's text
	}
	w.state.sandbox = true
	w.state.rerun(w.pod)
	return nil
}

// freshFiles brings the files of volumes up to date. If that fails the former
// ones stay, and the pod goes on.
func (w *Worker) freshFiles(ctx context.Context) error {
	err := w.makeVolumes(ctx)
	w.state.stale, w.state.staleFail = err != nil, nil
	if err != nil {
		w.state.staleFail = worse(w.state.staleFail, failedMount, err.Error(), 10*time.Second, 2*time.Minute)
		w.event(corev1.EventTypeWarning, failedMount, err.Error())
	}
	return err
}

// tearDown takes down what the pod had on the node, but its folder, in which
// the last status is, and its logs. The status is on disk before the runtime
// forgets how the containers ended.
func (w *Worker) tearDown(ctx context.Context) error {
	uid := string(w.pod.UID)
	if !w.state.orphan {
		if err := w.keepStatus(w.look(), true); err != nil {
			return err
		}
		if w.pod.DeletionTimestamp == nil {
			w.report() // how it ended is news before it is cleared away
		}
	}
	err := w.node.Runtime.RemoveSandbox(ctx, uid)
	if err == nil && !w.pod.Spec.HostNetwork {
		err = w.node.Network.Detach(ctx, uid)
	}
	if err == nil && w.node.Volumes != nil {
		err = w.node.Volumes.Remove(ctx, uid)
	}
	if err != nil {
		return fmt.Errorf("take the pod down: %w", err)
	}
	s := &w.state
	s.sandbox, s.attached, s.volumesDone, s.torn = false, false, false, true
	return nil
}

func (w *Worker) spec(name string) *corev1.Container {
	for _, c := range everyContainer(w.pod) {
		if c.Name == name {
			return c
		}
	}
	return &corev1.Container{Name: name}
}
