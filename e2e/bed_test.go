// Package e2e drives the built programs, on one testbed for all its tests.
package e2e

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/testbed"
	"github.com/wherry-project/wherry/internal/testimage"
)

const (
	helloImage   = "example.test/hello:1"   // on every node; see e2e/images/hello
	busyboxImage = "example.test/busybox:1" // on every node
	registryHost = "client:5000"            // serves what a test pushes to suite.registry
	upstream     = "10.99.0.2:5353"         // the resolver that the nodes ask for other names; a test serves it on the client host
	nodeGrace    = 5 * time.Second          // after which a silent node is NotReady
)

var controls, nodes = []string{"c1", "c2", "c3"}, []string{"n1", "n2"}

// suite is what all tests share: one cluster of three controls and two nodes.
var suite struct {
	*testbed.Testbed
	registry *testimage.Registry
	hello    *testimage.Image
}

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Tests that run side by side mostly wait for what goes on in the hosts:
	// more of them than there are processors.
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
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
	dir, err := suiteDir(ctx)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	begun := time.Now()
	bed, err := testbed.Up(ctx, testbed.Options{
		Name: "e2e", Dir: dir, Bin: bin, Controls: 3, Nodes: 2,
		ControlConfig: fmt.Sprintf("node-grace: %v\n", nodeGrace),
		NodeConfig:    "registries:\n  " + registryHost + ":\n    plain-http: true\ndns-upstream: [" + upstream + "]\n",
		Progress:      func(step string) { fmt.Printf("%6.2fs  %s\n", time.Since(begun).Seconds(), step) },
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

// suiteDir makes the suite's own folder, and first removes what suites that
// were killed have left: go test's own time-out is such an end.
func suiteDir(ctx context.Context) (string, error) {
	base := filepath.Join(cmp.Or(os.Getenv("WHERRY_E2E_DIR"), os.TempDir()), "wherry-e2e-of-")
	old, err := filepath.Glob(base + "*")
	if err != nil {
		return "", err
	}
	for _, dir := range old {
		pid, err := strconv.Atoi(strings.TrimPrefix(dir, base))
		if err != nil {
			continue // not a suite's
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			continue // it runs, or another program has its number by now
		}
		fmt.Println("e2e: remove what a suite that was killed has left in", dir)
		if err := errors.Join(testbed.Down(ctx, dir, "e2e"), os.RemoveAll(dir)); err != nil {
			return "", err
		}
	}
	dir := base + strconv.Itoa(os.Getpid())
	return dir, os.Mkdir(dir, 0o700)
}

// loadImages puts the test images onto every node.
func loadImages(ctx context.Context, dir string) error {
	hello, err := testimage.Hello(ctx)
	if err != nil {
		return err
	}
	suite.hello = hello
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
