package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/images"
	"github.com/wherry-project/wherry/internal/netns"
	"github.com/wherry-project/wherry/internal/podworker"
	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/streams"
)

// info asks a pod's worker about a container.
func (n *Node) info(ctx context.Context, uid, container string) (podworker.Info, error) {
	n.mu.Lock()
	w := n.workers[uid]
	n.mu.Unlock()
	if w == nil {
		return podworker.Info{}, apierr.New(apierr.ErrNotFound, "pod %s is not on node %s", uid, n.cfg.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return w.Info(ctx, container)
}

// Logs implements nodelink.Streams.
func (n *Node) Logs(ctx context.Context, uid string, r *wherryv1.LogsRequest, out io.Writer) error {
	info, err := n.info(ctx, uid, r.GetContainer())
	if err != nil {
		return err
	}
	run, ended := info.Newest, info.Ended
	if r.GetPrevious() {
		run, ended = info.Previous, nil
	}
	if run < 0 && r.GetPrevious() {
		return apierr.BadRequest("previous terminated container %q in pod %q not found", r.GetContainer(), r.GetPod())
	} else if run < 0 {
		return apierr.BadRequest("container %q in pod %q is waiting to start: ContainerCreating", r.GetContainer(), r.GetPod())
	}
	if ended == nil {
		over := make(chan struct{})
		close(over)
		ended = over
	}
	o := streams.Options{Follow: r.GetFollow(), Timestamps: r.GetTimestamps(), Tail: -1, Limit: -1}
	if r.TailLines != nil {
		o.Tail = r.GetTailLines()
	}
	if r.LimitBytes != nil {
		o.Limit = r.GetLimitBytes()
	}
	switch {
	case r.SinceSeconds != nil:
		o.Since = time.Now().Add(-time.Duration(r.GetSinceSeconds()) * time.Second)
	case r.GetSinceTime() != "":
		if o.Since, err = time.Parse(time.RFC3339, r.GetSinceTime()); err != nil {
			return apierr.BadRequest("sinceTime %q is not RFC 3339: %v", r.GetSinceTime(), err)
		}
	}
	err = streams.Logs(ctx, podworker.LogPath(n.cfg.LogDir, info.Pod, r.GetContainer(), run), ended, o, out)
	if errors.Is(err, os.ErrNotExist) {
		return apierr.New(apierr.ErrNotFound, "the log of container %q in pod %q is not there (it never started, or its logs were removed)", r.GetContainer(), r.GetPod())
	}
	return err
}

// Exec implements nodelink.Streams.
func (n *Node) Exec(ctx context.Context, uid string, start *wherryv1.ExecStart, next func() (*wherryv1.ExecRequest, error), send func(*wherryv1.ExecResponse) error) (int32, error) {
	info, err := n.info(ctx, uid, start.GetContainer())
	if err != nil {
		return 0, err
	}
	if !info.Running {
		return 0, apierr.BadRequest("container %s of pod %s is not running", start.GetContainer(), start.GetPod())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, feed := io.Pipe()
	if !start.GetStdin() {
		in.Close() // whatever comes is for nobody
	}
	sizes := make(chan runtime.Size, 4)
	go pump(ctx, cancel, next, feed, sizes) // ends with the stream, which the caller ends
	defer in.Close()
	s := runtime.Streams{}
	if start.GetStdin() {
		s.Stdin = in
	}
	if start.GetStdout() {
		s.Stdout = sender(func(b []byte) error {
			return send(&wherryv1.ExecResponse{Response: &wherryv1.ExecResponse_Stdout{Stdout: b}})
		})
	}
	if start.GetStderr() && !start.GetTty() {
		s.Stderr = sender(func(b []byte) error {
			return send(&wherryv1.ExecResponse{Response: &wherryv1.ExecResponse_Stderr{Stderr: b}})
		})
	}
	if start.GetTty() {
		s.Resize = sizes
	}
	if len(start.GetCommand()) == 0 {
		err := n.parts.Runtime.Attach(ctx, uid, info.ID, s)
		return 0, streamError(err)
	}
	code, err := n.parts.Runtime.Exec(ctx, uid, info.ID, runtime.ExecConfig{Args: start.GetCommand(), TTY: start.GetTty()}, s)
	return int32(code), streamError(err) //nolint:gosec // exit codes are 0-255
}

func streamError(err error) error {
	var cannot *runtime.StartError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &cannot):
		return apierr.Internal(fmt.Errorf("error executing command in container: %s", cannot.Message))
	case errors.Is(err, runtime.ErrNotFound), errors.Is(err, runtime.ErrNotRunning):
		return apierr.New(apierr.ErrNotFound, "container not found or not running: %v", err)
	}
	return err
}

// pump takes what the client sends.
func pump(ctx context.Context, gone context.CancelFunc, next func() (*wherryv1.ExecRequest, error), in *io.PipeWriter, sizes chan<- runtime.Size) {
	defer in.Close()
	defer gone()
	for {
		m, err := next()
		if err != nil {
			return
		}
		switch r := m.GetRequest().(type) {
		case *wherryv1.ExecRequest_Stdin:
			if _, err := in.Write(r.Stdin); err != nil {
				continue // the program reads no more; the rest is for nobody
			}
		case *wherryv1.ExecRequest_CloseStdin:
			in.Close()
		case *wherryv1.ExecRequest_Resize:
			select {
			case sizes <- runtime.Size{Width: uint16(r.Resize.GetWidth()), Height: uint16(r.Resize.GetHeight())}: //nolint:gosec // sizes of terminals fit
			case <-ctx.Done():
			default: // a newer one follows
			}
		}
	}
}

// sender is a Writer that sends copies.
type sender func([]byte) error

// Write implements io.Writer.
func (f sender) Write(p []byte) (int, error) {
	if err := f(append([]byte(nil), p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Dial implements nodelink.Streams: from within the pod, or from the node.
func (n *Node) Dial(ctx context.Context, uid, address string) (net.Conn, error) {
	path := ""
	if uid != "" {
		info, err := n.info(ctx, uid, "")
		if err != nil {
			return nil, err
		}
		if path = info.NetNS; path == "" && !info.Pod.Spec.HostNetwork {
			return nil, apierr.Unavailable("pod %s has no network yet", info.Pod.Name)
		}
	}
	var conn net.Conn
	dial := func() (err error) {
		d := net.Dialer{Timeout: 10 * time.Second, FallbackDelay: -1}
		conn, err = d.DialContext(ctx, "tcp", address) // an address, so no goroutine looks a name up
		return err
	}
	if err := netns.Do(path, dial); err != nil {
		return nil, apierr.Unavailable("%v", err)
	}
	return conn, nil
}

// nodeImage is an image as the API shows it.
func nodeImage(img images.Image) *wherryv1.NodeImage {
	return &wherryv1.NodeImage{Id: img.ID, Tags: img.RepoTags, Digests: img.RepoDigests, Size: img.Size}
}

// ListImages implements nodelink.Streams.
func (n *Node) ListImages(context.Context) ([]*wherryv1.NodeImage, error) {
	var out []*wherryv1.NodeImage
	for _, img := range n.parts.Images.List() {
		out = append(out, nodeImage(img))
	}
	return out, nil
}

// PullImage implements nodelink.Streams.
func (n *Node) PullImage(ctx context.Context, reference string) ([]*wherryv1.NodeImage, error) {
	img, err := n.parts.Images.Pull(ctx, reference)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.cfg.Name, err)
	}
	signal(n.nodeChanged)
	return []*wherryv1.NodeImage{nodeImage(img)}, nil
}

// RemoveImage implements nodelink.Streams.
func (n *Node) RemoveImage(ctx context.Context, reference string) (bool, error) {
	img, ok := n.parts.Images.Lookup(reference)
	if !ok {
		return false, nil
	}
	if pod := n.user(img); pod != "" {
		return false, apierr.Conflict("images", reference, fmt.Errorf("it is used by pod %s on node %s", pod, n.cfg.Name))
	}
	if err := n.parts.Images.Remove(ctx, reference); err != nil {
		return false, err
	}
	signal(n.nodeChanged)
	return true, nil
}

// user names a pod that uses an image, if one does.
func (n *Node) user(img images.Image) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pods {
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, c := range append(append([]corev1.Container{}, p.Spec.InitContainers...), p.Spec.Containers...) {
			if other, ok := n.parts.Images.Lookup(c.Image); ok && other.ID == img.ID {
				return p.Namespace + "/" + p.Name
			}
		}
	}
	return ""
}

// ImportImages implements nodelink.Streams.
func (n *Node) ImportImages(ctx context.Context, archive io.Reader) ([]*wherryv1.NodeImage, error) {
	list, err := n.parts.Images.Import(ctx, archive)
	if err != nil {
		return nil, apierr.BadRequest("node %s: %v", n.cfg.Name, err)
	}
	var out []*wherryv1.NodeImage
	for _, img := range list {
		out = append(out, nodeImage(img))
	}
	signal(n.nodeChanged)
	return out, nil
}

// ExportImage implements nodelink.Streams.
func (n *Node) ExportImage(ctx context.Context, reference string, archive io.Writer) error {
	return n.parts.Images.Export(ctx, archive, reference)
}
