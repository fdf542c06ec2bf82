package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// floorRun is one run of the floor program.
type floorRun struct {
	name     string
	pods     int
	parallel int
	seccomp  bool
	runc     string
}

// floorResult is what it measured, in ms.
type floorResult struct {
	Network, Mount, Container, Total []float64
	Wall, CPU                        float64
}

func durations(ms []float64) samples {
	var s samples
	for _, v := range ms {
		s = append(s, time.Duration(v*float64(time.Millisecond)))
	}
	return s
}

// buildFloor builds the floor program as podrun is built: static, with cgo.
func (b *bench) buildFloor(ctx context.Context) (string, error) {
	out := filepath.Join(b.dir, "floor")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "seccomp netgo osusergo",
		"-ldflags", `-s -w -extldflags "-static"`, "-o", out, "github.com/wherry-project/wherry/bench/floor")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the floor program: %w\n%s", err, said)
	}
	return out, nil
}

// runFloor runs it in namespaces of its own.
func (b *bench) runFloor(ctx context.Context, program string, f floorRun) (r floorResult, err error) {
	dir, err := os.MkdirTemp(b.dir, "floor-")
	if err != nil {
		return r, err
	}
	lower := filepath.Join(dir, "image")
	if err := makeImage(lower); err != nil {
		return r, err
	}
	cgroup := fmt.Sprint("/wherry-bench-", os.Getpid())
	defer func() { err = errors.Join(err, removeCgroups(cgroup)) }() // the files go at the end, see podTimes
	args := []string{"-dir", dir, "-lower", lower, "-cgroup", cgroup, "-pods", fmt.Sprint(f.pods), "-parallel", fmt.Sprint(f.parallel)}
	if f.seccomp {
		args = append(args, "-seccomp")
	}
	if f.runc != "" {
		args = append(args, "-runc", f.runc)
	}
	cmd := exec.Command(program, append(args, "--", "/bin/busybox", "sleep", "1000")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID}
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	p, err := b.procs.start(cmd)
	if err != nil {
		return r, err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return r, errors.Join(ctx.Err(), p.kill())
	}
	if p.err != nil {
		return r, fmt.Errorf("floor (%s): %w\n%s", f.name, p.err, said.String())
	}
	return r, json.Unmarshal([]byte(out.String()), &r)
}

// makeImage makes the root file system of the floor's containers.
func makeImage(dir string) error {
	for _, d := range []string{"bin", "proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "bin", "busybox"), program, 0o755)
}

// removeCgroups removes a cgroup, empty by now, from every hierarchy.
func removeCgroups(name string) error {
	roots, err := filepath.Glob("/sys/fs/cgroup/*" + name)
	if err != nil {
		return err
	}
	for _, root := range append(roots, "/sys/fs/cgroup"+name) {
		var dirs []string
		err = errors.Join(err, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		}))
		for i := len(dirs) - 1; i >= 0; i-- { // the innermost first
			err = errors.Join(err, removeCgroup(dirs[i]))
		}
	}
	return err
}

// removeCgroup waits until the kernel has let go of the processes in it.
func removeCgroup(dir string) error {
	for try := 0; ; try++ {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, os.ErrNotExist) || !errors.Is(err, syscall.EBUSY) || try == 100 {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}
