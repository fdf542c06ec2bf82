// Package probes checks again and again whether a program answers, by a command,
// HTTP, TCP or gRPC, as Kubernetes' probes do, and counts until a result holds.
package probes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Result is what one check found.
type Result int

// The results. Unknown says that the check itself failed: it changes nothing.
// Warning is a success with something to tell.
const (
	Unknown Result = iota
	Success
	Warning
	Failure
)

// String gives the result's name as events have it.
func (r Result) String() string {
	switch r {
	case Success:
		return "success"
	case Warning:
		return "warning"
	case Failure:
		return "failure"
	}
	return "unknown"
}

// Check looks once, within ctx, and says what it saw.
type Check func(ctx context.Context) (Result, string)

// Config says when to check, and how many equal results in a row count.
type Config struct {
	// Delay is how long after its start a program is left alone.
	Delay   time.Duration
	Period  time.Duration
	Timeout time.Duration
	// Successes and Failures are the thresholds.
	Successes, Failures int
}

// Outcome is a result with what it means.
type Outcome struct {
	Result Result
	Output string
	// Settled says that the result has come often enough in a row to count.
	Settled bool
}

// Run checks until ctx ends. Started is when the program began. Tell hears of
// each check, before the next one begins.
func Run(ctx context.Context, cfg Config, started time.Time, check Check, tell func(Outcome)) {
	wait := time.Until(started.Add(cfg.Delay))
	var row counter
	for pause(ctx, wait) {
		began := time.Now()
		one, cancel := context.WithTimeout(ctx, cfg.Timeout)
		result, output := check(one)
		cancel()
		if ctx.Err() != nil {
			return
		}
		tell(Outcome{Result: result, Output: output, Settled: row.settled(cfg, result)})
		wait = cfg.Period - time.Since(began)
	}
}

// pause reports whether the time has passed and ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// counter counts equal results in a row.
type counter struct {
	last Result
	n    int
}

// settled adds a result and reports whether its threshold is reached.
func (c *counter) settled(cfg Config, r Result) bool {
	switch r {
	case Unknown:
		return false
	case Warning:
		r = Success
	}
	if r != c.last {
		c.last, c.n = r, 0
	}
	c.n++
	if r == Failure {
		return c.n >= cfg.Failures
	}
	return c.n >= cfg.Successes
}

// Exec checks by a command: exit code 0 is success. An error of run is Unknown,
// unless the time was up.
func Exec(run func(ctx context.Context) (code int, output string, err error)) Check {
	return func(ctx context.Context) (Result, string) {
		code, output, err := run(ctx)
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return Failure, "command timed out: " + output
		case err != nil:
			return Unknown, err.Error()
		case code != 0:
			return Failure, output
		}
		return Success, output
	}
}

// TCP checks by a connection to host:port.
func TCP(address string) Check {
	return func(ctx context.Context) (Result, string) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return Failure, err.Error()
		}
		if err := conn.Close(); err != nil {
			return Success, fmt.Sprintf("close: %v", err)
		}
		return Success, ""
	}
}
