package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/testkit"
)

// output runs a command and returns its code and what it printed.
func output(t *testing.T, ctx context.Context, args ...string) (int, string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stdout
	os.Stdout = w
	code := run(ctx, args)
	os.Stdout = old
	w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return code, string(out)
}

func TestServeAndFetch(t *testing.T) {
	t.Setenv("PAGE", "the page")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	said, says := io.Pipe()
	go func() { done <- serve(ctx, "0", says) }()
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(strings.Fields(line)[2]) // serving on [::]:PORT as …
	if err != nil {
		t.Fatal(err)
	}
	code, out := output(t, t.Context(), "fetch", "http://127.0.0.1:"+port+"/x")
	host, _ := os.Hostname()
	if code != 0 || !strings.HasSuffix(out, "hello from "+host+"\nthe page\n") {
		t.Errorf("%d: %q", code, out)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it does not end")
	}
	if code, _ := output(t, t.Context(), "fetch", "http://"+testkit.Refusing(t), "200ms"); code != 1 {
		t.Errorf("nobody serves, exit code %d", code)
	}
}

func TestSmallCommands(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		args string
		code int
		out  string
	}{
		{t.Context(), "echo a b", 0, "a b\n"}, {t.Context(), "exit 7", 7, ""}, {t.Context(), "exit x", 2, ""}, {t.Context(), "", 2, ""},
		{t.Context(), "sleep 1ms", 0, ""}, {ended, "sleep", 0, ""}, {t.Context(), "lookup localhost", 0, "127.0.0.1\n"}, {t.Context(), "lookup x NONE", 1, ""},
	} {
		code, out := output(t, c.ctx, strings.Fields(c.args)...)
		if code != c.code || !strings.HasPrefix(strings.TrimPrefix(out, "::1\n"), c.out) && !strings.HasPrefix(out, c.out) {
			t.Errorf("%s: %d %q", c.args, code, out)
		}
	}
}
