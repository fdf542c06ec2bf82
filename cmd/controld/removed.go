package main

import (
	"context"
	"fmt"
	"time"

	"github.com/wherry-project/wherry/internal/cluster"
)

// A member that was removed while it ran hears of it with the state. One that
// was removed while it was down does not: the others answer it no more, and its
// own state says that it is a member. So it asks them when it finds no leader.

const (
	// leaderlessLong is for how long there is no leader before the others are
	// asked.
	leaderlessLong = 10 * time.Second
	// askRemovedWithin bounds the asking of one of them.
	askRemovedWithin = 5 * time.Second
)

// leaderless is since when there has been no leader.
type leaderless struct{ since time.Time }

// long reports whether there has been no leader for long.
func (l *leaderless) long(led bool, now time.Time) bool {
	if led {
		l.since = now
	}
	return now.Sub(l.since) >= leaderlessLong
}

// askRemoved asks the others to let this member in, as they do with each, and
// gives the answer that it was removed. What else they say means nothing here.
func (d *controld) askRemoved(ctx context.Context, m member) error {
	for _, address := range m.but(d.address) {
		asking, cancel := context.WithTimeout(ctx, askRemovedWithin)
		err := d.askEntryAt(asking, address)
		cancel()
		if cluster.Removed(err) {
			return err
		}
	}
	return nil
}

// removed says what is to be done about it.
func (d *controld) removed(err error) error {
	return fmt.Errorf("%w; delete %s and join again if this machine is to come back", err, d.cfg.DataDir)
}
