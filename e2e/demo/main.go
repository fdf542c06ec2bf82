// Demo shows Wherry's main job on this machine with the built programs, by the
// commands that a user would give: a cluster of three controls and two nodes,
// a manifest, a page fetched by name from another node, the loss of the Raft
// leader, a scale through a survivor, the page again. It tells each step and
// how long it took, and leaves nothing behind.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/wherry-project/wherry/e2e/traces"
	"github.com/wherry-project/wherry/internal/testbed"
	"github.com/wherry-project/wherry/internal/testimage"
)

const (
	image   = "example.test/hello:1"
	prefix  = "demo-" // of the testbed's name; the demo's process id follows
	service = "hello.demo.svc.cluster.local"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is one run: its programs, its testbed, and what was done so far.
type demo struct {
	bin, name, scratch string
	up                 bool
	steps              []step
}

type step struct {
	what, result string
	took         time.Duration
}

func run(ctx context.Context) (err error) {
	bin := os.Getenv("WHERRY_BIN")
	if bin == "" {
		return errors.New("$WHERRY_BIN does not say where the built programs are; `make demo` does all")
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("the hosts of the demo are made of namespaces: run it as root")
	}
	if err := removeStale(ctx); err != nil {
		return err
	}
	name := prefix + strconv.Itoa(os.Getpid())
	left, err := traces.Before(testbeds(), name)
	if err != nil {
		return err
	}
	scratch := scratchOf(name)
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	d := &demo{bin: bin, name: name, scratch: scratch}
	err = d.play(ctx)
	if err != nil && ctx.Err() == nil {
		d.explain(context.WithoutCancel(ctx))
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err = errors.Join(err, d.do("remove the testbed", func() (string, error) {
		looked := left.Look()
		err := d.stream(end, "testbed", "down", "--name", d.name)
		if d.up {
			err = errors.Join(err, looked)
		}
		return left.String(), err
	}))
	err = errors.Join(err, d.do("look for anything left behind", func() (string, error) { return "nothing", left.AwaitGone(end) }))
	d.table()
	return err
}

// testbeds is where `wherry testbed` keeps them.
func testbeds() string { return cmp.Or(os.Getenv("WHERRY_TESTBED_DIR"), testbed.DefaultDir) }

func scratchOf(name string) string { return filepath.Join(os.TempDir(), "wherry-"+name) }

// removeStale removes the testbeds of demos that were killed.
func removeStale(ctx context.Context) error {
	names, err := testbed.Names(testbeds())
	if err != nil {
		return err
	}
	for _, name := range names {
		pid, ok := strings.CutPrefix(name, prefix)
		if _, err := strconv.Atoi(pid); !ok || err != nil {
			continue
		}
		if _, err := os.Stat("/proc/" + pid); err == nil {
			continue // it runs, or another program has its number by now
		}
		fmt.Printf("== remove what a demo that was killed has left: %s\n", name)
		if err := errors.Join(testbed.Down(ctx, testbeds(), name), os.RemoveAll(scratchOf(name))); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) play(ctx context.Context) error {
	archive := filepath.Join(d.scratch, "hello.tar")
	var leader string
	for _, s := range []struct {
		what string
		do   func() (string, error)
	}{
		{"build the image " + image, func() (string, error) { return "", buildImage(ctx, archive) }},
		{"bring up three controls and two nodes", func() (string, error) {
			err := d.stream(ctx, "testbed", "up", "--name", d.name, "--controls", "3", "--nodes", "2")
			d.up = err == nil
			return "all nodes Ready", err
		}},
		{"load the image onto the nodes", func() (string, error) { return "", d.stream(ctx, "testbed", "load", "--name", d.name, archive) }},
		{"apply examples/hello.yaml", func() (string, error) { return "", d.client(ctx, "apply", "-f", "examples/hello.yaml") }},
		{"wait until Ready", func() (string, error) { return d.ready(ctx, 3) }},
		{"ask for " + service, func() (string, error) { return d.ask(ctx, "lookup", service) }},
		{"fetch the page by that name", func() (string, error) { return d.fetch(ctx) }},
		{"kill the Raft leader (SIGKILL)", func() (result string, err error) {
			if leader, err = d.leader(ctx); err != nil {
				return "", err
			}
			return leader, d.stream(ctx, "testbed", "kill", "--name", d.name, leader)
		}},
		{"scale to 5 through a survivor", func() (string, error) {
			return "", d.client(ctx, "-n", "demo", "scale", "deployment", "hello", "--replicas=5")
		}},
		{"wait until 5 are Ready", func() (string, error) { return d.ready(ctx, 5) }},
		{"fetch the page again", func() (string, error) { return d.fetch(ctx) }},
		{"see who leads now", func() (string, error) {
			now, err := d.leader(ctx)
			if err == nil && now == leader {
				err = fmt.Errorf("%s was killed and still leads", now)
			}
			return now, err
		}},
	} {
		if err := d.do(s.what, s.do); err != nil {
			return err
		}
	}
	return nil
}

// do runs one step, told before and timed.
func (d *demo) do(what string, f func() (string, error)) error {
	fmt.Printf("\n== %s\n", what)
	begun := time.Now()
	result, err := f()
	took := time.Since(begun)
	if err != nil {
		result = "FAILED"
		err = fmt.Errorf("%s: %w", what, err)
	}
	d.steps = append(d.steps, step{what, result, took})
	return err
}

func (d *demo) table() {
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "STEP\tTOOK\tRESULT")
	var all time.Duration
	for _, s := range d.steps {
		fmt.Fprintf(w, "%s\t%.2f s\t%s\n", s.what, s.took.Seconds(), s.result)
		all += s.took
	}
	fmt.Fprintf(w, "all\t%.2f s\t\n", all.Seconds())
	w.Flush()
}

func buildImage(ctx context.Context, path string) error {
	hello, err := testimage.Hello(ctx)
	if err != nil {
		return err
	}
	return testimage.WriteFile(path, testimage.WriteOCI, map[string]*testimage.Image{image: hello})
}

// command is a wherry command with its whole command line shown.
func (d *demo) command(ctx context.Context, args ...string) *exec.Cmd {
	fmt.Printf("$ wherry %s\n", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "wherry"), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = &indented{w: os.Stdout}
	return cmd
}

// stream runs a wherry command and shows what it says.
func (d *demo) stream(ctx context.Context, args ...string) error {
	cmd := d.command(ctx, args...)
	cmd.Stdout = &indented{w: os.Stdout}
	return cmd.Run()
}

// client runs a wherry command on the client host, which has the kubeconfig.
func (d *demo) client(ctx context.Context, args ...string) error {
	return d.stream(ctx, d.onClient(args...)...)
}

func (d *demo) onClient(args ...string) []string {
	return append([]string{"testbed", "exec", "--name", d.name, "client", "--", "wherry"}, args...)
}

// output runs a wherry command on the client host and returns what it prints.
func (d *demo) output(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := d.command(ctx, d.onClient(args...)...)
	cmd.Stdout = &out
	err := cmd.Run()
	return out.String(), err
}

// ready waits until the Deployment has n ready replicas and shows the pods.
func (d *demo) ready(ctx context.Context, n int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err := errors.Join(
		d.client(ctx, "-n", "demo", "rollout", "status", "deployment", "hello", "--timeout=90s"),
		d.client(ctx, "-n", "demo", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s"),
		d.client(ctx, "-n", "demo", "get", "pods,services,endpointslices", "-o", "wide"),
	)
	if err != nil {
		return "", err
	}
	got, err := d.output(ctx, "-n", "demo", "get", "deployment", "hello", "-o", "jsonpath={.status.readyReplicas}")
	if err == nil && got != fmt.Sprint(n) {
		err = fmt.Errorf("%q replicas are ready, not %d", got, n)
	}
	return got + " of hello, and the client", err
}

// ask runs the client pod's program.
func (d *demo) ask(ctx context.Context, args ...string) (string, error) {
	out, err := d.output(ctx, append([]string{"-n", "demo", "exec", "client", "--", "/hello"}, args...)...)
	fmt.Print(indent(out))
	return strings.TrimSpace(out), err
}

// fetch fetches the page until a pod on another node than the client's has
// answered.
func (d *demo) fetch(ctx context.Context) (string, error) {
	where, err := d.nodes(ctx)
	if err != nil {
		return "", err
	}
	for range 30 { // a connection goes to any of the pods
		page, err := d.ask(ctx, "fetch", "http://"+service+"/")
		if err != nil {
			return "", err
		}
		pod, ok := strings.CutPrefix(strings.SplitN(page, "\n", 2)[0], "hello from ")
		if !ok || where[pod] == "" {
			return "", fmt.Errorf("the page is not of a pod of hello: %q", page)
		}
		if where[pod] != where["client"] {
			return fmt.Sprintf("from %s on %s, to client on %s", pod, where[pod], where["client"]), nil
		}
	}
	return "", fmt.Errorf("no answer came from another node than %s: %v", where["client"], where)
}

// nodes returns the node of every pod.
func (d *demo) nodes(ctx context.Context) (map[string]string, error) {
	out, err := d.output(ctx, "-n", "demo", "get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{"\n"}{end}`)
	where := map[string]string{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 2 {
			where[f[0]] = f[1]
		}
	}
	return where, err
}

// leader asks the cluster who leads it.
func (d *demo) leader(ctx context.Context) (string, error) {
	out, err := d.output(ctx, "cluster", "members", "-o", "json")
	if err != nil {
		return "", err
	}
	var m struct {
		Members []struct {
			Name   string
			Leader bool
		}
	}
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		return "", err
	}
	i := slices.IndexFunc(m.Members, func(m struct {
		Name   string
		Leader bool
	}) bool {
		return m.Leader
	})
	if i < 0 {
		return "", fmt.Errorf("nobody leads: %s", out)
	}
	return m.Members[i].Name, nil
}

// explain shows how things stand after a failure.
func (d *demo) explain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	fmt.Println("\n== how things stand")
	_ = d.stream(ctx, "testbed", "status", "--name", d.name)
	_ = d.client(ctx, "get", "nodes,pods,deployments,replicasets,endpointslices,events", "-A", "-o", "wide", "--request-timeout=5s")
	for _, host := range []string{"c1", "c2", "c3", "n1", "n2"} {
		var log bytes.Buffer
		cmd := d.command(ctx, "testbed", "logs", "--name", d.name, host)
		cmd.Stdout = &log
		_ = cmd.Run()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		fmt.Print(indent(strings.Join(lines[max(0, len(lines)-30):], "\n") + "\n"))
	}
}

// indented shows a command's output as such, line by line.
type indented struct {
	w    io.Writer
	rest []byte // of a line that is not complete
}

// Write keeps what comes after the last line's end.
func (i *indented) Write(b []byte) (int, error) {
	i.rest = append(i.rest, b...)
	end := bytes.LastIndexByte(i.rest, '\n') + 1
	_, err := io.WriteString(i.w, indent(string(i.rest[:end])))
	i.rest = append([]byte{}, i.rest[end:]...)
	return len(b), err
}

func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString("  " + line)
	}
	return b.String()
}
