package podworker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/wherry-project/wherry/internal/probes"
	"github.com/wherry-project/wherry/internal/runtime"
)

const (
	// maxHookOutput bounds what of a hook's output an event shows.
	maxHookOutput = 1024
	// hookWithin bounds a postStart hook.
	hookWithin = 10 * time.Minute
	// hookAgent and probeAgent are what programs see of us.
	hookAgent  = "kube-lifecycle/1.34"
	probeAgent = "kube-probe/1.34"
)

// postStart runs the hook beside the worker, if there is one. The container
// waits until it is over; one whose hook fails is stopped, and restarted by its
// policy.
func (w *Worker) postStart(ctx context.Context, spec *corev1.Container, c *container) {
	if spec.Lifecycle == nil || spec.Lifecycle.PostStart == nil {
		return
	}
	id, run := c.current.ID, w.hook(spec.Lifecycle.PostStart, spec, c.current.ID)
	c.hooking = true
	w.background(ctx, func(ctx context.Context) func(*Worker) {
		ctx, cancel := context.WithTimeout(ctx, hookWithin)
		defer cancel()
		err := run(ctx)
		return func(w *Worker) {
			if c.current == nil || c.current.ID != id || !c.current.running() {
				return
			}
			c.hooking = false
			if err != nil {
				w.event(corev1.EventTypeWarning, "FailedPostStartHook", fmt.Sprintf("PostStartHook failed: %v", err))
				c.kill = &kill{message: "FailedPostStartHook"}
			}
		}
	})
}

// preStop gives the hook of a running container, bounded by the grace, or nil.
func (w *Worker) preStop(c *container) func(ctx context.Context, grace time.Duration) {
	spec := w.spec(c.name)
	if spec.Lifecycle == nil || spec.Lifecycle.PreStop == nil {
		return nil
	}
	run, ended := w.hook(spec.Lifecycle.PreStop, spec, c.current.ID), c.current.end()
	return func(whole context.Context, grace time.Duration) {
		ctx, cancel := context.WithTimeout(whole, grace)
		defer cancel()
		gone := make(chan struct{})
		defer close(gone)
		w.group.Go(func() { // a container that has ended needs no hook
			select {
			case <-ended:
				cancel()
			case <-gone:
			}
		})
		err := run(ctx)
		if err == nil || errors.Is(err, runtime.ErrNotRunning) || errors.Is(err, context.Canceled) {
			return
		}
		w.tell(whole, func(w *Worker) {
			w.event(corev1.EventTypeWarning, "FailedPreStopHook", fmt.Sprintf("PreStopHook failed: %v", err))
		})
	}
}

// hook gives what runs a hook; it uses nothing of the worker that changes.
func (w *Worker) hook(h *corev1.LifecycleHandler, spec *corev1.Container, id string) func(context.Context) error {
	address := w.address()
	switch {
	case h.Exec != nil:
		run := w.command(id, h.Exec.Command, maxHookOutput)
		return func(ctx context.Context) error {
			code, text, err := run(ctx)
			if err == nil && code != 0 {
				err = fmt.Errorf("command exited with %d: %s", code, text)
			}
			return err
		}
	case h.HTTPGet != nil:
		return func(ctx context.Context) error {
			target, err := httpTarget(h.HTTPGet, spec, address, hookAgent)
			if err == nil {
				_, _, err = target.Get(ctx)
			}
			return err
		}
	case h.Sleep != nil:
		return func(ctx context.Context) error {
			t := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
			defer t.Stop()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-t.C:
				return nil
			}
		}
	}
	return func(context.Context) error {
		return errors.New("a hook of this kind cannot be run; exec, httpGet and sleep can")
	}
}

// command gives what runs a command in a container, with the beginning of its
// output.
func (w *Worker) command(id string, args []string, limit int) func(context.Context) (int, string, error) {
	pod, rt := string(w.pod.UID), w.node.Runtime
	return func(ctx context.Context) (int, string, error) {
		out := &head{limit: limit}
		code, err := rt.Exec(ctx, pod, id, runtime.ExecConfig{Args: args}, runtime.Streams{Stdout: out, Stderr: out})
		return code, out.String(), err
	}
}

// httpTarget is the request of a hook or probe; host is used if it names none.
func httpTarget(h *corev1.HTTPGetAction, spec *corev1.Container, host, agent string) (probes.HTTP, error) {
	port, err := portOf(spec, h.Port)
	if err != nil {
		return probes.HTTP{}, err
	}
	out := probes.HTTP{Scheme: "http", Host: h.Host, Port: port, Path: h.Path, Header: http.Header{}, Agent: agent}
	if out.Host == "" {
		out.Host = host
	}
	if h.Scheme == corev1.URISchemeHTTPS {
		out.Scheme = "https"
	}
	for _, one := range h.HTTPHeaders {
		out.Header.Add(one.Name, one.Value)
	}
	return out, nil
}

func portOf(spec *corev1.Container, p intstr.IntOrString) (int, error) {
	if p.Type == intstr.Int {
		return p.IntValue(), nil
	}
	for _, cp := range spec.Ports {
		if cp.Name == p.StrVal {
			return int(cp.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil {
		return n, nil
	}
	return 0, fmt.Errorf("container %q has no port named %q", spec.Name, p.StrVal)
}
