//go:build cgo && seccomp

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// pod is one container and what is around it.
type pod struct {
	options
	id     string
	number int

	netns string
	ct    *libcontainer.Container

	network, mount, container time.Duration
}

// start makes the pod and returns when its program runs.
func (p *pod) start() error {
	var err error
	t := time.Now()
	lap := func() time.Duration { d := time.Since(t); t = time.Now(); return d }
	if p.netns, err = p.makeNetwork(); err != nil {
		return fmt.Errorf("%s: network: %w", p.id, err)
	}
	p.network = lap()
	root, err := p.makeRoot()
	if err != nil {
		return fmt.Errorf("%s: root file system: %w", p.id, err)
	}
	p.mount = lap()
	spec, err := p.spec(root)
	if err != nil {
		return err
	}
	if p.runc != "" {
		err = p.startByRunc(spec)
	} else {
		err = p.startByLibrary(spec)
	}
	p.container = lap()
	if err != nil {
		return fmt.Errorf("%s: container: %w", p.id, err)
	}
	return nil
}

func (p *pod) path(name string) string { return filepath.Join(p.dir, p.id, name) }

// makeRoot mounts a writable layer over the image's.
func (p *pod) makeRoot() (string, error) {
	for _, d := range []string{"upper", "work", "rootfs"} {
		if err := os.MkdirAll(p.path(d), 0o755); err != nil {
			return "", err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", p.lower, p.path("upper"), p.path("work"))
	return p.path("rootfs"), unix.Mount("overlay", p.path("rootfs"), "overlay", 0, options)
}

// spec is libcontainer's own example with the pod's namespaces and program.
func (p *pod) spec(root string) (*specs.Spec, error) {
	s := specconv.Example()
	s.Root = &specs.Root{Path: root}
	s.Hostname = p.id
	s.Process.Args, s.Process.Terminal = p.args, false
	s.Linux.CgroupsPath = filepath.Join(p.cgroup, p.id)
	for i, ns := range s.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			s.Linux.Namespaces[i].Path = p.netns
		}
	}
	s.Process.Rlimits = nil // raising one takes a privilege that not every machine gives
	if p.seccomp {
		profile, err := defaultProfile(s)
		if err != nil {
			return nil, err
		}
		s.Linux.Seccomp = profile
	}
	return s, nil
}

func (p *pod) startByLibrary(spec *specs.Spec) error {
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: p.id, Spec: spec})
	if err != nil {
		return err
	}
	if p.ct, err = libcontainer.Create(filepath.Join(p.dir, "state"), p.id, config); err != nil {
		return err
	}
	return p.ct.Run(&libcontainer.Process{
		Args: spec.Process.Args, Env: spec.Process.Env, Cwd: spec.Process.Cwd, Init: true, Stderr: os.Stderr,
	})
}

func (p *pod) startByRunc(spec *specs.Spec) error {
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.path("config.json"), b, 0o600); err != nil {
		return err
	}
	if err := p.callRunc("create", "--bundle", filepath.Dir(p.path("x")), p.id); err != nil {
		return err
	}
	return p.callRunc("start", p.id)
}

func (p *pod) callRunc(args ...string) error {
	// Its output goes to a file: the container inherits it, and a pipe would
	// be read until the container's end.
	log, err := os.OpenFile(p.path("runc.log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.runc, append([]string{"--root", filepath.Join(p.dir, "state")}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("runc %s: %w: %s", args[0], err, said)
	}
	return nil
}

// end undoes what start did, as far as it came. Mounts and links go with the
// namespaces.
func (p *pod) end() error {
	if p.runc != "" {
		return p.callRunc("delete", "--force", p.id)
	}
	if p.ct == nil {
		return nil
	}
	err := p.ct.Signal(unix.SIGKILL)
	if errors.Is(err, libcontainer.ErrNotRunning) {
		err = nil
	}
	return errors.Join(err, p.ct.Destroy())
}
