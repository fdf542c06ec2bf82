package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/wherry-project/wherry/internal/testbed"
	"github.com/wherry-project/wherry/internal/testkit"
)

// wherry runs a wherry command on the client host and returns what it prints;
// it must succeed.
func wherry(t testing.TB, args ...string) string {
	t.Helper()
	out, err := tryWherry(t, "", args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// tryWherry is wherry with an input, for commands that may fail: the error is
// then a *testbed.ExitError.
func tryWherry(t testing.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	return on(ctx, testbed.Client, stdin, append([]string{"wherry"}, args...)...)
}

// on runs a command with an input in a host.
func on(ctx context.Context, host, stdin string, argv ...string) (string, error) {
	var out, errs strings.Builder
	err := suite.Run(ctx, host, testbed.Command{Argv: argv, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs})
	if exit := (*testbed.ExitError)(nil); errors.As(err, &exit) {
		exit.Stderr = errs.String()
	}
	return out.String(), err
}

// refused runs a command that must fail, with all of these in what it says.
func refused(t testing.TB, stdin string, args []string, says ...string) {
	t.Helper()
	out, err := tryWherry(t, stdin, args...)
	checkRefused(t, out, err, says...)
}

func checkRefused(t testing.TB, out string, err error, says ...string) {
	t.Helper()
	exit := (*testbed.ExitError)(nil)
	if !errors.As(err, &exit) {
		t.Errorf("it was not refused: %v\n%s", err, out)
		return
	}
	for _, s := range says {
		if !strings.Contains(exit.Stderr, s) {
			t.Errorf("%s said\n%s\nwithout %q", strings.Join(exit.Argv, " "), exit.Stderr, s)
		}
	}
}

// patience is for a busy machine, and for a leader that it may lose meanwhile.
const patience = time.Minute

// eventually waits for a condition.
func eventually(t testing.TB, ok func() error) {
	t.Helper()
	testkit.Eventually(t, patience, ok)
}

// says waits until a command succeeds and prints this text: for what a
// controller or a node does after the command that caused it has ended.
func says(t testing.TB, want string, args ...string) (out string) {
	t.Helper()
	eventually(t, func() (err error) {
		if out, err = tryWherry(t, "", args...); err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("it says\n%s\nwithout %q", out, want)
		}
		return err
	})
	return out
}

// background runs a wherry command on the client host until stop is called or
// the test ends. What it has printed so far can be asked for meanwhile.
type background struct {
	stop func() error
	out  lockedBuffer
}

func start(t testing.TB, args ...string) *background {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b, done := &background{}, make(chan error, 1)
	go func() {
		done <- suite.Run(ctx, testbed.Client, testbed.Command{Argv: append([]string{"wherry"}, args...), Stdout: &b.out, Stderr: &b.out})
	}()
	b.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = b.stop() })
	return b
}

// prints waits until the command has printed something.
func (b *background) prints(t testing.TB, want string) {
	t.Helper()
	eventually(t, func() error {
		if got := b.out.String(); !strings.Contains(got, want) {
			return errors.New("it has printed\n" + got + "\nwithout " + want)
		}
		return nil
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// apply applies manifests in the namespace.
func apply(t testing.TB, namespace, manifests string) {
	t.Helper()
	if out, err := tryWherry(t, manifests, "-n", namespace, "apply", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// namespace makes a namespace for the test and deletes it afterwards. When the
// test has failed, it first shows what is in it.
func namespace(t testing.TB) string {
	t.Helper()
	name := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(t.Name()), "-"), "-")
	wherry(t, "create", "namespace", name)
	// What a controller puts into it may not come between other objects.
	eventually(t, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if out, err := on(ctx, testbed.Client, "", "wherry", "-n", name, "get", "serviceaccount/default", "configmap/kube-root-ca.crt"); err != nil {
			return fmt.Errorf("%w %s", err, out)
		}
		return nil
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if t.Failed() {
			out, err := suite.Exec(ctx, testbed.Client, "wherry", "-n", name, "get", "pods,deployments,replicasets,services,endpointslices,events", "-o", "wide")
			t.Logf("namespace %s: %v\n%s", name, err, out)
		}
		if out, err := suite.Exec(ctx, testbed.Client, "wherry", "delete", "namespace", name, "--timeout=100s"); err != nil {
			t.Errorf("delete namespace %s: %v\n%s", name, err, out)
		}
	})
	return name
}

// kube is a Kubernetes client that speaks from the client host to one control,
// or to the one name of all of them.
func kube(t testing.TB, control string) *kubernetes.Clientset {
	return kubeFrom(t, testbed.Client, control)
}

// kubeFrom is kube for another host to speak from.
func kubeFrom(t testing.TB, host, control string) *kubernetes.Clientset {
	t.Helper()
	config, err := suite.RESTConfig(host, control)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// member is a line of `wherry cluster members`.
type member struct {
	Name                     string
	Leader, Voter, Reachable bool
}

func members(ctx context.Context) ([]member, error) {
	out, err := on(ctx, testbed.Client, "", "wherry", "cluster", "members", "-o", "json")
	var m struct{ Members []member }
	if err == nil {
		err = json.Unmarshal([]byte(out), &m)
	}
	return m.Members, err
}

// leader returns the name of the control that leads.
func leader(t testing.TB) (name string) {
	t.Helper()
	eventually(t, func() error {
		all, err := members(t.Context())
		for _, m := range all {
			if m.Leader && m.Name != "" {
				name = m.Name
				return nil
			}
		}
		return errors.Join(err, errors.New("nobody leads"))
	})
	return name
}

// follower returns the name of a control that does not lead.
func follower(t testing.TB) string {
	t.Helper()
	l := leader(t)
	for _, c := range controls {
		if c != l {
			return c
		}
	}
	return ""
}
