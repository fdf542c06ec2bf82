package podworker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/images"
	"github.com/wherry-project/wherry/internal/network"
	"github.com/wherry-project/wherry/internal/runtime"
)

// stepWithin bounds a step that waits for the kernel or the shim.
const stepWithin = time.Minute

// act takes a step. A step that fails is noted in the state, so that the next
// plan waits before it is tried again.
func (w *Worker) act(ctx context.Context, s step) error {
	one, cancel := context.WithTimeout(ctx, stepWithin)
	defer cancel()
	c := w.state.containers[s.container]
	switch s.kind {
	case setVolume:
		return w.setUp("FailedMount", w.makeVolumes(one))
	case attach:
		return w.setUp("FailedCreatePodSandBox", w.attach(one))
	case sandbox:
		return w.setUp("FailedCreatePodSandBox", w.startSandbox(one))
	case pull:
		return w.findImage(ctx, c)
	case start:
		return w.start(one, c)
	case retire:
		w.retire(c)
		return nil
	case stop:
		w.stop(ctx, c)
		return nil
	case teardown:
		return w.tearDown(one)
	}
	return fmt.Errorf("step %q cannot be taken", s.kind)
}

// setUp notes whether a step of the pod's set-up went well.
func (w *Worker) setUp(reason string, err error) error {
	if err == nil {
		w.state.problem = nil
		return nil
	}
	w.state.problem = worse(w.state.problem, reason, err.Error(), w.now(), 500*time.Millisecond, 30*time.Second)
	w.event(corev1.EventTypeWarning, reason, err.Error())
	return err
}

// worse is a problem that was met once more: the pause doubles from first to
// last.
func worse(p *problem, reason, message string, now time.Time, first, last time.Duration) *problem {
	n := 0
	if p != nil {
		n = p.times
	}
	return &problem{reason: reason, message: message, times: n + 1, again: now.Add(min(first<<min(n, 10), last))}
}

func (w *Worker) event(kind, reason, message string) { w.node.Event(w.pod, kind, reason, message) }

// slot takes one of the node's places for expensive steps.
func (w *Worker) slot(ctx context.Context) (release func(), err error) {
	select {
	case w.node.Slots <- struct{}{}:
		return func() { <-w.node.Slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
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
		return err
	}
	defer release()
	p, err := w.node.Network.Attach(ctx, network.PodConfig{ID: string(w.pod.UID)})
	if err != nil {
		return fmt.Errorf("attach the pod to the network: %w", err)
	}
	w.state.attached, w.state.address, w.state.netns = true, p.Address, p.NetNS
	return nil
}

func (w *Worker) startSandbox(ctx context.Context) error {
	if err := w.writeFiles(); err != nil {
		return err
	}
	release, err := w.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	if _, err := w.node.Runtime.StartSandbox(ctx, w.sandboxConfig()); err != nil {
		return fmt.Errorf("start the sandbox: %w", err)
	}
	w.state.sandbox = true
	return nil
}

// findImage takes an image that is here, or pulls it beside the worker.
func (w *Worker) findImage(ctx context.Context, c *container) error {
	spec := w.spec(c.name)
	ref := spec.Image
	if spec.ImagePullPolicy != corev1.PullAlways {
		if img, ok := w.node.Images.Lookup(ref); ok {
			c.image, c.pullFail = &img, nil
			w.event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", ref))
			return nil
		}
	}
	if spec.ImagePullPolicy == corev1.PullNever {
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", ref)
		c.pullFail = worse(c.pullFail, "ErrImageNeverPull", message, w.now(), firstBackOff, lastBackOff)
		w.event(corev1.EventTypeWarning, "ErrImageNeverPull", message)
		return nil
	}
	auths := w.pullSecrets()
	c.pulling = true
	w.event(corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", ref))
	began := w.now()
	w.background(ctx, func(ctx context.Context) func(*Worker) {
		img, err := w.node.Images.Pull(ctx, ref, auths...)
		return func(w *Worker) { w.pulled(c, ref, began, img, err) }
	})
	return nil
}

func (w *Worker) pulled(c *container, ref string, began time.Time, img images.Image, err error) {
	c.pulling = false
	if err == nil {
		c.image, c.pullFail = &img, nil
		w.event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %s. Image size: %d bytes.", ref, w.now().Sub(began).Round(time.Millisecond), img.Size))
		return
	}
	reason := "ErrImagePull"
	if errors.Is(err, images.ErrInvalidName) {
		reason = "InvalidImageName"
	}
	c.pullFail = worse(c.pullFail, reason, err.Error(), w.now(), firstBackOff, lastBackOff)
	w.event(corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", ref, err))
	w.event(corev1.EventTypeWarning, "Failed", "Error: "+reason)
	if c.pullFail.times > 1 {
		w.event(corev1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", ref))
	}
}

// start makes the container anew and starts it.
func (w *Worker) start(ctx context.Context, c *container) error {
	spec := w.spec(c.name)
	cfg, err := w.containerConfig(spec, c)
	if err != nil {
		c.config = worse(c.config, "CreateContainerConfigError", err.Error(), w.now(), time.Second, 30*time.Second)
		w.event(corev1.EventTypeWarning, "Failed", "Error: "+err.Error())
		return nil
	}
	c.config = nil
	if err := w.dropOld(ctx, c); err != nil {
		return w.setUp("FailedSync", err)
	}
	release, err := w.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	now := w.now()
	rc, err := w.node.Runtime.StartContainer(ctx, string(w.pod.UID), cfg)
	var cannot *runtime.StartError
	switch {
	case errors.As(err, &cannot):
		if c.current != nil {
			c.last = c.current
		}
		c.current = &run{
			Container: runtime.Container{ID: cfg.ID, Name: c.name, State: runtime.Exited, ExitCode: runtime.ExitStartError, StartedAt: now, FinishedAt: w.now()},
			reason:    "StartError", message: cannot.Message, imageID: c.image.PinnedName(), image: spec.Image,
		}
		c.starts++
		w.pause(c, 0)
		w.event(corev1.EventTypeNormal, "Created", "Created container: "+c.name)
		w.event(corev1.EventTypeWarning, "Failed", "Error: "+cannot.Message)
		return nil
	case errors.Is(err, runtime.ErrLost), errors.Is(err, runtime.ErrNotFound):
		w.state.sandbox = false
		return w.setUp("FailedCreatePodSandBox", err)
	case err != nil:
		c.config = worse(c.config, "CreateContainerError", err.Error(), now, time.Second, 30*time.Second)
		w.event(corev1.EventTypeWarning, "Failed", "Error: "+err.Error())
		return err
	}
	if c.current != nil {
		c.last = c.current
	}
	c.current = &run{Container: rc, imageID: cfg.Labels[labelImageID], image: cfg.Labels[labelImage]}
	c.starts++
	c.probeReady, c.probeStarted = false, false
	w.state.problem = nil
	w.event(corev1.EventTypeNormal, "Created", "Created container: "+c.name)
	w.event(corev1.EventTypeNormal, "Started", "Started container "+c.name)
	w.started(ctx, spec, c)
	return nil
}

// dropOld removes the run before the last from the runtime: one ended run is
// kept for its status.
func (w *Worker) dropOld(ctx context.Context, c *container) error {
	if c.last == nil || c.last.ID == "" || c.current == nil {
		return nil
	}
	if err := w.node.Runtime.RemoveContainer(ctx, string(w.pod.UID), c.last.ID); err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return fmt.Errorf("remove an ended run of container %q: %w", c.name, err)
	}
	return nil
}

// retire notes how a run ended, and when the next one may begin.
func (w *Worker) retire(c *container) {
	r := c.current
	switch {
	case r.OOMKilled:
		r.reason = "OOMKilled"
	case r.State == runtime.Lost:
		r.reason = "ContainerStatusUnknown"
		r.message = "The container could not be located when the pod was looked at on its node"
	case r.ExitCode == 0:
		r.reason = "Completed"
	default:
		r.reason = "Error"
	}
	spec := w.spec(c.name)
	if r.message == "" {
		r.message = w.terminationMessage(spec, r)
	}
	c.probeReady, c.probeStarted = false, false
	if spec.ImagePullPolicy == corev1.PullAlways {
		c.image = nil
	}
	w.pause(c, r.FinishedAt.Sub(r.StartedAt))
}

// pause sets when the next start may be, after a run of a length.
func (w *Worker) pause(c *container, length time.Duration) {
	if length >= goodRun {
		c.fails = 0
	}
	delay := backOff(c.fails)
	c.again = w.now().Add(delay)
	c.fails = min(c.fails+1, maxFails+1)
	if delay > 0 && again(w.pod, w.spec(c.name), c) {
		w.event(corev1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", c.name, w.pod.Name, w.pod.Namespace, w.pod.UID))
	}
}

// killFailed is the reason of an end that has to be tried again.
const killFailed = "FailedKillPod"

// shortGrace is what a container gets when its pod is gone from the API.
const shortGrace = 2 * time.Second

// grace is how long the containers may take to end, from now on.
func (w *Worker) grace() time.Duration {
	if w.state.orphan {
		return shortGrace
	}
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if g := w.pod.Spec.TerminationGracePeriodSeconds; g != nil {
		seconds = *g
	}
	if g := w.pod.DeletionGracePeriodSeconds; g != nil && w.pod.DeletionTimestamp != nil {
		seconds = *g
	}
	return time.Duration(max(seconds, 1)) * time.Second
}

// stop ends a container beside the worker: the hook first, then the signal,
// both within the grace, then the kill.
func (w *Worker) stop(ctx context.Context, c *container) {
	c.stopping = true
	grace := w.grace()
	spec, pod, id, hook := w.spec(c.name), string(w.pod.UID), c.current.ID, w.stopHook(c)
	w.event(corev1.EventTypeNormal, "Killing", "Stopping container "+spec.Name)
	w.background(ctx, func(ctx context.Context) func(*Worker) {
		began := time.Now()
		if hook != nil {
			hook(ctx, grace)
		}
		left := max(grace-time.Since(began), shortGrace)
		if grace <= shortGrace {
			left = grace
		}
		one, cancel := context.WithTimeout(ctx, left+stepWithin)
		defer cancel()
		rc, err := w.node.Runtime.StopContainer(one, pod, id, 0, left)
		return func(w *Worker) { w.stopped(c, id, rc, err) }
	})
}

func (w *Worker) stopped(c *container, id string, rc runtime.Container, err error) {
	c.stopping = false
	switch {
	case c.current == nil || c.current.ID != id:
	case err == nil:
		c.current.Container = rc
	case errors.Is(err, runtime.ErrNotFound), errors.Is(err, runtime.ErrLost), errors.Is(err, runtime.ErrNotRunning):
		if c.current.running() {
			c.current.State, c.current.ExitCode, c.current.FinishedAt = runtime.Lost, runtime.ExitLost, w.now()
		}
	default:
		// The next plan stops it again; the pause keeps that from spinning.
		w.state.problem = worse(w.state.problem, killFailed, err.Error(), w.now(), time.Second, 30*time.Second)
		w.event(corev1.EventTypeWarning, killFailed, err.Error())
	}
}

// tearDown takes down what the pod had on the node. Logs stay until the pod's
// object goes.
func (w *Worker) tearDown(ctx context.Context) error {
	uid := string(w.pod.UID)
	gone := w.state.orphan || w.pod.DeletionTimestamp != nil
	err := w.node.Runtime.RemoveSandbox(ctx, uid)
	if err == nil && !w.pod.Spec.HostNetwork {
		err = w.node.Network.Detach(ctx, uid)
	}
	if err == nil && w.node.Volumes != nil {
		err = w.node.Volumes.Remove(ctx, uid)
	}
	if err == nil && gone {
		err = errors.Join(os.RemoveAll(w.dir()), os.RemoveAll(w.logDir()))
	}
	if err != nil {
		return w.setUp(killFailed, fmt.Errorf("take the pod down: %w", err))
	}
	w.state.problem = nil
	w.state.sandbox, w.state.attached, w.state.volumesDone = false, false, false
	w.state.torn = gone || w.state.torn
	if !gone {
		w.state.torn = true
	}
	return nil
}

func (w *Worker) dir() string { return filepath.Join(w.node.Dir, string(w.pod.UID)) }

// logDir is where Kubernetes' tools look for a pod's logs.
func (w *Worker) logDir() string { return LogDir(w.node.LogDir, w.pod) }

// LogDir is the folder of a pod's logs below root.
func LogDir(root string, pod *corev1.Pod) string {
	return filepath.Join(root, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// LogPath is the log of a container's run; n counts runs from 0.
func LogPath(root string, pod *corev1.Pod, container string, n int) string {
	return filepath.Join(LogDir(root, pod), container, fmt.Sprintf("%d.log", n))
}

func (w *Worker) spec(name string) *corev1.Container {
	for _, c := range allContainers(w.pod) {
		if c.Name == name {
			return c
		}
	}
	return &corev1.Container{Name: name}
}
