// Command podshim is the parent process of one pod's containers. noded starts
// one per pod; it outlives noded, keeps the containers' streams, writes their
// logs and how they ended to disk, and answers noded on a Unix socket. To make a
// container it starts podrun, whose orphans it inherits as child subreaper.
//
// It takes one argument, the pod's directory, and its listening socket as file
// descriptor 3. It links nothing but the standard library, and of that little:
// every pod pays for it.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/wherry-project/wherry/internal/shim"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == pauseArg {
		pause()
	}
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "podshim is started by noded: podshim POD-DIRECTORY, with a listening socket as file descriptor 3")
		os.Exit(2)
	}
	// A shim has next to no garbage and is one of hundreds.
	debug.SetGCPercent(25)
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "podshim:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	pod, err := shim.ReadPod(dir)
	if err != nil {
		return err
	}
	// Whoever stops the cgroup stops the containers too: wait for them.
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM)
	// Socket and pod exist before this process does, so noded is waiting for
	// an answer: a failure is told there.
	l, err := listen(3)
	if err != nil {
		return err
	}
	s := newServer(pod)
	s.failed = s.prepare()
	go func() {
		<-term
		s.quitWhenIdle()
	}()
	return s.serve(l)
}
