package podworker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/wherry-project/wherry/internal/runtime"
)

// maxHookOutput bounds what of a hook's output an event shows.
const maxHookOutput = 1024

// started runs the postStart hook beside the worker; a container whose hook
// fails is stopped and restarted by its policy.
func (w *Worker) started(ctx context.Context, spec *corev1.Container, c *container) {
	if spec.Lifecycle == nil || spec.Lifecycle.PostStart == nil {
		return
	}
	id, hook := c.current.ID, spec.Lifecycle.PostStart
	run := w.hook(hook, spec, id)
	ctx = context.WithoutCancel(ctx)
	w.background(ctx, func(ctx context.Context) func(*Worker) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
		defer cancel()
		err := run(ctx)
		return func(w *Worker) {
			if err == nil || c.current == nil || c.current.ID != id || !c.current.running() {
				return
			}
			w.event(corev1.EventTypeWarning, "FailedPostStartHook", fmt.Sprintf("PostStartHook failed: %v", err))
			w.stop(ctx, c)
		}
	})
}

// stopHook gives the preStop hook of a running container, bounded by the grace,
// or nil.
func (w *Worker) stopHook(c *container) func(ctx context.Context, grace time.Duration) {
	spec := w.spec(c.name)
	if spec.Lifecycle == nil || spec.Lifecycle.PreStop == nil {
		return nil
	}
	run := w.hook(spec.Lifecycle.PreStop, spec, c.current.ID)
	return func(ctx context.Context, grace time.Duration) {
		ctx, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		if err := run(ctx); err != nil && !errors.Is(err, runtime.ErrNotRunning) {
			w.tell(func(w *Worker) {
				w.event(corev1.EventTypeWarning, "FailedPreStopHook", fmt.Sprintf("PreStopHook failed: %v", err))
			})
		}
	}
}

// hook gives what runs a hook; it uses nothing of the worker that changes.
func (w *Worker) hook(h *corev1.LifecycleHandler, spec *corev1.Container, id string) func(context.Context) error {
	pod, address, rt := string(w.pod.UID), w.state.address.String(), w.node.Runtime
	switch {
	case h.Exec != nil:
		return func(ctx context.Context) error {
			var out bytes.Buffer
			code, err := rt.Exec(ctx, pod, id, runtime.ExecConfig{Args: h.Exec.Command}, runtime.Streams{Stdout: &out, Stderr: &out})
			if err == nil && code != 0 {
				text := out.String()
				err = fmt.Errorf("command exited with %d: %s", code, text[:min(len(text), maxHookOutput)])
			}
			return err
		}
	case h.HTTPGet != nil:
		return func(ctx context.Context) error { return get(ctx, h.HTTPGet, spec, address) }
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
		return fmt.Errorf("a hook of this kind cannot be run; exec, httpGet and sleep can")
	}
}

// get makes the request of a hook.
func get(ctx context.Context, h *corev1.HTTPGetAction, spec *corev1.Container, address string) error {
	port, err := portOf(spec, h.Port)
	if err != nil {
		return err
	}
	host := h.Host
	if host == "" {
		host = address
	}
	scheme := "http"
	if h.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	url := scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port)) + h.Path
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	for _, header := range h.HTTPHeaders {
		r.Header.Set(header.Name, header.Value)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	if err := answer.Body.Close(); err != nil {
		return err
	}
	if answer.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s answered %s", url, answer.Status)
	}
	return nil
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
