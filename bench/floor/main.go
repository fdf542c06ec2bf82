//go:build cgo && seccomp

// Floor starts containers with as little as there can be around them: in one
// process, for each a network namespace with an address, an overlay mount, and
// libcontainer's create and start. What Wherry takes for a pod is measured
// beside it.
//
// It must be started in mount, network and PID namespaces of its own; they take
// everything with them when it ends. It prints its times as JSON.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	_ "github.com/opencontainers/cgroups/devices"
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
)

// options say what is measured.
type options struct {
	dir      string // everything that is written lies below
	lower    string // the image's one layer
	cgroup   string
	pods     int
	parallel int
	seccomp  bool
	runc     string // the runc program instead of the library
	args     []string
}

// result is printed.
type result struct {
	// Network, Mount and Container are the parts of each pod's time, in ms.
	Network, Mount, Container []float64
	// Total is each pod's time, Wall that of all together.
	Total []float64
	Wall  float64
	// CPU is the processor time of all pods' starts.
	CPU float64
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "init" { // first: this is runc's child
		runtime.GOMAXPROCS(1)
		runtime.LockOSThread()
		libcontainer.Init()
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run() error {
	var o options
	flag.StringVar(&o.dir, "dir", "", "folder for everything that is written")
	flag.StringVar(&o.lower, "lower", "", "folder with the image's files")
	flag.StringVar(&o.cgroup, "cgroup", "", "cgroup below which the containers' are made")
	flag.IntVar(&o.pods, "pods", 30, "how many to start")
	flag.IntVar(&o.parallel, "parallel", 1, "how many at once")
	flag.BoolVar(&o.seccomp, "seccomp", false, "with the default system call filter")
	flag.StringVar(&o.runc, "runc", "", "start them with this runc program instead of the library")
	flag.Parse()
	o.args = flag.Args()
	if o.dir == "" || o.lower == "" || o.cgroup == "" || len(o.args) == 0 {
		return errors.New("usage: floor -dir DIR -lower DIR -cgroup PATH [-pods N] [-parallel N] [-seccomp] [-runc PROGRAM] -- COMMAND…")
	}
	if os.Getpid() != 1 {
		return errors.New("floor must be the first process of a PID namespace, so that nothing outlives it")
	}
	if err := prepare(o); err != nil {
		return err
	}
	r, err := measure(o)
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(r))
}

// prepare makes the mount namespace private and gives it a /proc of its own.
func prepare(o options) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("set mounts apart: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return os.MkdirAll(filepath.Join(o.dir, "state"), 0o700)
}

// measure starts all pods, then ends them.
func measure(o options) (result, error) {
	var r result
	var mu sync.Mutex
	var errs []error
	pods := make([]*pod, o.pods)
	next := make(chan int)
	var wg sync.WaitGroup
	began := time.Now()
	for range o.parallel {
		wg.Go(func() {
			for i := range next {
				p := &pod{options: o, id: fmt.Sprint("pod", i), number: i}
				start := time.Now()
				err := p.start()
				total := time.Since(start)
				mu.Lock()
				pods[i] = p
				if err != nil {
					errs = append(errs, err)
				} else {
					r.Total = append(r.Total, ms(total))
					r.Network = append(r.Network, ms(p.network))
					r.Mount = append(r.Mount, ms(p.mount))
					r.Container = append(r.Container, ms(p.container))
				}
				mu.Unlock()
			}
		})
	}
	for i := range pods {
		next <- i
	}
	close(next)
	wg.Wait()
	r.Wall = ms(time.Since(began))
	r.CPU = ms(cpuTime())
	for _, p := range pods {
		errs = append(errs, p.end())
	}
	return r, errors.Join(errs...)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
