// Package e2e drives the built programs, on one testbed for all its tests.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/wherry-project/wherry/internal/testbed"
	"github.com/wherry-project/wherry/internal/testimage"
)

const (
	helloImage   = "example.test/hello:1"   // on every node; see e2e/images/hello
	busyboxImage = "example.test/busybox:1" // on every node
	registryHost = "client:5000"            // serves what a test pushes to suite.registry
)

// suite is what all tests share: one cluster of three controls and two nodes.
var suite struct {
	*testbed.Testbed
	registry *testimage.Registry
}

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := runSuite(ctx, m)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runSuite(ctx context.Context, m *testing.M) (code int, err error) {
	bin := os.Getenv("WHERRY_BIN")
	if bin == "" {
		return 1, errors.New("$WHERRY_BIN does not say where the built programs are; `make test-e2e` builds them and says so")
	}
	if os.Geteuid() != 0 {
		return 1, errors.New("the hosts of these tests are made of namespaces: run them as root")
	}
	dir, err := os.MkdirTemp(os.Getenv("WHERRY_E2E_DIR"), "wherry-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	begun := time.Now()
	bed, err := testbed.Up(ctx, testbed.Options{
		Name: "e2e", Dir: dir, Bin: bin, Controls: 3, Nodes: 2,
		NodeConfig: "registries:\n  " + registryHost + ":\n    plain-http: true\n",
		Progress:   func(step string) { fmt.Printf("%6.2fs  %s\n", time.Since(begun).Seconds(), step) },
	})
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if bed != nil && code != 0 {
			err = errors.Join(err, keepLogs(bed))
		}
		err = errors.Join(err, testbed.Down(end, dir, "e2e"))
	}()
	if err != nil {
		return 1, err
	}
	suite.Testbed = bed.WithProgress(func(string) {})
	if err := loadImages(ctx, dir); err != nil {
		return 1, err
	}
	closeRegistry, err := serveRegistry(ctx)
	if err != nil {
		return 1, err
	}
	defer closeRegistry()
	return m.Run(), nil
}

// loadImages puts the test images onto every node.
func loadImages(ctx context.Context, dir string) error {
	hello, err := testimage.Hello(ctx)
	if err != nil {
		return err
	}
	busybox, err := testimage.Busybox()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "images.tar")
	err = testimage.WriteFile(file, testimage.WriteOCI, map[string]*testimage.Image{helloImage: hello, busyboxImage: busybox})
	if err != nil {
		return err
	}
	return errors.Join(suite.Load(ctx, file), os.Remove(file))
}

// serveRegistry serves images on the client host, which the nodes reach.
func serveRegistry(ctx context.Context) (stop func(), err error) {
	_, port, err := net.SplitHostPort(registryHost)
	if err != nil {
		return nil, err
	}
	l, err := suite.Listen(ctx, testbed.Client, "tcp", ":"+port)
	if err != nil {
		return nil, err
	}
	suite.registry = testimage.NewRegistry()
	srv := &http.Server{Handler: suite.registry, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	return func() { srv.Close(); <-done }, nil
}

// keepLogs copies the daemons' logs to $WHERRY_E2E_LOGS, or shows their ends.
func keepLogs(bed *testbed.Testbed) error {
	machines, err := bed.Machines()
	if err != nil {
		return err
	}
	keep := os.Getenv("WHERRY_E2E_LOGS")
	for _, m := range machines {
		daemon := m.Role.Daemon()
		b, readErr := os.ReadFile(bed.LogFile(m.Name, daemon))
		switch {
		case daemon == "" || readErr != nil:
		case keep == "":
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			fmt.Printf("--- the end of %s's log on %s (all of them: set $WHERRY_E2E_LOGS to a folder)\n%s\n",
				daemon, m.Name, strings.Join(lines[max(0, len(lines)-20):], "\n"))
		default:
			err = errors.Join(err, os.MkdirAll(keep, 0o755), os.WriteFile(filepath.Join(keep, m.Name+"-"+daemon+".log"), b, 0o644))
		}
	}
	return err
}

// wherry runs a wherry command on the client host and returns what it prints;
// it must succeed.
func wherry(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryWherry(t, "", args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// tryWherry is wherry with an input, for commands that may fail: the error is
// then a *testbed.ExitError.
func tryWherry(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	var out, errs strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := suite.Run(ctx, testbed.Client, testbed.Command{
		Argv: append([]string{"wherry"}, args...), Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs,
	})
	if exit := (*testbed.ExitError)(nil); errors.As(err, &exit) {
		exit.Stderr = errs.String()
	}
	return out.String(), err
}

// apply applies manifests in the namespace.
func apply(t *testing.T, namespace, manifests string) {
	t.Helper()
	if out, err := tryWherry(t, manifests, "-n", namespace, "apply", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// namespace makes a namespace for the test and deletes it afterwards. When the
// test has failed, it first shows what is in it.
func namespace(t *testing.T) string {
	t.Helper()
	name := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(t.Name()), "-"), "-")
	wherry(t, "create", "namespace", name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if t.Failed() {
			out, err := suite.Exec(ctx, testbed.Client, "wherry", "-n", name, "get", "pods,deployments,replicasets,services,endpointslices,events", "-o", "wide")
			t.Logf("namespace %s: %v\n%s", name, err, out)
		}
		if out, err := suite.Exec(ctx, testbed.Client, "wherry", "delete", "namespace", name, "--timeout=50s"); err != nil {
			t.Errorf("delete namespace %s: %v\n%s", name, err, out)
		}
	})
	return name
}

// kube is a Kubernetes client that speaks from the client host to one control,
// or to the one name of all of them.
func kube(t *testing.T, control string) *kubernetes.Clientset {
	t.Helper()
	config, err := suite.RESTConfig(testbed.Client, control)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
