package raftstore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// slowAfter is how long a write or sync may take before the disk counts as
	// slow, and calmFor how long none must have taken so long before it counts
	// as well again.
	slowAfter = time.Second
	calmFor   = 30 * time.Second
	// watchEvery is how often somebody looks.
	watchEvery = 250 * time.Millisecond
)

// diskWatch knows how long the disk takes.
type diskWatch struct {
	mu       sync.Mutex
	now      map[int]use // what is on its way
	number   int
	worst    time.Duration // since take was called
	syncs    [3]took       // the last ones
	finished func(time.Duration)
}

// use is a use of the disk that is on its way.
type use struct {
	start time.Time
	sync  bool
}

// took is how long something took that ended at a time.
type took struct {
	d  time.Duration
	at time.Time
}

// begin is called before the disk is written to, or synced, and what it gives
// afterwards.
func (w *diskWatch) begin(sync bool) (done func()) {
	start := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now == nil {
		w.now = map[int]use{}
	}
	w.number++
	n := w.number
	w.now[n] = use{start, sync}
	return func() {
		end := time.Now()
		d := end.Sub(start)
		w.mu.Lock()
		delete(w.now, n)
		w.worst = max(w.worst, d)
		if sync {
			w.syncs = [3]took{{d, end}, w.syncs[0], w.syncs[1]}
		}
		f := w.finished
		w.mu.Unlock()
		if f != nil {
			f(d)
		}
	}
}

// observe lets a function be called with how long each use of the disk took.
func (w *diskWatch) observe(f func(time.Duration)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finished = f
}

// take gives the longest time since the last call, of what is still on its way
// too.
func (w *diskWatch) take(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.worst
	w.worst = 0
	for _, u := range w.now {
		d = max(d, now.Sub(u.start))
	}
	return d
}

// sync is how long a sync takes these days: as two of the last three did at
// least, and as long as one that is on its way has taken if that is long. (A
// single one that took long says nothing of the next.)
func (w *diskWatch) sync(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var last [3]time.Duration
	for i, s := range w.syncs {
		if !s.old(now) {
			last[i] = s.d
		}
	}
	slices.Sort(last[:])
	d := last[1]
	for _, u := range w.now {
		if so := now.Sub(u.start); u.sync && so >= slowAfter {
			d = max(d, so)
		}
	}
	return d
}

// old reports whether it says nothing of the next time. What takes long is
// remembered for longer: it may not be done more often.
func (t took) old(now time.Time) bool { return now.Sub(t.at) > calmFor+2*electionSyncs*t.d }

// diskState turns what is measured into news.
type diskState struct {
	path string
	now  DiskNews
	bad  time.Time // when the disk was last slow
}

// look gives news, if there are any.
func (d *diskState) look(at time.Time, took time.Duration, full bool) (news DiskNews, ok bool) {
	slow := d.now.Slow
	switch {
	case took >= slowAfter:
		slow, d.bad = true, at
	case at.Sub(d.bad) >= calmFor:
		slow = false
	}
	// That it becomes much slower still is news too: when it is first told nobody
	// knows how long it will take.
	worse := took >= slowAfter && took >= 2*d.now.Delay
	if slow && d.now.Slow {
		took = max(took, d.now.Delay) // no less is news
	}
	if slow == d.now.Slow && full == d.now.Full && !worse {
		return d.now, false
	}
	d.now = DiskNews{Path: d.path, Slow: slow, Full: full, Delay: took}
	switch {
	case full:
		d.now.Message = fmt.Sprintf("the disk of %s is full: writes are refused until there is room", d.path)
	case slow:
		d.now.Message = fmt.Sprintf("the disk of %s is slow: a sync takes %s, so that writes take as long; reads go on", d.path, took.Round(100*time.Millisecond))
	default:
		d.now.Message = fmt.Sprintf("the disk of %s does well again", d.path)
	}
	return d.now, true
}

// leadElsewhere lets another member lead, which may have room.
func (s *Store) leadElsewhere() {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timeouts.Request)
	defer cancel()
	s.handOver(ctx)
}

// watchDisk tells when the disk becomes slow or full, and when that is over.
func (s *Store) watchDisk() {
	state := diskState{path: s.cfg.Dir}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if s.disk.logs.below.full() {
				s.disk.logs.below.prepare()
			}
			news, ok := state.look(now, s.disk.logs.watch.take(now), s.disk.logs.below.full())
			s.metrics.disk(state.now)
			s.waitForVotes(now)
			if !ok {
				continue
			}
			if news.Slow || news.Full {
				s.log.Warn(news.Message, "path", news.Path, "delay", news.Delay)
			} else {
				s.log.Info(news.Message, "path", news.Path)
			}
			if news.Full && s.leads() {
				s.spawn(s.leadElsewhere)
			}
			if s.cfg.DiskNews != nil {
				s.cfg.DiskNews(news)
			}
		case <-s.ctx.Done():
			return
		}
	}
}
