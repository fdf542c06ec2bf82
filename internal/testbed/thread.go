package testbed

import (
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// onThread runs fn on an OS thread that ends with it, so that fn may leave the
// thread in other namespaces and cgroups. It is never the process's first
// thread, which could not end.
func onThread(fn func() error) error {
	done := make(chan error)
	var run func()
	run = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			again := make(chan struct{})
			go func() { run(); close(again) }() // elsewhere: this thread is taken
			<-again
			runtime.UnlockOSThread()
			return
		}
		done <- fn()
	}
	go run()
	return <-done
}

// startIn starts cmd in the cgroup rel of every hierarchy. before, if given,
// runs on the starting thread, in that cgroup.
func startIn(cmd *exec.Cmd, trees []hierarchy, rel string, before func() error) error {
	return onThread(func() error {
		v2, err := joinThread(trees, rel)
		if err != nil {
			return err
		}
		if v2 != nil {
			defer v2.Close()
			if cmd.SysProcAttr == nil {
				cmd.SysProcAttr = &syscall.SysProcAttr{}
			}
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(v2.Fd())
		}
		if before != nil {
			if err := before(); err != nil {
				return err
			}
		}
		return cmd.Start()
	})
}
