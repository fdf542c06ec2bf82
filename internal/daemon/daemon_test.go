package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-project/wherry/internal/testkit"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// diary is what happened, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) add(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *diary) is(t *testing.T, want ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines, want) {
		t.Errorf("happened: %q\n    want: %q", d.lines, want)
	}
}

// part takes a second to be ready and two to stop.
func (d *diary) part(name string) Part {
	return Part{Name: name, Run: func(ctx context.Context, ready func()) error {
		d.add("start %s", name)
		time.Sleep(time.Second)
		ready()
		<-ctx.Done()
		time.Sleep(2 * time.Second)
		d.add("stop %s", name)
		return nil
	}}
}

func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		err := Run(ctx, quiet(), func() { d.add("up after %v", time.Since(begin)) }, d.part("a"), d.part("b"), d.part("c"))
		if err != nil {
			t.Error(err)
		}
		d.is(t, "start a", "start b", "start c", "up after 3s", "stop c", "stop b", "stop a")
	})
}

func TestFailureStopsAllInOrder(t *testing.T) {
	boom := errors.New("boom")
	fail := func(err error) Part {
		return Part{Name: "bad", Run: func(_ context.Context, ready func()) error {
			ready()
			time.Sleep(time.Minute)
			return err
		}}
	}
	never := Part{Name: "bad", Run: func(context.Context, func()) error { return boom }}
	panics := Part{Name: "bad", Run: func(context.Context, func()) error { panic("boom") }}
	tests := []struct {
		name string
		part Part
		says string
		want []string
	}{
		{"while running", fail(boom), "bad: boom", []string{"start a", "start b", "stop b", "stop a"}},
		{"ends without reason", fail(nil), "bad: ended by itself", []string{"start a", "start b", "stop b", "stop a"}},
		{"before it is ready", never, "bad: boom", []string{"start a", "stop a"}},
		{"panic", panics, "bad: panic: boom", []string{"start a", "stop a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d diary
				err := Run(t.Context(), quiet(), nil, d.part("a"), tt.part, d.part("b"))
				if err == nil || !strings.HasPrefix(err.Error(), tt.says) || strings.Count(err.Error(), "boom") > 1 && tt.name != "panic" {
					t.Errorf("got %v, want %q once", err, tt.says)
				}
				d.is(t, tt.want...)
			})
		})
	}
}

func TestLatePartIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		hang := make(chan struct{})
		defer close(hang)
		stuck := Part{Name: "stuck", Grace: 3 * time.Second, Run: func(_ context.Context, ready func()) error {
			ready()
			<-hang
			return nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		err := Run(ctx, quiet(), nil, d.part("a"), stuck)
		var late *LateError
		if !errors.As(err, &late) || late.After != 3*time.Second {
			t.Errorf("got %v, want a LateError of 3s", err)
		}
		if took := time.Since(begin); took != 15*time.Second {
			t.Errorf("took %v, want 10s + 3s for stuck + 2s for a", took)
		}
		d.is(t, "start a", "stop a")
	})
}

func TestStopsWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		if err := Run(ctx, quiet(), func() { d.add("up") }, d.part("a"), d.part("b"), d.part("c")); err != nil {
			t.Error(err)
		}
		d.is(t, "start a", "start b", "stop b", "stop a")
	})
}

// crown is a leadership that a test moves.
type crown struct {
	mu      sync.Mutex
	term    uint64
	leads   bool
	changed chan struct{}
}

func (c *crown) set(term uint64, leads bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.term, c.leads = term, leads
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *crown) now() (uint64, bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term, c.leads, c.changed
}

func TestWhileLeading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		c := &crown{changed: make(chan struct{})}
		group := WhileLeading("group", quiet(), c.now, func(term uint64) []Part {
			return []Part{d.part(fmt.Sprintf("a%d", term)), d.part(fmt.Sprintf("b%d", term))}
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- Run(ctx, quiet(), nil, group) }()
		time.Sleep(time.Minute)
		d.is(t)
		c.set(1, true)
		time.Sleep(time.Minute)
		c.set(2, true) // lost and won again between two looks
		time.Sleep(time.Minute)
		c.set(3, false)
		time.Sleep(time.Minute)
		c.set(4, true)
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		d.is(t, "start a1", "start b1", "stop b1", "stop a1", "start a2", "start b2", "stop b2", "stop a2",
			"start a4", "start b4", "stop b4", "stop a4")
	})
}

func TestLeadersGroupIsStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries []time.Duration
		c := &crown{changed: make(chan struct{}), leads: true, term: 1}
		begin := time.Now()
		group := WhileLeading("group", quiet(), c.now, func(uint64) []Part {
			return []Part{Ready("bad", func(context.Context) error {
				tries = append(tries, time.Since(begin))
				return errors.New("boom")
			})}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := Run(ctx, quiet(), nil, group); err != nil {
			t.Error(err)
		}
		if want := []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second}; !slices.Equal(tries, want) {
			t.Errorf("tries at %v, want %v", tries, want)
		}
	})
}

func TestLeadersGroupThatDoesNotStopEndsTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		defer close(hang)
		c := &crown{changed: make(chan struct{}), leads: true, term: 1}
		group := WhileLeading("group", quiet(), c.now, func(uint64) []Part {
			return []Part{Ready("stuck", func(context.Context) error { <-hang; return nil })}
		})
		time.AfterFunc(time.Minute, func() { c.set(1, false) })
		var late *LateError
		if err := Run(t.Context(), quiet(), nil, group); !errors.As(err, &late) {
			t.Errorf("got %v, want a LateError", err)
		}
	})
}

func TestNotifier(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sock.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	n, err := NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := os.LookupEnv("NOTIFY_SOCKET"); ok {
		t.Errorf("children would see NOTIFY_SOCKET=%s", v)
	}
	for want, send := range map[string]func() error{"READY=1": n.Ready, "STOPPING=1": n.Stopping, "STATUS=x": func() error { return n.Status("x") }} {
		if err := send(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		if k, err := sock.Read(buf); err != nil || string(buf[:k]) != want {
			t.Errorf("got %q, %v; want %q", buf[:k], err, want)
		}
	}
	none, err := NewNotifier()
	if err != nil || none.Ready() != nil {
		t.Errorf("without a service manager: %v", err)
	}
}

func TestSignals(t *testing.T) {
	ctx, stop := Signals(t.Context())
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("SIGTERM did not end the context")
	}
}

func TestDebugListener(t *testing.T) {
	testkit.Leaks(t)
	path := filepath.Join(t.TempDir(), "run", "debug.sock")
	for range 2 { // the second finds the socket of the first
		ctx, cancel := context.WithCancel(t.Context())
		up, done := make(chan struct{}), make(chan error, 1)
		hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
		go func() {
			done <- Run(ctx, quiet(), func() { close(up) }, Debug(path, map[string]http.Handler{"/hello": hello}))
		}()
		<-up
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("socket: %v, %v", fi, err)
		}
		tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
		for url, says := range map[string]string{"/hello": "hello", "/debug/pprof/goroutine?debug=1": "goroutine profile"} {
			resp, err := (&http.Client{Transport: tr}).Get("http://x" + url)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.Body.Close() != nil || !strings.Contains(string(body), says) {
				t.Errorf("%s: %v %.100q", url, err, body)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil { // as if killed
			t.Fatal(err)
		}
	}
}
