// Package runtimetest holds every runtime.Runtime to the contract.
package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/shim"
)

// Host is a machine on which a runtime can be opened, more than once.
type Host struct {
	// Open opens a runtime; the suite closes it.
	Open func(t *testing.T) runtime.Runtime
	// Layers are image layers that have Program at Path.
	Layers []string
}

// Run runs the suite, each test on a host of its own.
func Run(t *testing.T, newHost func(t *testing.T) Host) {
	for name, test := range map[string]func(*env){
		"SandboxTwice":        sandboxTwice,
		"ExitCode":            exitCode,
		"Output":              output,
		"NoSuchProgram":       noSuchProgram,
		"StopGracefully":      stopGracefully,
		"StopKills":           stopKills,
		"Signal":              signal,
		"Exec":                exec,
		"ExecNoSuchProgram":   execNoSuchProgram,
		"ExecEndsWithContext": execEndsWithContext,
		"Attach":              attach,
		"RotateBySize":        rotateBySize,
		"RotateByHand":        rotateByHand,
		"RemoveContainer":     removeContainer,
		"RemoveSandbox":       removeSandbox,
		"Reopen":              reopen,
		"Unknown":             unknown,
		"Invalid":             invalid,
		"Many":                many,
		"Environment":         environment,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			e := &env{T: t, host: h, ctx: t.Context(), logs: t.TempDir()}
			e.open()
			t.Cleanup(e.close)
			test(e)
		})
	}
}

// env is a test's runtime and what it saw of it.
type env struct {
	*testing.T
	host Host
	ctx  context.Context
	rt   runtime.Runtime
	logs string

	mu     sync.Mutex
	seen   []runtime.Event
	newer  chan struct{}
	joined chan struct{}
}

// patience is for a busy machine.
const patience = time.Minute

func (e *env) open() {
	e.rt = e.host.Open(e.T)
	e.newer, e.joined = make(chan struct{}), make(chan struct{})
	events, joined := e.rt.Events(), e.joined
	go func() {
		defer close(joined)
		for ev := range events {
			e.mu.Lock()
			e.seen = append(e.seen, ev)
			close(e.newer)
			e.newer = make(chan struct{})
			e.mu.Unlock()
		}
	}()
}

func (e *env) close() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := e.rt.List(ctx)
	if err != nil {
		e.Error(err)
	}
	for _, s := range all {
		if err := e.rt.RemoveSandbox(ctx, s.ID); err != nil {
			e.Error(err)
		}
	}
	e.closeRuntime()
}

func (e *env) closeRuntime() {
	if err := e.rt.Close(); err != nil {
		e.Error(err)
	}
	select {
	case <-e.joined:
	case <-time.After(patience):
		e.Error("Events was not closed by Close")
	}
}

// exited waits for the event of a container's exit.
func (e *env) exited(id string) runtime.Container {
	e.Helper()
	timeout := time.After(patience)
	for {
		e.mu.Lock()
		for _, ev := range e.seen {
			if ev.Kind == runtime.ContainerExited && ev.Container.ID == id {
				e.mu.Unlock()
				return ev.Container
			}
		}
		newer := e.newer
		e.mu.Unlock()
		select {
		case <-newer:
		case <-timeout:
			e.Fatalf("no event of the exit of %s", id)
		}
	}
}

func (e *env) sandbox(id string) runtime.Sandbox {
	e.Helper()
	s, err := e.rt.StartSandbox(e.ctx, runtime.SandboxConfig{
		ID: id, Name: "ns/" + id, Hostname: "host-" + id, LogDir: e.logs, Labels: map[string]string{"k": id},
	})
	if err != nil {
		e.Fatal(err)
	}
	return s
}

func (e *env) config(id string, args ...string) runtime.ContainerConfig {
	return runtime.ContainerConfig{
		ID: id, Name: "name-" + id, Attempt: 2, Layers: e.host.Layers, Args: append([]string{Path}, args...),
		LogPath: id + "/2.log", Labels: map[string]string{"c": id},
	}
}

func (e *env) start(sandbox, id string, args ...string) runtime.Container {
	e.Helper()
	c, err := e.rt.StartContainer(e.ctx, sandbox, e.config(id, args...))
	if err != nil {
		e.Fatal(err)
	}
	return c
}

// log returns what a container wrote to a stream, from all its log files.
func (e *env) log(id string, stream shim.Stream) string {
	e.Helper()
	path := filepath.Join(e.logs, id, "2.log")
	files, err := shim.RotatedLogs(path)
	if err != nil {
		e.Fatal(err)
	}
	var out strings.Builder
	for _, f := range append(files, path) {
		b, err := os.ReadFile(f)
		if err != nil {
			e.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			l, err := shim.ParseLine(line)
			if err != nil {
				e.Fatal(err)
			}
			if l.Stream == stream {
				out.Write(l.Text)
				if !l.Partial {
					out.WriteByte('\n')
				}
			}
		}
	}
	return out.String()
}

// awaitLog waits until a container's output has the text.
func (e *env) awaitLog(id, text string) {
	e.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if b, err := os.ReadFile(filepath.Join(e.logs, id, "2.log")); err == nil && strings.Contains(string(b), text) {
			return
		}
	}
	e.Fatalf("%s never wrote %q", id, text)
}

func sandboxTwice(e *env) {
	first := e.sandbox("one")
	second := e.sandbox("one")
	if first.State != runtime.SandboxReady || second.PID != first.PID {
		e.Errorf("a second start made another sandbox: %+v, %+v", first, second)
	}
	all, err := e.rt.List(e.ctx)
	if err != nil || len(all) != 1 || all[0].ID != "one" || all[0].Name != "ns/one" || all[0].Labels["k"] != "one" || all[0].StartedAt.IsZero() {
		e.Errorf("List: %+v, %v", all, err)
	}
}

func exitCode(e *env) {
	e.sandbox("p")
	for _, code := range []int{0, 1, 42, 255} {
		id := fmt.Sprint("c", code)
		began := time.Now()
		c := e.start("p", id, "exit", fmt.Sprint(code))
		if c.ID != id || c.Name != "name-"+id || c.Attempt != 2 || c.Labels["c"] != id || c.SandboxID != "p" || c.PID == 0 {
			e.Errorf("StartContainer: %+v", c)
		}
		ended := e.exited(id)
		if ended.ExitCode != code || ended.State != runtime.Exited || ended.Signal != 0 || ended.OOMKilled {
			e.Errorf("exit %d: %+v", code, ended)
		}
		if ended.StartedAt.Before(began.Add(-time.Second)) || ended.FinishedAt.Before(ended.StartedAt) || ended.FinishedAt.After(time.Now().Add(time.Second)) {
			e.Errorf("times: %v, %v", ended.StartedAt, ended.FinishedAt)
		}
	}
	all, _ := e.rt.List(e.ctx)
	if len(all) != 1 || len(all[0].Containers) != 4 {
		e.Fatalf("List: %+v", all)
	}
	if c, ok := all[0].Container("c42"); !ok || c.ExitCode != 42 || c.State != runtime.Exited {
		e.Errorf("List: %+v", c)
	}
}

func output(e *env) {
	e.sandbox("p")
	e.start("p", "out", "echo", "hello", "world")
	e.start("p", "err", "complain", "oh", "no")
	e.start("p", "long", "count", "1", "40000")
	e.exited("out")
	e.exited("err")
	e.exited("long")
	if got := e.log("out", shim.Stdout); got != "hello world\n" {
		e.Errorf("stdout %q", got)
	}
	if got := e.log("err", shim.Stderr); got != "oh no\n" {
		e.Errorf("stderr %q", got)
	}
	if got := e.log("long", shim.Stdout); got != strings.Repeat("0", 40000)+"\n" {
		e.Errorf("a long line came back as %d bytes", len(got))
	}
}

func noSuchProgram(e *env) {
	e.sandbox("p")
	for _, args := range [][]string{{"no-such-program"}, {"/no/such/program", "x"}} {
		cfg := e.config("c")
		cfg.Args = args
		_, err := e.rt.StartContainer(e.ctx, "p", cfg)
		var start *runtime.StartError
		if !errors.As(err, &start) || !start.NoCommand || !strings.Contains(start.Message, args[0]) {
			e.Errorf("%v: %v", args, err)
		}
		e.Log(err)
	}
	all, _ := e.rt.List(e.ctx)
	if len(all[0].Containers) != 0 {
		e.Errorf("a container that never started is there: %+v", all[0].Containers)
	}
	e.start("p", "c", "exit", "3") // the id is free
	if c := e.exited("c"); c.ExitCode != 3 {
		e.Errorf("%+v", c)
	}
}

func stopGracefully(e *env) {
	e.sandbox("p")
	e.start("p", "c", "wait", "7")
	e.awaitLog("c", "waiting")
	c, err := e.rt.StopContainer(e.ctx, "p", "c", 0, patience)
	if err != nil || c.ExitCode != 7 || c.Signal != 0 || c.State != runtime.Exited {
		e.Fatalf("%+v, %v", c, err)
	}
	if got := e.log("c", shim.Stdout); got != "waiting\ngot 15\n" {
		e.Errorf("log %q", got)
	}
	again, err := e.rt.StopContainer(e.ctx, "p", "c", 0, patience)
	if err != nil || again.ExitCode != 7 {
		e.Errorf("stopping twice: %+v, %v", again, err)
	}
	cfg := e.config("d", "wait", "8")
	cfg.StopSignal = syscall.SIGUSR1
	if _, err := e.rt.StartContainer(e.ctx, "p", cfg); err != nil {
		e.Fatal(err)
	}
	e.awaitLog("d", "waiting")
	if c, err := e.rt.StopContainer(e.ctx, "p", "d", 0, patience); err != nil || c.ExitCode != 8 {
		e.Errorf("stop signal of its own: %+v, %v", c, err)
	}
	if got := e.log("d", shim.Stdout); got != "waiting\ngot 10\n" {
		e.Errorf("log %q", got)
	}
}

func stopKills(e *env) {
	e.sandbox("p")
	e.start("p", "c", "stubborn")
	e.awaitLog("c", "waiting")
	began := time.Now()
	c, err := e.rt.StopContainer(e.ctx, "p", "c", 0, 100*time.Millisecond)
	if err != nil || c.ExitCode != 137 || c.Signal != syscall.SIGKILL || c.State != runtime.Exited || c.OOMKilled {
		e.Fatalf("%+v, %v", c, err)
	}
	if took := time.Since(began); took < 100*time.Millisecond || took > patience {
		e.Errorf("killed after %v", took)
	}
	e.start("p", "d", "stubborn")
	if c, err := e.rt.StopContainer(e.ctx, "p", "d", 0, 0); err != nil || c.ExitCode != 137 {
		e.Errorf("without grace: %+v, %v", c, err)
	}
	e.start("p", "f", "stubborn")
	e.awaitLog("f", "waiting")
	ctx, cancel := context.WithTimeout(e.ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := e.rt.StopContainer(ctx, "p", "f", 0, patience); !errors.Is(err, context.DeadlineExceeded) {
		e.Errorf("a context that ends first: %v", err)
	}
}

func signal(e *env) {
	e.sandbox("p")
	e.start("p", "c", "wait", "0")
	e.awaitLog("c", "waiting")
	if err := e.rt.Signal(e.ctx, "p", "c", syscall.SIGUSR2); err != nil {
		e.Fatal(err)
	}
	e.awaitLog("c", "got 12")
	if err := e.rt.Signal(e.ctx, "p", "c", syscall.SIGKILL); err != nil {
		e.Fatal(err)
	}
	if c := e.exited("c"); c.ExitCode != 137 || c.Signal != syscall.SIGKILL {
		e.Errorf("%+v", c)
	}
	if err := e.rt.Signal(e.ctx, "p", "c", syscall.SIGTERM); !errors.Is(err, runtime.ErrNotRunning) {
		e.Errorf("signal after the end: %v", err)
	}
}

func exec(e *env) {
	e.sandbox("p")
	e.start("p", "c", "stubborn")
	for _, test := range []struct {
		args         []string
		in, out, err string
		code         int
	}{
		{args: []string{"exit", "0"}},
		{args: []string{"exit", "5"}, code: 5},
		{args: []string{"echo", "a", "b"}, out: "a b\n"},
		{args: []string{"complain", "c"}, err: "c\n"},
		{args: []string{"cat"}, in: strings.Repeat("0123456789", 50_000), out: strings.Repeat("0123456789", 50_000)},
		{args: []string{"count", "20000", "10"}, out: counted(20000, 10)},
	} {
		var out, errOut bytes.Buffer
		st := runtime.Streams{Stdout: &out, Stderr: &errOut}
		if test.in != "" {
			st.Stdin = strings.NewReader(test.in)
		}
		code, err := e.rt.Exec(e.ctx, "p", "c", runtime.ExecConfig{Args: append([]string{Path}, test.args...)}, st)
		if err != nil || code != test.code || out.String() != test.out || errOut.String() != test.err {
			e.Errorf("%v: code %d, err %v, %d bytes out (want %d), stderr %q", test.args, code, err, out.Len(), len(test.out), errOut.String())
		}
	}
	// An input that nobody ends does not hold it up.
	never, w := io.Pipe()
	defer w.Close()
	if code, err := e.rt.Exec(e.ctx, "p", "c", runtime.ExecConfig{Args: []string{Path, "exit", "6"}}, runtime.Streams{Stdin: never}); err != nil || code != 6 {
		e.Errorf("with an endless input: %d, %v", code, err)
	}
	if _, err := e.rt.StopContainer(e.ctx, "p", "c", 0, 0); err != nil {
		e.Fatal(err)
	}
	if _, err := e.rt.Exec(e.ctx, "p", "c", runtime.ExecConfig{Args: []string{Path, "exit", "0"}}, runtime.Streams{}); !errors.Is(err, runtime.ErrNotRunning) {
		e.Errorf("exec after the end: %v", err)
	}
}

func counted(n, width int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%0*d\n", width, i)
	}
	return b.String()
}

func execNoSuchProgram(e *env) {
	e.sandbox("p")
	e.start("p", "c", "stubborn")
	_, err := e.rt.Exec(e.ctx, "p", "c", runtime.ExecConfig{Args: []string{"no-such-program"}}, runtime.Streams{})
	var start *runtime.StartError
	if !errors.As(err, &start) || !start.NoCommand || !strings.Contains(start.Message, "no-such-program") {
		e.Errorf("%v", err)
	}
	if c, ok := e.find("p", "c"); !ok || c.State != runtime.Running {
		e.Errorf("the container suffered: %+v", c)
	}
}

func (e *env) find(sandbox, id string) (runtime.Container, bool) {
	all, err := e.rt.List(e.ctx)
	if err != nil {
		e.Fatal(err)
	}
	for _, s := range all {
		if s.ID == sandbox {
			return s.Container(id)
		}
	}
	return runtime.Container{}, false
}

func execEndsWithContext(e *env) {
	e.sandbox("p")
	e.start("p", "c", "stubborn")
	ctx, cancel := context.WithTimeout(e.ctx, 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := e.rt.Exec(ctx, "p", "c", runtime.ExecConfig{Args: []string{Path, "stubborn"}}, runtime.Streams{})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > patience/2 {
		e.Errorf("%v after %v", err, time.Since(began))
	}
}

func attach(e *env) {
	e.sandbox("p")
	cfg := e.config("c", "cat")
	cfg.Stdin, cfg.StdinOnce = true, true
	if _, err := e.rt.StartContainer(e.ctx, "p", cfg); err != nil {
		e.Fatal(err)
	}
	in, w := io.Pipe()
	out, outW := io.Pipe()
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	go func() { done <- e.rt.Attach(ctx, "p", "c", runtime.Streams{Stdin: in, Stdout: outW}) }()
	fmt.Fprintln(w, "ping")
	buf := make([]byte, 5)
	if _, err := io.ReadFull(out, buf); err != nil || string(buf) != "ping\n" {
		e.Fatalf("%q, %v", buf, err)
	}
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			e.Errorf("Attach: %v", err)
		}
	case <-time.After(patience):
		e.Fatal("Attach does not end")
	}
	w.Close()
}

func rotateBySize(e *env) {
	if _, err := e.rt.StartSandbox(e.ctx, runtime.SandboxConfig{ID: "p", LogDir: e.logs, LogMaxSize: 64 << 10, LogMaxFiles: 100}); err != nil {
		e.Fatal(err)
	}
	e.start("p", "c", "count", "5000", "100")
	e.exited("c")
	files, err := shim.RotatedLogs(filepath.Join(e.logs, "c", "2.log"))
	if err != nil || len(files) < 5 {
		e.Fatalf("rotated files %v, %v", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 64<<10 || info.Size() < 32<<10 {
			e.Errorf("%s: %v, %v", f, info.Size(), err)
		}
	}
	if got := e.log("c", shim.Stdout); got != counted(5000, 100) {
		e.Errorf("%d bytes of %d in the logs", len(got), len(counted(5000, 100)))
	}
	if _, err := e.rt.StartSandbox(e.ctx, runtime.SandboxConfig{ID: "q", LogDir: e.logs, LogMaxSize: 64 << 10, LogMaxFiles: 3}); err != nil {
		e.Fatal(err)
	}
	e.start("q", "d", "count", "5000", "100")
	e.exited("d")
	if files, err = shim.RotatedLogs(filepath.Join(e.logs, "d", "2.log")); err != nil || len(files) != 2 {
		e.Errorf("kept %v, %v", files, err)
	}
	if got := e.log("d", shim.Stdout); !strings.HasSuffix(counted(5000, 100), got) {
		e.Error("what is kept is not the end of the output")
	}
}

func rotateByHand(e *env) {
	e.sandbox("p")
	e.start("p", "c", "wait", "0")
	e.awaitLog("c", "waiting")
	if err := e.rt.RotateLog(e.ctx, "p", "c"); err != nil {
		e.Fatal(err)
	}
	if _, err := e.rt.StopContainer(e.ctx, "p", "c", 0, patience); err != nil {
		e.Fatal(err)
	}
	newest, err := os.ReadFile(filepath.Join(e.logs, "c", "2.log"))
	if err != nil || strings.Contains(string(newest), "waiting") || !strings.Contains(string(newest), "got 15") {
		e.Errorf("%q, %v", newest, err)
	}
	if got := e.log("c", shim.Stdout); got != "waiting\ngot 15\n" {
		e.Errorf("all logs: %q", got)
	}
}

func removeContainer(e *env) {
	e.sandbox("p")
	e.start("p", "c", "stubborn")
	e.start("p", "d", "exit", "0")
	e.exited("d")
	for _, id := range []string{"c", "d", "c", "never"} {
		if err := e.rt.RemoveContainer(e.ctx, "p", id); err != nil {
			e.Fatal(err)
		}
	}
	if all, _ := e.rt.List(e.ctx); len(all[0].Containers) != 0 {
		e.Errorf("%+v", all[0].Containers)
	}
	if _, err := os.Stat(filepath.Join(e.logs, "c", "2.log")); err != nil {
		e.Errorf("the log went too: %v", err)
	}
	e.start("p", "c", "exit", "9")
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if c, _ := e.find("p", "c"); c.State == runtime.Exited && c.ExitCode == 9 {
			break
		} else if time.Now().After(deadline) {
			e.Fatalf("%+v", c)
		}
	}
}

func removeSandbox(e *env) {
	e.sandbox("p")
	e.start("p", "c", "stubborn")
	e.start("p", "d", "exit", "0")
	for range 2 {
		if err := e.rt.RemoveSandbox(e.ctx, "p"); err != nil {
			e.Fatal(err)
		}
	}
	if err := e.rt.RemoveSandbox(e.ctx, "never"); err != nil {
		e.Fatal(err)
	}
	if all, err := e.rt.List(e.ctx); err != nil || len(all) != 0 {
		e.Errorf("%+v, %v", all, err)
	}
	if _, err := e.rt.StartContainer(e.ctx, "p", e.config("c", "exit", "0")); !errors.Is(err, runtime.ErrNotFound) {
		e.Errorf("start in a removed sandbox: %v", err)
	}
	e.mu.Lock()
	for _, ev := range e.seen {
		if ev.Kind == runtime.SandboxLost {
			e.Error("removal was told as a loss")
		}
	}
	e.mu.Unlock()
	e.sandbox("p") // the id is free
}

func reopen(e *env) {
	e.sandbox("p")
	e.sandbox("q")
	running := e.start("p", "c", "wait", "11")
	e.start("p", "early", "exit", "12")
	early := e.exited("early")
	e.awaitLog("c", "waiting")
	e.closeRuntime()
	e.open()
	all, err := e.rt.List(e.ctx)
	if err != nil || len(all) != 2 || all[0].State != runtime.SandboxReady || all[1].ID != "q" || all[0].Labels["k"] != "p" {
		e.Fatalf("%+v, %v", all, err)
	}
	c, ok := all[0].Container("c")
	if !ok || c.State != runtime.Running || c.PID != running.PID || !c.StartedAt.Equal(running.StartedAt) || c.Name != running.Name || c.LogPath != running.LogPath {
		e.Errorf("found %+v, started %+v", c, running)
	}
	if c, _ := all[0].Container("early"); c.ExitCode != 12 || c.State != runtime.Exited || !c.FinishedAt.Equal(early.FinishedAt) {
		e.Errorf("found %+v", c)
	}
	if c, err := e.rt.StopContainer(e.ctx, "p", "c", 0, patience); err != nil || c.ExitCode != 11 {
		e.Errorf("%+v, %v", c, err)
	}
	if c := e.exited("c"); c.ExitCode != 11 {
		e.Errorf("%+v", c)
	}
	e.start("q", "new", "exit", "13")
	if c := e.exited("new"); c.ExitCode != 13 {
		e.Errorf("%+v", c)
	}
}

func unknown(e *env) {
	e.sandbox("p")
	for name, err := range map[string]error{
		"Signal":         e.rt.Signal(e.ctx, "p", "x", syscall.SIGTERM),
		"Signal sandbox": e.rt.Signal(e.ctx, "x", "x", syscall.SIGTERM),
		"Attach":         e.rt.Attach(e.ctx, "p", "x", runtime.Streams{}),
		"Rotate":         e.rt.RotateLog(e.ctx, "p", "x"),
		"Update":         e.rt.UpdateContainer(e.ctx, "p", "x", runtime.Resources{}),
		"Update sandbox": e.rt.UpdateSandbox(e.ctx, "x", runtime.Resources{}),
	} {
		if !errors.Is(err, runtime.ErrNotFound) {
			e.Errorf("%s: %v", name, err)
		}
	}
	if _, err := e.rt.Exec(e.ctx, "p", "x", runtime.ExecConfig{Args: []string{"x"}}, runtime.Streams{}); !errors.Is(err, runtime.ErrNotFound) {
		e.Errorf("Exec: %v", err)
	}
	if _, err := e.rt.StopContainer(e.ctx, "p", "x", 0, 0); !errors.Is(err, runtime.ErrNotFound) {
		e.Errorf("StopContainer: %v", err)
	}
	if _, err := e.rt.StartContainer(e.ctx, "x", e.config("c", "exit", "0")); !errors.Is(err, runtime.ErrNotFound) {
		e.Errorf("StartContainer: %v", err)
	}
	if err := e.rt.RemoveContainer(e.ctx, "x", "x"); err != nil {
		e.Errorf("RemoveContainer: %v", err)
	}
	e.start("p", "c", "stubborn")
	if _, err := e.rt.StartContainer(e.ctx, "p", e.config("c", "exit", "0")); !errors.Is(err, runtime.ErrExists) {
		e.Errorf("StartContainer twice: %v", err)
	}
	e.start("p", "over", "exit", "0")
	e.exited("over")
	for with, want := range map[string]error{"x": runtime.ErrNotFound, "over": runtime.ErrNotRunning, "c": nil} {
		cfg := e.config("with-"+with, "stubborn")
		cfg.PIDOf = with
		if _, err := e.rt.StartContainer(e.ctx, "p", cfg); !errors.Is(err, want) {
			e.Errorf("join the processes of %s: %v, want %v", with, err, want)
		}
	}
}

func invalid(e *env) {
	e.sandbox("p")
	for name, change := range map[string]func(*runtime.ContainerConfig){
		"no program":   func(c *runtime.ContainerConfig) { c.Args = nil },
		"no layers":    func(c *runtime.ContainerConfig) { c.Layers = nil },
		"id":           func(c *runtime.ContainerConfig) { c.ID = "../x" },
		"mount target": func(c *runtime.ContainerConfig) { c.Mounts = []runtime.Mount{{Source: "/tmp", Target: "x"}} },
		"mount source": func(c *runtime.ContainerConfig) { c.Mounts = []runtime.Mount{{Source: "tmp", Target: "/x"}} },
		"cwd":          func(c *runtime.ContainerConfig) { c.Cwd = "x" },
		"env":          func(c *runtime.ContainerConfig) { c.Env = []string{"x"} },
		"seccomp":      func(c *runtime.ContainerConfig) { c.Seccomp = "x" },
	} {
		cfg := e.config("c", "exit", "0")
		change(&cfg)
		if _, err := e.rt.StartContainer(e.ctx, "p", cfg); !errors.Is(err, runtime.ErrInvalid) {
			e.Errorf("%s: %v", name, err)
		}
	}
	for _, cfg := range []runtime.SandboxConfig{
		{ID: ""}, {ID: "a/b"}, {ID: ".."}, {ID: "x", NetNS: "y"}, {ID: "x", HostPID: true, SharePID: true},
		{ID: "x", CgroupParent: "../y"}, {ID: "x", Sysctls: map[string]string{"net.core.somaxconn": "1"}},
		{ID: "x", Sysctls: map[string]string{"../etc/x": "1"}},
	} {
		if _, err := e.rt.StartSandbox(e.ctx, cfg); !errors.Is(err, runtime.ErrInvalid) {
			e.Errorf("%+v: %v", cfg, err)
		}
	}
}

// many starts and ends sandboxes at once, some of them under one id.
func many(e *env) {
	const n = 12
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			id := fmt.Sprint("s", i%(n-2))
			if _, err := e.rt.StartSandbox(e.ctx, runtime.SandboxConfig{ID: id, LogDir: e.logs}); err != nil {
				e.Error(err)
				return
			}
			c := fmt.Sprint("c", i)
			if _, err := e.rt.StartContainer(e.ctx, id, e.config(c, "exit", fmt.Sprint(i))); err != nil {
				e.Error(err)
			}
		})
	}
	wg.Wait()
	var codes []int
	for i := range n {
		codes = append(codes, e.exited(fmt.Sprint("c", i)).ExitCode)
	}
	if !slices.IsSorted(codes) || codes[n-1] != n-1 {
		e.Errorf("exit codes %v", codes)
	}
}

func environment(e *env) {
	e.sandbox("p")
	cfg := e.config("c", "env", "COLOR")
	cfg.Env = []string{"COLOR=green"}
	if _, err := e.rt.StartContainer(e.ctx, "p", cfg); err != nil {
		e.Fatal(err)
	}
	cfg = e.config("d", "cwd")
	cfg.Cwd = "/some/where"
	if _, err := e.rt.StartContainer(e.ctx, "p", cfg); err != nil {
		e.Fatal(err)
	}
	e.start("p", "h", "hostname")
	for id, want := range map[string]string{"c": "green\n", "d": "/some/where\n", "h": "host-p\n"} {
		e.exited(id)
		if got := e.log(id, shim.Stdout); got != want {
			e.Errorf("%s says %q, want %q", id, got, want)
		}
	}
	cfg = e.config("x", "stubborn")
	cfg.Env = []string{"COLOR=red", "SIZE=big"}
	if _, err := e.rt.StartContainer(e.ctx, "p", cfg); err != nil {
		e.Fatal(err)
	}
	for name, want := range map[string]string{"SIZE": "big\n", "MORE": "yes\n"} {
		var out bytes.Buffer
		if _, err := e.rt.Exec(e.ctx, "p", "x", runtime.ExecConfig{Args: []string{Path, "env", name}, Env: []string{"MORE=yes"}}, runtime.Streams{Stdout: &out}); err != nil || out.String() != want {
			e.Errorf("exec has %s=%q, %v", name, out.String(), err)
		}
	}
}
