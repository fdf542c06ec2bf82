// Package daemon runs a program made of parts: it starts them in order, each
// when the one before is ready, stops them in reverse order with a deadline
// each, tells the service manager, and keeps one group of parts running only
// while this member leads.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// Grace is how long a part may take to stop if it does not say.
const Grace = 10 * time.Second

// Part is one part of a program.
type Part struct {
	// Name is for errors and logs.
	Name string
	// Run opens the part, calls ready once others may use it, works until ctx
	// ends, closes it, and returns nil; or it returns earlier because it
	// failed, which stops the whole. The work it does after ctx has ended has
	// Grace to finish.
	Run func(ctx context.Context, ready func()) error
	// Grace bounds stopping; zero means [Grace].
	Grace time.Duration
}

// Ready makes a part of a function that others can use, or need not wait for,
// from the beginning.
func Ready(name string, run func(ctx context.Context) error) Part {
	return Part{Name: name, Run: func(ctx context.Context, ready func()) error {
		ready()
		return run(ctx)
	}}
}

// started is a part that runs.
type started struct {
	part   Part
	cancel context.CancelFunc
	done   chan struct{} // closed when Run has returned
	err    error         // what it returned; read after done
	told   bool          // Run knows the error already
}

// Run starts the parts in order and, when all are ready, calls up, if not nil.
// It returns when ctx has ended or a part has, after it has stopped the parts
// that run in reverse order: with nil if ctx ended and all stopped well and in
// time. A part that does not stop in time is named in the error and left behind.
func Run(ctx context.Context, log *slog.Logger, up func(), parts ...Part) error {
	failed := make(chan *started, len(parts))
	var running []*started
	err := func() error {
		for _, p := range parts {
			s, ready := start(ctx, p, failed)
			running = append(running, s)
			begin := time.Now()
			select {
			case <-ready:
				log.Debug("part is ready", "part", p.Name, "took", time.Since(begin))
			case f := <-failed:
				return f.failure()
			case <-ctx.Done():
				return nil
			}
		}
		if up != nil {
			up()
		}
		select {
		case f := <-failed:
			return f.failure()
		case <-ctx.Done():
			return nil
		}
	}()
	if err != nil {
		log.Error("stopping", "err", err)
	}
	for i := len(running) - 1; i >= 0; i-- {
		err = errors.Join(err, running[i].stop())
	}
	return err
}

// start runs a part until its own cancel, not until the parent's end: the order
// of stopping is Run's business.
func start(parent context.Context, p Part, failed chan<- *started) (*started, <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	s := &started{part: p, cancel: cancel, done: make(chan struct{})}
	ready := make(chan struct{})
	go func() {
		defer close(s.done)
		s.err = guard(ctx, p, sync.OnceFunc(func() { close(ready) }))
		if ctx.Err() == nil {
			failed <- s
		}
	}()
	return s, ready
}

// guard turns a panic of a part into its error, so that the others are still
// stopped in order.
func guard(ctx context.Context, p Part, ready func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return p.Run(ctx, ready)
}

// failure says how a part ended that nobody stopped.
func (s *started) failure() error {
	<-s.done
	s.told = true
	if s.err == nil {
		return fmt.Errorf("%s: ended by itself", s.part.Name)
	}
	return fmt.Errorf("%s: %w", s.part.Name, s.err)
}

// stop ends a part and waits for it, for as long as it is given.
func (s *started) stop() error {
	s.cancel()
	grace := s.part.Grace
	if grace == 0 {
		grace = Grace
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-s.done:
	case <-late.C:
		return fmt.Errorf("%s: %w", s.part.Name, &LateError{After: grace})
	}
	if s.told || s.err == nil || errors.Is(s.err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", s.part.Name, s.err)
}

// LateError says that a part was told to stop and did not: it may still run.
type LateError struct{ After time.Duration }

// Error names the time that was given.
func (e *LateError) Error() string { return fmt.Sprintf("did not stop within %v", e.After) }
