package podworker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/shim"
)

// start makes the container anew and starts it.
func (w *Worker) start(ctx context.Context, c *container) error {
	one, cancel := context.WithTimeout(ctx, stepWithin)
	defer cancel()
	spec := w.spec(c.name)
	cfg, err := w.containerConfig(one, spec, c)
	if err == nil {
		err = w.join(spec, &cfg)
	}
	if err != nil {
		w.cannot(c, "CreateContainerConfigError", err)
		return nil
	}
	if err := w.dropOld(one, c); err != nil {
		w.cannot(c, "CreateContainerError", err)
		return err
	}
	release, err := w.slot(one)
	if err != nil {
		w.cannot(c, "CreateContainerError", err)
		return err
	}
	defer release()
	began := time.Now()
	rc, err := w.node.Runtime.StartContainer(one, string(w.pod.UID), cfg)
	var failed *runtime.StartError
	switch {
	case err == nil:
	case errors.As(err, &failed):
		w.notStarted(c, cfg, began, failed)
		return nil
	case ctx.Err() != nil:
		return nil // noded ends; its successor looks what there is
	case errors.Is(err, runtime.ErrLost), errors.Is(err, runtime.ErrNotFound):
		w.state.doubt = true
		c.config = worse(c.config, "CreateContainerError", err.Error(), 200*time.Millisecond, 30*time.Second)
		return nil
	case errors.Is(err, runtime.ErrExists):
		// Left by a start that nobody saw succeed.
		if rerr := w.node.Runtime.RemoveContainer(one, string(w.pod.UID), cfg.ID); rerr != nil {
			err = rerr
		}
		fallthrough
	default:
		c.image = nil // it may be that the image went
		w.cannot(c, "CreateContainerError", err)
		return err
	}
	w.running(c, &run{Container: rc, imageID: cfg.Labels[labelImageID], image: cfg.Labels[labelImage]})
	w.state.begun = w.state.begun || !isInit(w.pod, c.name) && !isEphemeral(w.pod, c.name)
	c.has = spec.Resources.DeepCopy()
	w.event(corev1.EventTypeNormal, "Created", "Created container: "+c.name)
	w.event(corev1.EventTypeNormal, "Started", "Started container "+c.name)
	w.postStart(ctx, spec, c)
	return nil
}

// running makes a run the container's newest.
func (w *Worker) running(c *container, r *run) {
	if c.current != nil {
		c.last = c.current
	}
	c.current, c.config, c.kill = r, nil, nil
	c.starts++
	c.probeReady, c.probeStarted, c.hooking = false, false, false
}

// cannot notes why a container cannot be made now.
func (w *Worker) cannot(c *container, reason string, err error) {
	c.config = worse(c.config, reason, err.Error(), time.Second, 30*time.Second)
	w.event(corev1.EventTypeWarning, "Failed", "Error: "+err.Error())
}

// notStarted notes a run whose program could not be started.
func (w *Worker) notStarted(c *container, cfg runtime.ContainerConfig, began time.Time, err *runtime.StartError) {
	w.event(corev1.EventTypeNormal, "Created", "Created container: "+c.name)
	w.event(corev1.EventTypeWarning, "Failed", "Error: "+err.Message)
	w.running(c, &run{
		Container: runtime.Container{
			ID: cfg.ID, Name: c.name, State: runtime.Exited, ExitCode: runtime.ExitStartError, StartedAt: began, FinishedAt: time.Now(),
		},
		reason: "StartError", message: err.Message, imageID: cfg.Labels[labelImageID], image: cfg.Labels[labelImage],
	})
	w.ended(c)
}

// dropOld clears away the runs before the newest one: that one is kept for its
// status and its log.
func (w *Worker) dropOld(ctx context.Context, c *container) error {
	old := c.last
	if old == nil || old.ID == "" || c.current == nil || c.current.ID == old.ID {
		return nil
	}
	if err := w.node.Runtime.RemoveContainer(ctx, string(w.pod.UID), old.ID); err != nil {
		return fmt.Errorf("remove an ended run of container %q: %w", c.name, err)
	}
	remove := []string{w.terminationFile(old.ID)}
	log := LogPath(w.node.LogDir, w.pod, c.name, c.starts-2)
	rotated, err := shim.RotatedLogs(log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("find old logs of container %q: %w", c.name, err)
	}
	for _, name := range append(append(remove, log), rotated...) {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove an ended run of container %q: %w", c.name, err)
		}
	}
	return nil
}

// retire notes how a run ended, and when the next one may begin. The end is
// reported before that.
func (w *Worker) retire(c *container) {
	r := c.current
	switch {
	case r.State == runtime.Lost:
		r.reason, r.message = "ContainerStatusUnknown", lostMessage
	case r.OOMKilled:
		r.reason = "OOMKilled"
	case r.ExitCode == 0:
		r.reason = "Completed"
	default:
		r.reason = "Error"
	}
	spec := w.spec(c.name)
	if r.message == "" {
		r.message = w.terminationMessage(spec, r)
	}
	if spec.ImagePullPolicy == corev1.PullAlways {
		c.image = nil
	}
	w.ended(c)
}

// ended notes that the newest run is over: the pause before the next one counts
// from its end, and grows with each end in a row.
func (w *Worker) ended(c *container) {
	r := c.current
	c.probeReady, c.probeStarted, c.hooking, c.kill = false, false, false, nil
	length := r.FinishedAt.Sub(r.StartedAt)
	if length >= goodRun || r.State == runtime.Lost && length > lostRun {
		c.fails = 0
	}
	delay := backOff(c.fails)
	c.again = r.FinishedAt.Add(delay)
	c.fails = min(c.fails+1, maxFails)
	restart := again(w.pod, w.spec(c.name), c) && !ending(w.pod, &w.state)
	if restart && delay > 0 {
		w.event(corev1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", c.name, w.pod.Name, w.pod.Namespace, w.pod.UID))
	}
	if restart && delay == 0 {
		w.report() // the next run would hide it
	}
}

// stop ends a container beside the worker: the hook first, then the signal,
// both within the grace, then the kill. Once more with a shorter grace, it
// hurries the stop that is under way.
func (w *Worker) stop(ctx context.Context, c *container) {
	spec, pod, id := w.spec(c.name), string(w.pod.UID), c.current.ID
	whole, message := grace(w.pod, &w.state), "Stopping container "+spec.Name
	left := whole
	switch end := ending(w.pod, &w.state) || over(w.pod, &w.state); {
	case end && (w.state.ending.IsZero() || c.stopping != nil):
		w.state.ending = time.Now()
	case end:
		left = max(whole-time.Since(w.state.ending), min(whole, shortGrace))
	case c.kill != nil:
		message = c.kill.message
		if c.kill.grace != nil {
			whole, left = *c.kill.grace, *c.kill.grace
		}
	default:
		message = fmt.Sprintf("Container %s definition changed, will be restarted", c.name)
	}
	var hook func(context.Context, time.Duration)
	if c.stopping != nil {
		c.stopping.cancel()
	} else {
		hook = w.preStop(c)
		w.event(corev1.EventTypeNormal, "Killing", message)
	}
	ctx, cancel := context.WithCancel(ctx)
	this := &stopping{grace: whole, cancel: cancel}
	c.stopping = this
	w.background(ctx, func(ctx context.Context) func(*Worker) {
		began := time.Now()
		if hook != nil {
			hook(ctx, left)
		}
		left := max(left-time.Since(began), min(left, shortGrace))
		one, cancel := context.WithTimeout(ctx, left+stepWithin)
		defer cancel()
		rc, err := w.node.Runtime.StopContainer(one, pod, id, 0, left)
		return func(w *Worker) {
			if c.stopping == this {
				w.stopped(c, id, rc, err)
			}
		}
	})
}

func (w *Worker) stopped(c *container, id string, rc runtime.Container, err error) {
	c.stopping.cancel()
	c.stopping = nil
	switch {
	case c.current == nil || c.current.ID != id || !c.current.running():
	case err == nil && rc.State != runtime.Running:
		c.current.Container = rc
	case errors.Is(err, runtime.ErrNotFound), errors.Is(err, runtime.ErrLost), errors.Is(err, runtime.ErrNotRunning):
		c.current.lose(time.Now())
		w.state.doubt = true
	default:
		if err == nil {
			err = errors.New("the container still runs")
		}
		// The next plan stops it again; the pause keeps that from spinning.
		w.state.problem = worse(w.state.problem, killFailed, err.Error(), time.Second, 30*time.Second)
		w.event(corev1.EventTypeWarning, killFailed, fmt.Sprintf("error killing pod: stop container %q: %v", c.name, err))
	}
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
