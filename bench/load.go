package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// cell is one measurement: so many clients at once, each with one request on
// its way.
type cell struct {
	clients int
	rate    float64
	took    samples
}

// text is the cell as it is printed.
func (c cell) text() string {
	return fmt.Sprintf("%s (%s / %s)", perSecond(c.rate), c.took.p50(), c.took.p99())
}

// load has clients call f over and over. f gets the client's number and how
// often that client has called it before. What happens in a first part of the
// time warms up and is not counted.
func load(ctx context.Context, clients int, d time.Duration, f func(ctx context.Context, client, n int) error) (cell, error) {
	warm := d / 5
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	c := cell{clients: clients}
	var failed error
	begin := time.Now().Add(warm)
	end := begin.Add(d)
	for i := range clients {
		wg.Go(func() {
			var mine samples
			for n := 0; ; n++ {
				start := time.Now()
				if start.After(end) {
					break
				}
				if err := f(ctx, i, n); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					cancel() // one failure spoils the cell
					return
				}
				if now := time.Now(); start.After(begin) && now.Before(end) {
					mine = append(mine, now.Sub(start))
				}
			}
			mu.Lock()
			c.took = append(c.took, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	if failed != nil {
		return c, fmt.Errorf("%d clients: %w", clients, firstOf(failed))
	}
	c.rate = float64(len(c.took)) / d.Seconds()
	return c, nil
}

// firstOf gives one of joined errors: a thousand say the same.
func firstOf(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() []error })
		if !ok || len(u.Unwrap()) == 0 {
			return err
		}
		err = u.Unwrap()[0]
	}
}

// connections is how many connections so many clients share.
func connections(clients int) int { return max(1, min(clients/10, 100)) }

// dialMany makes connections, connected.
func dialMany(ctx context.Context, n int, dial func() (*grpc.ClientConn, error)) (conns []*grpc.ClientConn, closeAll func(), err error) {
	closeAll = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	for range n {
		c, err := dial()
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		conns = append(conns, c)
		c.Connect()
	}
	return conns, closeAll, nil
}

// quickBackOff lets a connection be tried again at once.
func quickBackOff() grpc.DialOption {
	return grpc.WithConnectParams(grpc.ConnectParams{
		Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.2, MaxDelay: 100 * time.Millisecond}, MinConnectTimeout: time.Second,
	})
}

const (
	// tryEvery is how often a client that looks for a server that writes
	// begins another try, without waiting for the former ones: a server may
	// hold a write for as long as it knows no leader.
	tryEvery = 20 * time.Millisecond
	// tryFor is how long one try may take.
	tryFor = 3 * time.Second
)

// firstSuccess calls f for one of n servers after the other until a call has
// succeeded, and gives when that was.
func firstSuccess(ctx context.Context, n int, f func(ctx context.Context, i int) error) (time.Time, error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	type result struct {
		at  time.Time
		err error
	}
	results := make(chan result, 1)
	again := time.NewTicker(tryEvery)
	defer again.Stop()
	var last error
	for i := 0; ; i++ {
		wg.Go(func() {
			one, cancel := context.WithTimeout(ctx, tryFor)
			defer cancel()
			err := f(one, i%n)
			select {
			case results <- result{time.Now(), err}:
			case <-ctx.Done():
			}
		})
		for next := false; !next; {
			select {
			case r := <-results:
				if r.err == nil {
					return r.at, nil
				}
				last = r.err
			case <-again.C:
				next = true
			case <-ctx.Done():
				return time.Time{}, errors.Join(ctx.Err(), last)
			}
		}
	}
}

// pause waits between two tries.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
