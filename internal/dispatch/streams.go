package dispatch

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/store"
)

var _ api.PodStreams = (*Server)(nil)

// anyPod finds a pod.
func (s *Server) anyPod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return nil, err
	}
	return store.Get[*corev1.Pod](snap, api.Key{Resource: "pods", Namespace: namespace, Name: name})
}

// pod finds a pod that is bound to a node.
func (s *Server) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	p, err := s.anyPod(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	if p.Spec.NodeName == "" {
		return nil, apierr.BadRequest("pod %s does not have a host assigned", name)
	}
	return p, nil
}

// container checks the name of a container, or finds the one that is meant.
func container(p *corev1.Pod, name string) (string, error) {
	var all []string
	for _, c := range p.Spec.InitContainers {
		all = append(all, c.Name)
	}
	for _, c := range p.Spec.Containers {
		all = append(all, c.Name)
	}
	for _, c := range p.Spec.EphemeralContainers {
		all = append(all, c.Name)
	}
	if name == "" {
		if len(p.Spec.Containers) == 1 {
			return p.Spec.Containers[0].Name, nil
		}
		if d := p.Annotations["kubectl.kubernetes.io/default-container"]; d != "" {
			name = d
		} else {
			return "", apierr.BadRequest("a container name must be specified for pod %s, choose one of: [%s]", p.Name, strings.Join(all, " "))
		}
	}
	for _, c := range all {
		if c == name {
			return name, nil
		}
	}
	return "", apierr.BadRequest("container %s is not valid for pod %s", name, p.Name)
}

// Ready implements api.PodStreams.
func (s *Server) Ready(ctx context.Context, _ api.User, namespace, pod string, name *string) error {
	p, err := s.pod(ctx, namespace, pod)
	if err != nil || name == nil {
		return err
	}
	_, err = container(p, *name)
	return err
}

// Logs implements api.PodStreams.
func (s *Server) Logs(ctx context.Context, _ api.User, namespace, pod string, o *corev1.PodLogOptions) (io.ReadCloser, error) {
	if errs := checkLog(o); len(errs) > 0 {
		return nil, apierr.Invalid("PodLogOptions", pod, errs)
	}
	p, err := s.anyPod(ctx, namespace, pod)
	if err != nil {
		return nil, err
	}
	name, err := container(p, o.Container)
	if err != nil {
		return nil, err
	}
	if p.Spec.NodeName == "" { // nothing has run, so it has said nothing
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err := logReady(p, name, o.Previous); err != nil {
		return nil, err
	}
	r := &wherryv1.LogsRequest{
		Namespace: namespace, Pod: pod, Container: name, Follow: o.Follow, Previous: o.Previous, SinceSeconds: o.SinceSeconds,
		Timestamps: o.Timestamps, TailLines: o.TailLines, LimitBytes: o.LimitBytes,
	}
	if o.SinceTime != nil {
		r.SinceTime = o.SinceTime.UTC().Format(time.RFC3339)
	}
	c, err := s.open(ctx, p.Spec.NodeName, &wherryv1.OpenStream{Open: &wherryv1.OpenStream_Logs{Logs: &wherryv1.LogsOpen{PodUid: string(p.UID), Request: r}}})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, c.close)
	return &bytesReader{c: c}, nil
}

// checkLog refuses options of a log that make no sense.
func checkLog(o *corev1.PodLogOptions) field.ErrorList {
	var errs field.ErrorList
	if n := o.TailLines; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(field.NewPath("tailLines"), *n, "must be greater than or equal to 0"))
	}
	if n := o.LimitBytes; n != nil && *n < 1 {
		errs = append(errs, field.Invalid(field.NewPath("limitBytes"), *n, "must be greater than 0"))
	}
	if n := o.SinceSeconds; n != nil && o.SinceTime != nil {
		errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	} else if n != nil && *n < 1 {
		errs = append(errs, field.Invalid(field.NewPath("sinceSeconds"), *n, "must be greater than 0"))
	}
	return errs
}

// logReady answers for a container that has no log yet as Kubernetes does.
func logReady(p *corev1.Pod, name string, previous bool) error {
	all := append(append([]corev1.ContainerStatus{}, p.Status.InitContainerStatuses...), p.Status.ContainerStatuses...)
	all = append(all, p.Status.EphemeralContainerStatuses...)
	for _, c := range all {
		if c.Name != name {
			continue
		}
		switch {
		case previous && c.LastTerminationState.Terminated == nil:
			return apierr.BadRequest("previous terminated container %q in pod %q not found", name, p.Name)
		case previous:
			return nil
		case c.State.Waiting != nil && c.LastTerminationState.Terminated == nil && c.RestartCount == 0:
			return waiting(c.State.Waiting, name, p.Name)
		}
		return nil
	}
	if previous {
		return apierr.BadRequest("previous terminated container %q in pod %q not found", name, p.Name)
	}
	return apierr.BadRequest("container %q in pod %q is waiting to start: ContainerCreating", name, p.Name)
}

func waiting(w *corev1.ContainerStateWaiting, name, pod string) error {
	reason := w.Reason
	if reason == "" {
		reason = "ContainerCreating"
	}
	switch reason {
	case "ErrImagePull":
		return apierr.BadRequest("container %q in pod %q is waiting to start: image can't be pulled", name, pod)
	case "ImagePullBackOff":
		return apierr.BadRequest("container %q in pod %q is waiting to start: trying and failing to pull image", name, pod)
	}
	return apierr.BadRequest("container %q in pod %q is waiting to start: %s", name, pod, reason)
}

// Dial implements api.PodStreams.
func (s *Server) Dial(ctx context.Context, _ api.User, namespace, pod string, port uint16) (net.Conn, error) {
	p, err := s.pod(ctx, namespace, pod)
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
	return s.dial(ctx, p.Spec.NodeName, &wherryv1.DialOpen{PodUid: string(p.UID), Address: addr})
}

// dial opens a connection from within a pod, from a node, or to its noded.
func (s *Server) dial(ctx context.Context, node string, d *wherryv1.DialOpen) (net.Conn, error) {
	c, err := s.open(ctx, node, &wherryv1.OpenStream{Open: &wherryv1.OpenStream_Dial{Dial: d}})
	if err != nil {
		return nil, err
	}
	// The node's first message is empty bytes when connected, or the error.
	if _, err := c.read(); err != nil {
		c.close()
		return nil, err
	}
	return &conn{bytesReader: bytesReader{c: c}, name: describe(node, d)}, nil
}

// Exec implements api.PodStreams.
func (s *Server) Exec(ctx context.Context, _ api.User, r api.ExecRequest) (int, error) {
	p, err := s.pod(ctx, r.Namespace, r.Pod)
	if err != nil {
		return 0, err
	}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return 0, apierr.BadRequest("cannot exec into a container in a completed pod; current phase is %s", p.Status.Phase)
	}
	name, err := container(p, r.Container)
	if err != nil {
		return 0, err
	}
	start := &wherryv1.ExecStart{
		Namespace: r.Namespace, Pod: r.Pod, Container: name, Command: r.Command,
		Stdin: r.Stdin != nil, Stdout: r.Stdout != nil, Stderr: r.Stderr != nil, Tty: r.TTY,
	}
	c, err := s.open(ctx, p.Spec.NodeName, &wherryv1.OpenStream{Open: &wherryv1.OpenStream_Exec{Exec: &wherryv1.ExecOpen{PodUid: string(p.UID), Start: start}}})
	if err != nil {
		return 0, err
	}
	defer c.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, c.close)
	if r.Stdin != nil {
		go feed(c, r.Stdin) // ends with the request: its reader or the carrier is closed then
	}
	if r.Resize != nil {
		go resize(ctx, c, r.Resize)
	}
	return collect(c, r)
}

func execMessage(m *wherryv1.ExecRequest) *wherryv1.StreamResponse {
	return &wherryv1.StreamResponse{Data: &wherryv1.StreamResponse_Exec{Exec: m}}
}

// feed carries standard input until its end.
func feed(c *carrier, in io.Reader) {
	buf := make([]byte, maxChunk)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			data := append([]byte(nil), buf[:n]...)
			if c.write(execMessage(&wherryv1.ExecRequest{Request: &wherryv1.ExecRequest_Stdin{Stdin: data}})) != nil {
				return
			}
		}
		if err != nil {
			// A carrier that is closed by now needs no end of input.
			_ = c.write(execMessage(&wherryv1.ExecRequest{Request: &wherryv1.ExecRequest_CloseStdin{CloseStdin: true}}))
			return
		}
	}
}

func resize(ctx context.Context, c *carrier, sizes <-chan api.TerminalSize) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			m := &wherryv1.ExecRequest{Request: &wherryv1.ExecRequest_Resize{Resize: &wherryv1.TerminalSize{Width: uint32(size.Width), Height: uint32(size.Height)}}}
			if c.write(execMessage(m)) != nil {
				return
			}
		}
	}
}

// collect writes the output where it belongs until the exit code comes.
func collect(c *carrier, r api.ExecRequest) (int, error) {
	for {
		m, err := c.read()
		if err != nil {
			return 0, err
		}
		switch e := m.GetExec().GetResponse().(type) {
		case *wherryv1.ExecResponse_Stdout:
			err = output(r.Stdout, e.Stdout)
		case *wherryv1.ExecResponse_Stderr:
			err = output(r.Stderr, e.Stderr)
		case *wherryv1.ExecResponse_Exit:
			return int(e.Exit.GetCode()), nil
		}
		if err != nil {
			return 0, fmt.Errorf("write the command's output: %w", err)
		}
	}
}

func output(w io.Writer, b []byte) error {
	if w == nil || len(b) == 0 {
		return nil
	}
	_, err := w.Write(b)
	return err
}
