package testkit

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// verdict is a testing.TB that keeps what a test would have come to.
type verdict struct {
	testing.TB
	fatal, skip string
	failed      bool
	cleanups    []func()
}

func (v *verdict) Helper()               {}
func (v *verdict) Cleanup(f func())      { v.cleanups = append(v.cleanups, f) }
func (v *verdict) Failed() bool          { return v.failed }
func (v *verdict) Error(...any)          { v.failed = true }
func (v *verdict) Errorf(string, ...any) { v.failed = true }
func (v *verdict) Fatalf(format string, _ ...any) {
	v.fatal = format
	runtime.Goexit()
}

func (v *verdict) Skip(args ...any) {
	v.skip, _ = args[0].(string)
	runtime.Goexit()
}

// judge runs f to its end, or to where it gave up.
func judge(t *testing.T, f func(v *verdict)) *verdict {
	v := &verdict{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(v)
	}()
	<-done
	return v
}

func TestNeeds(t *testing.T) {
	t.Setenv("CI", "")
	if v := judge(t, func(v *verdict) { Needs(v, true, "x") }); v.skip != "" || v.fatal != "" {
		t.Errorf("a test that has all it needs: %+v", v)
	}
	if v := judge(t, func(v *verdict) { Needs(v, false, "no disk") }); v.skip != "no disk" {
		t.Errorf("skipped with %q", v.skip)
	}
	t.Setenv("CI", "true")
	if v := judge(t, func(v *verdict) { Needs(v, false, "no disk") }); !strings.Contains(v.fatal, "CI") {
		t.Errorf("in CI: fatal %q, skip %q", v.fatal, v.skip)
	}
}

func TestLeaks(t *testing.T) {
	stop := make(chan struct{})
	v := &verdict{TB: t}
	leaks(v, 0)
	v.cleanups[0]()
	if v.failed {
		t.Error("nothing leaked, yet it failed")
	}
	go func() { <-stop }()
	v.cleanups[0]()
	close(stop)
	if !v.failed {
		t.Error("a goroutine leaked unseen")
	}
	// One that takes its time is none.
	v = &verdict{TB: t}
	Leaks(v)
	go func() { time.Sleep(time.Second) }()
	v.cleanups[0]()
	if v.failed {
		t.Error("a goroutine that ends within a second counts as leaked")
	}
}

func TestEventually(t *testing.T) {
	tries := 0
	v := judge(t, func(v *verdict) {
		Eventually(v, time.Minute, func() error {
			if tries++; tries < 3 {
				return errors.New("not yet")
			}
			return nil
		})
	})
	if v.fatal != "" || tries != 3 {
		t.Errorf("fatal %q after %d tries", v.fatal, tries)
	}
	if v := judge(t, func(v *verdict) { Eventually(v, time.Millisecond, func() error { return errors.New("never") }) }); v.fatal == "" {
		t.Error("what never comes was not a failure")
	}
}

func TestLoopback(t *testing.T) {
	a, b := Loopback(), Loopback()
	if a == b || !a.IsLoopback() || !b.IsLoopback() {
		t.Errorf("addresses %v and %v", a, b)
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(a, FreePort(t, a)).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := net.Dial("tcp", Refusing(t)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("where nobody listens: %v", err)
	}
}
