// Package testkit is what tests share: a leak check, a wait with a deadline, a
// gate for tests that need root. Only tests import it; it stands outside the
// layers.
package testkit

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// pause is how long Eventually rests between two looks.
const pause = 5 * time.Millisecond

// NeedsRoot skips the test, saying why, when it does not run as root. In CI
// (the environment says CI=true) it fails instead: nothing may go untested
// there without anybody noticing.
func NeedsRoot(t testing.TB) {
	t.Helper()
	Needs(t, os.Geteuid() == 0, "not root: this test makes namespaces, mounts or kernel rules of its own")
}

// Needs skips the test with a reason unless it has what it needs; in CI it
// fails instead.
func Needs(t testing.TB, has bool, reason string) {
	t.Helper()
	switch {
	case has:
	case os.Getenv("CI") == "true":
		t.Fatalf("cannot run in CI: %s", reason)
	default:
		t.Skip(reason)
	}
}

// endsWithin is how long goroutines may take to end that were told to: long,
// for a busy machine lets them wait.
const endsWithin = 20 * time.Second

// Leaks fails the test if, at its end, a goroutine runs that did not run when
// Leaks was called. Call it first, so that it looks last: after every other
// cleanup.
func Leaks(t testing.TB) {
	t.Helper()
	leaks(t, endsWithin)
}

func leaks(t testing.TB, patience time.Duration) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if !t.Failed() {
			if err := ended(patience, before); err != nil {
				t.Error(err)
			}
		}
	})
}

// LeaksMain runs a package's tests and gives the exit code. It is 1 if
// goroutines are left when all have passed.
func LeaksMain(m *testing.M, but ...goleak.Option) int {
	code := m.Run()
	if code != 0 {
		return code
	}
	if err := ended(endsWithin, but...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// ended waits until no goroutine is left; goleak itself waits half a second.
func ended(patience time.Duration, but ...goleak.Option) error {
	for deadline := time.Now().Add(patience); ; {
		err := goleak.Find(but...)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// Eventually calls cond until it returns nil. When timeout has passed the test
// fails at once with cond's last error.
func Eventually(t testing.TB, timeout time.Duration, cond func() error) {
	t.Helper()
	if err := Until(t, timeout, cond); err != nil {
		t.Fatalf("still not after %v: %v", timeout, err)
	}
}

// Until is Eventually for goroutines other than the test's own: it returns
// cond's last error instead of ending the test.
func Until(t testing.TB, timeout time.Duration, cond func() error) error {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		err := cond()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-t.Context().Done():
			return err
		case <-time.After(pause):
		}
	}
}
