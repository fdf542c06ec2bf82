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
	// Newest and Previous are the numbers of the runs whose logs are meant by
	// these words, negative if there is none.
	Newest, Previous int
	// Ended is closed when the newest run has ended; nil if there is none.
	Ended <-chan struct{}
	NetNS string
}

// Info asks the worker about a container; "" asks about the pod alone.
func (w *Worker) Info(ctx context.Context, container string) (Info, error) {
	got := make(chan *Info, 1)
	w.tell(ctx, func(w *Worker) { got <- w.info(container) })
	gone := apierr.New(apierr.ErrNotFound, "the pod is no longer on this node")
	select {
	case info := <-got:
		if info == nil {
			return Info{}, apierr.New(apierr.ErrBadRequest, "container %s is not valid for this pod", container)
		}
		return *info, nil
	case <-w.done:
		return Info{}, gone
	case <-ctx.Done():
		return Info{}, fmt.Errorf("ask the pod's worker: %w", ctx.Err())
	}
}

// info is nil if there is no such container.
func (w *Worker) info(container string) *Info {
	info := &Info{Pod: w.pod, NetNS: w.state.netns, Newest: -1, Previous: -1}
	c := w.state.containers[container]
	if c == nil {
		if container == "" {
			return info
		}
		return nil
	}
	info.Newest, info.Previous = c.starts-1, c.starts-2
	if c.current == nil {
		info.Previous = c.starts - 1 // it ended and runs once more
		return info
	}
	info.ID, info.Running, info.Ended = c.current.ID, c.current.running(), c.current.end()
	if c.current.ended() && again(w.pod, w.spec(container), c) && !ending(w.pod, &w.state) {
		info.Previous = c.starts - 1 // a restart is due: this is the last one
	}
	return info
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
