package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFramesCarryMessages(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() {
		conn := NewConn(b)
		req, err := conn.ReadRequest()
		if err != nil {
			t.Error(err)
		}
		_ = conn.WriteJSON(FrameMessage, Response{Format: Format, PID: 7, Error: nil, PIDNS: string(req.Op)})
		if _, err := conn.ReadRequest(); err != nil {
			t.Error(err)
		}
		_ = conn.WriteJSON(FrameMessage, Response{Format: Format, Error: Errorf(KindStart, "no %s", "way")})
		big := bytes.Repeat([]byte("x"), 3*MaxChunk)
		_ = conn.Write(FrameStdout, big)
		_ = conn.Write(FrameStderr, nil)
		b.Close()
	}()
	conn := NewConn(a)
	resp, err := conn.Call(Request{Op: OpHello})
	if err != nil || resp.PID != 7 || resp.PIDNS != "hello" {
		t.Fatalf("%+v, %v", resp, err)
	}
	var e *Error
	if _, err := conn.Call(Request{Op: OpHello}); !errors.As(err, &e) || e.Kind != KindStart || e.Message != "no way" {
		t.Fatal(err)
	}
	if kind, data, err := conn.Read(); err != nil || kind != FrameStdout || len(data) != 3*MaxChunk {
		t.Fatal(kind, len(data), err)
	}
	if kind, data, err := conn.Read(); err != nil || kind != FrameStderr || len(data) != 0 {
		t.Fatal(kind, len(data), err)
	}
	if _, _, err := conn.Read(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func TestForeignMessagesAreRefused(t *testing.T) {
	for name, test := range map[string]struct{ sent, want string }{
		"newer format": {"m\x00\x00\x00\x0e{\"format\":999}", "programs of different releases"},
		"no format":    {"m\x00\x00\x00\x02{}", "format 0"},
		"HTTP":         {"GET / HTTP/1.1\r\n", "speaks something else"},
		"cut off":      {"m\x00\x00\x00\x05{", "unexpected EOF"},
		"not JSON":     {"m\x00\x00\x00\x01x", "invalid character"},
		"other frame":  {"o\x00\x00\x00\x01x", "where a message belongs"},
	} {
		_, err := NewConn(struct {
			io.Reader
			io.Writer
		}{strings.NewReader(test.sent), io.Discard}).ReadRequest()
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("m\x00\x00\x00\x0c{\"format\":1}"))
	f.Add([]byte("m\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		conn := NewConn(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(b), io.Discard})
		for {
			if _, err := conn.ReadRequest(); err != nil {
				return
			}
		}
	})
}

func TestExitFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadExit(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	want := Exit{Code: 137, Signal: 9, OOMKilled: true, FinishedAt: time.Now().UTC().Truncate(0)}
	if err := WriteExit(dir, want); err != nil {
		t.Fatal(err)
	}
	want.Format = Format
	if got, err := ReadExit(dir); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, exitFile), []byte(`{"format":2,"code":0}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadExit(dir); err == nil || !strings.Contains(err.Error(), "releases") {
		t.Errorf("an exit of a newer format: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}

func TestParseLine(t *testing.T) {
	at := time.Date(2025, 1, 2, 3, 4, 5, 6000, time.UTC)
	for _, l := range []Line{
		{Time: at, Stream: Stdout, Text: []byte("hello world")},
		{Time: at, Stream: Stderr, Partial: true, Text: []byte(" two  blanks ")},
		{Time: at, Stream: Stdout, Text: []byte{}},
		{Time: at, Stream: Stdout, Text: []byte("\x00\xff\r")},
	} {
		b := AppendLine(nil, l)
		got, err := ParseLine(b)
		if err != nil || !got.Time.Equal(l.Time) || got.Stream != l.Stream || got.Partial != l.Partial || !bytes.Equal(got.Text, l.Text) {
			t.Errorf("%q: %+v, %v", b, got, err)
		}
	}
	if got := string(AppendLine(nil, Line{Time: at, Stream: Stdout, Text: []byte("x")})); got != "2025-01-02T03:04:05.000006Z stdout F x\n" {
		t.Errorf("%q", got)
	}
	for _, bad := range []string{"", "x", "2025-01-02T03:04:05Z", "2025-01-02T03:04:05Z stdin F x", "2025-01-02T03:04:05Z stdout X x", "now stdout F x"} {
		if _, err := ParseLine([]byte(bad)); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
}

func TestLinesAreCut(t *testing.T) {
	at := time.Now()
	long := strings.Repeat("a", MaxLine)
	for name, test := range map[string]struct {
		in   []string
		want []string // P or F and the text
	}{
		"one":            {[]string{"x\n"}, []string{"Fx"}},
		"several":        {[]string{"x\ny\n\nz\n"}, []string{"Fx", "Fy", "F", "Fz"}},
		"in pieces":      {[]string{"he", "ll", "o\nw", "orld\n"}, []string{"Fhello", "Fworld"}},
		"no end":         {[]string{"x\ny"}, []string{"Fx", "Py"}},
		"exactly full":   {[]string{long + "\n"}, []string{"F" + long}},
		"one too long":   {[]string{long + "b\n"}, []string{"P" + long, "Fb"}},
		"long in pieces": {[]string{long[:10], long, "b\n"}, []string{"P" + long, "Faaaaaaaaaab"}},
		"thrice as long": {[]string{long + long + long + "\n"}, []string{"P" + long, "P" + long, "F" + long}},
		"nothing":        {nil, nil},
	} {
		lines := NewLines(Stdout)
		var out []byte
		for _, in := range test.in {
			out = append(out, lines.Append([]byte(in), at)...)
		}
		out = append(out, lines.Flush(at)...)
		var got []string
		for b := range bytes.Lines(out) {
			l, err := ParseLine(b)
			if err != nil {
				t.Fatal(err)
			}
			tag := "F"
			if l.Partial {
				tag = "P"
			}
			got = append(got, tag+string(l.Text))
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: %d lines, want %d: %.60q", name, len(got), len(test.want), got)
		}
	}
}

func TestLogRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "0.log")
	l, err := OpenLog(path, 100, 3)
	if err != nil {
		t.Fatal(err)
	}
	line := bytes.Repeat([]byte("x"), 39)
	line = append(line, '\n')
	for range 9 { // two fit a file
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	files, err := RotatedLogs(path)
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for f, want := range map[string]int{files[0]: 80, files[1]: 80, path: 40} {
		if b, err := os.ReadFile(f); err != nil || len(b) != want {
			t.Errorf("%s: %d bytes, %v", f, len(b), err)
		}
	}
	l.Close()
	// A log that was closed goes on where it was.
	if l, err = OpenLog(path, 100, 3); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if again, _ := RotatedLogs(path); len(again) != 2 || again[1] == files[1] {
		t.Errorf("%v after %v", again, files)
	}
	l.Close()
}

func TestLogSaysWhatItLost(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	l, err := OpenLog(path, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	good := l.f
	if l.f, err = os.Open(path); err != nil { // cannot be written
		t.Fatal(err)
	}
	line := AppendLine(nil, Line{Time: time.Now(), Stream: Stdout, Text: []byte("lost")})
	if _, err := l.Write(line); err == nil {
		t.Fatal("written")
	}
	l.f.Close()
	l.f = good
	if _, err := l.Write(AppendLine(nil, Line{Time: time.Now(), Stream: Stdout, Text: []byte("kept")})); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	if !strings.Contains(string(b), fmt.Sprintf("%d bytes of log were lost", len(line))) || !strings.Contains(string(b), "kept") {
		t.Errorf("%q", b)
	}
	l.Close()
}

func TestProcessIsNotItsPid(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait() }()
	p, err := FindProcess(cmd.Process.Pid)
	if err != nil || !p.Alive() {
		t.Fatalf("%+v, %v", p, err)
	}
	for name, other := range map[string]Process{
		"earlier process": {PID: p.PID, Start: p.Start - 1, BootID: p.BootID},
		"earlier boot":    {PID: p.PID, Start: p.Start, BootID: "x"},
		"no process":      {},
	} {
		if other.Alive() {
			t.Errorf("%s is alive", name)
		}
		if err := other.Kill(time.Second); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !p.Alive() {
		t.Error("killed in place of another")
	}
	if err := p.Kill(20 * time.Second); err != nil {
		t.Error(err)
	}
	<-waited
	if p.Alive() {
		t.Error("still alive")
	}
	if err := p.Kill(time.Second); err != nil {
		t.Error(err)
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("Weight(%d) = %d, want %d", shares, got, want)
		}
	}
	last := uint64(0)
	for s := uint64(2); s < 262144; s += 17 {
		if w := Weight(s); w < last {
			t.Fatalf("Weight(%d) = %d after %d", s, w, last)
		} else {
			last = w
		}
	}
}

func TestCgroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes cgroups")
	}
	g, err := FindCgroups()
	if err != nil {
		t.Fatal(err)
	}
	root := fmt.Sprintf("/wherry-shim-test-%d", os.Getpid())
	path := root + "/pod/ctr"
	t.Cleanup(func() {
		if err := g.Kill(root, 20*time.Second); err != nil {
			t.Error(err)
		}
		if err := g.Remove(root); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		if err := g.Create(path); err != nil {
			t.Fatal(err)
		}
	}
	if !g.Exists(path) {
		t.Error("not there")
	}
	if err := g.Set(root+"/pod", Limits{CPUShares: 512, CPUQuota: 20000, Memory: 100 << 20, Pids: 50}); err != nil {
		t.Error(err)
	}
	if err := g.Set(root+"/pod", Limits{CPUQuota: -1, Memory: -1, Pids: -1}); err != nil {
		t.Error(err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	if err := g.Join(path, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	g.Wake()
	if pids, err := g.Pids(root); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Errorf("%v, %v", pids, err)
	}
	if err := g.Remove(path); err == nil {
		t.Error("removed with a process in it")
	}
	if err := g.Kill(root, 20*time.Second); err != nil {
		t.Error(err)
	}
	if n := g.OOMKills(path); n != 0 {
		t.Errorf("%d OOM kills", n)
	}
	for range 2 {
		if err := g.Remove(root); err != nil {
			t.Error(err)
		}
	}
	if g.Exists(root) || g.Exists(path) {
		t.Error("still there")
	}
	if err := g.Remove("/"); err == nil {
		t.Error("removed the root cgroup")
	}
}
