package gateway

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
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

// Flight counts the requests that run, over HTTPS and gRPC together. It may be
// used by many goroutines.
type Flight struct {
	reads, writes chan struct{}
	time          time.Duration
}

// NewFlight makes a Flight that bounds what runs at once, and, over gRPC, for
// how long.
func NewFlight(l Limits) *Flight {
	l = l.orDefault()
	return &Flight{make(chan struct{}, l.Reads), make(chan struct{}, l.Writes), l.Time}
}

// enter takes a place and gives a function that leaves it. Administrators get
// in when it is full, so that they can see why.
func (f *Flight) enter(mutating bool, master func() bool) (leave func(), err error) {
	places := f.reads
	if mutating {
		places = f.writes
	}
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	default:
	}
	if master() {
		return func() {}, nil
	}
	return nil, apierr.TooManyRequests("Too many requests, please try again later.", time.Second)
}

// enter takes the place of a call.
func (c *call) enter() (leave func(), err error) {
	if c.path.longRunning() {
		return func() {}, nil
	}
	return c.g.flight.enter(c.path.mutating(), func() bool { return c.user.Has(masters) })
}

// Unary is the interceptor by which calls of Resources over gRPC take the same
// places as requests over HTTPS, and no more time. It stands behind the one
// that refuses nobody's calls.
func (f *Flight) Unary(user func(context.Context) (api.User, error)) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if !strings.HasPrefix(info.FullMethod, resources) {
			return next(ctx, req)
		}
		leave, err := f.enter(!reads(info.FullMethod), func() bool {
			u, err := user(ctx)
			return err == nil && u.Has(masters)
		})
		if err != nil {
			return nil, err
		}
		defer leave()
		ctx, cancel := context.WithTimeout(ctx, f.time)
		defer cancel()
		return next(ctx, req)
	}
}

// resources is how the methods of the API begin.
const resources = "/wherry.v1.Resources/"

// reads reports whether a method writes nothing.
func reads(method string) bool {
	switch method {
	case wherryv1.Resources_Kinds_FullMethodName, wherryv1.Resources_Get_FullMethodName, wherryv1.Resources_List_FullMethodName:
		return true
	}
	return false
}
