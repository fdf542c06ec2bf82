package daemon

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// The pace at which a group that failed is started again.
const (
	againFirst = time.Second
	againLast  = 30 * time.Second
)

// Leading tells whether this member leads now and may act, in which term, and
// gives a channel that is closed when that changes.
type Leading func() (term uint64, leads bool, changed <-chan struct{})

// WhileLeading makes one part out of those that run only while this member
// leads: they are started when it begins to lead and stopped, in reverse, when
// it ceases to, also between two terms that follow each other at once. parts
// gives them afresh for each term. If one fails the group is stopped and,
// while the term lasts, started again, later and later; the daemon goes on. A
// group that cannot be stopped in time fails the whole part: two terms of one
// member never act at the same time.
func WhileLeading(name string, log *slog.Logger, leading Leading, parts func(term uint64) []Part) Part {
	return Part{Name: name, Grace: 3 * Grace, Run: func(ctx context.Context, ready func()) error {
		ready()
		for ctx.Err() == nil {
			term, leads, changed := leading()
			if !leads {
				wait(ctx, changed, 0)
				continue
			}
			if err := serveTerm(ctx, log.With("group", name, "term", term), leading, term, parts); err != nil {
				return err
			}
		}
		return nil
	}}
}

// serveTerm runs the group until the term is over or ctx ends.
func serveTerm(ctx context.Context, log *slog.Logger, leading Leading, term uint64, parts func(uint64) []Part) error {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer cancel()
		untilOver(ctx, leading, term)
	}()
	defer func() {
		cancel()
		<-over
	}()
	log.Info("leading")
	defer log.Info("no longer leading")
	for again := againFirst; ctx.Err() == nil; again = min(2*again, againLast) {
		err := Run(ctx, log, nil, parts(term)...)
		var late *LateError
		if errors.As(err, &late) {
			return err
		}
		if err != nil && ctx.Err() == nil {
			log.Error("group failed", "err", err, "again", again)
			wait(ctx, nil, again)
		}
	}
	return nil
}

// untilOver returns when term is over or ctx has ended.
func untilOver(ctx context.Context, leading Leading, term uint64) {
	for ctx.Err() == nil {
		now, leads, changed := leading()
		if !leads || now != term {
			return
		}
		wait(ctx, changed, 0)
	}
}

// wait returns when ctx ends, when c is closed, or after d if d is not zero.
func wait(ctx context.Context, c <-chan struct{}, d time.Duration) {
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-ctx.Done():
	case <-c:
	case <-after:
	}
}
