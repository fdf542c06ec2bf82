package podworker

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/apierr"
)

// Info is what streams must know of a container.
type Info struct {
	Pod *corev1.Pod
	// ID is the newest run's in the runtime; empty if it never ran.
	ID      string
	Running bool
	// Runs counts the runs that began; the newest is number Runs-1.
	Runs int
	// Ended is closed when the newest run has ended.
	Ended <-chan struct{}
	NetNS string
}

// Info asks the worker about a container; "" asks about the pod alone.
func (w *Worker) Info(ctx context.Context, container string) (Info, error) {
	got := make(chan Info, 1)
	found := make(chan bool, 1)
	ask := func(w *Worker) {
		info := Info{Pod: w.pod, NetNS: w.state.netns}
		c := w.state.containers[container]
		if c != nil {
			info.Runs = c.starts
			if c.current != nil {
				info.ID, info.Running, info.Ended = c.current.ID, c.current.running(), c.current.end()
			}
		}
		found <- c != nil || container == ""
		got <- info
	}
	select {
	case w.inbox <- ask:
	case <-w.done:
		return Info{}, apierr.New(apierr.ErrNotFound, "the pod is no longer on this node")
	case <-ctx.Done():
		return Info{}, ctx.Err()
	}
	select {
	case ok := <-found:
		if !ok {
			return Info{}, apierr.New(apierr.ErrBadRequest, "container %s is not valid for this pod", container)
		}
		return <-got, nil
	case <-w.done:
		return Info{}, apierr.New(apierr.ErrNotFound, "the pod is no longer on this node")
	case <-ctx.Done():
		return Info{}, fmt.Errorf("ask the pod's worker: %w", ctx.Err())
	}
}

// end gives a channel that is closed when the run has ended.
func (r *run) end() <-chan struct{} {
	if r.over == nil {
		r.over = make(chan struct{})
		r.closeEnded()
	}
	return r.over
}

// closeEnded tells those who wait for the end of a run that has ended.
func (r *run) closeEnded() {
	if r == nil || r.over == nil || !r.ended() {
		return
	}
	select {
	case <-r.over:
	default:
		close(r.over)
	}
}
