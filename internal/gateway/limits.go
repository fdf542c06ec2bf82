package gateway

import (
	"time"

	"github.com/wherry-project/wherry/internal/apierr"
)

// Limits bound what clients can make the gateway do.
type Limits struct {
	// Reads and Writes are how many requests run at once; long-running ones
	// do not count.
	Reads, Writes int
	// Time is how long a request may take that is not long-running.
	Time time.Duration
	// Unread is how long a watcher, or a reader of a log, may leave unread
	// what was sent.
	Unread time.Duration
	// Body is how many bytes a request's body may have.
	Body int64
}

func (l Limits) orDefault() Limits {
	if l.Reads == 0 {
		l.Reads = 400
	}
	if l.Writes == 0 {
		l.Writes = 200
	}
	if l.Time == 0 {
		l.Time = time.Minute
	}
	if l.Unread == 0 {
		l.Unread = time.Minute
	}
	if l.Body == 0 {
		l.Body = 3 << 20
	}
	return l
}

// flight counts the requests that run.
type flight struct{ reads, writes chan struct{} }

func newFlight(l Limits) *flight {
	return &flight{make(chan struct{}, l.Reads), make(chan struct{}, l.Writes)}
}

// enter takes a place and gives a function that leaves it. Administrators get
// in when it is full, so that they can see why.
func (f *flight) enter(c *call) (leave func(), err error) {
	if c.path.longRunning() {
		return func() {}, nil
	}
	places := f.reads
	if c.path.mutating() {
		places = f.writes
	}
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	default:
	}
	if c.user.Has(masters) {
		return func() {}, nil
	}
	return nil, apierr.TooManyRequests("Too many requests, please try again later.", time.Second)
}
