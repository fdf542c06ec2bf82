package runtimetest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/wherry-project/wherry/internal/runtime"
)

// Path is where the suite expects Program in a container.
const Path = "/bin/prog"

// Program is what the suite runs in containers. A Fake runs it as it is; a real
// runtime runs testdata/prog, which is a main around it. Its first argument says
// what to do.
func Program(p *runtime.Proc) int {
	if len(p.Args) < 2 {
		fmt.Fprintln(p.Stderr, "nothing to do")
		return 64
	}
	args := p.Args[2:]
	switch p.Args[1] {
	case "exit": // exit CODE
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return 64
		}
		return code
	case "echo": // echo WORD…: to stdout
		fmt.Fprintln(p.Stdout, strings.Join(args, " "))
	case "complain": // complain WORD…: to stderr
		fmt.Fprintln(p.Stderr, strings.Join(args, " "))
	case "count": // count N WIDTH: numbered lines
		n, _ := strconv.Atoi(args[0])
		width, _ := strconv.Atoi(args[1])
		out := bufio.NewWriter(p.Stdout)
		for i := range n {
			fmt.Fprintf(out, "%0*d\n", width, i)
		}
		out.Flush()
	case "env": // env NAME
		for _, e := range p.Env {
			if v, ok := strings.CutPrefix(e, args[0]+"="); ok {
				fmt.Fprintln(p.Stdout, v)
				return 0
			}
		}
		return 1
	case "cwd":
		fmt.Fprintln(p.Stdout, p.Cwd)
	case "hostname":
		fmt.Fprintln(p.Stdout, p.Hostname)
	case "cat": // stdin to stdout, to its end
		if _, err := io.Copy(p.Stdout, p.Stdin); err != nil {
			return 1
		}
	case "wait": // wait CODE: until SIGTERM or SIGUSR1, then exit with the code
		fmt.Fprintln(p.Stdout, "waiting")
		for {
			select {
			case sig := <-p.Signals:
				fmt.Fprintln(p.Stdout, "got", int(sig))
				if sig == syscall.SIGTERM || sig == syscall.SIGUSR1 {
					code, _ := strconv.Atoi(args[0])
					return code
				}
			case <-p.Killed:
				return 0
			}
		}
	case "stubborn": // until killed
		fmt.Fprintln(p.Stdout, "waiting")
		for {
			select {
			case <-p.Signals:
			case <-p.Killed:
				return 0
			}
		}
	default:
		fmt.Fprintf(p.Stderr, "cannot %q\n", p.Args[1])
		return 64
	}
	return 0
}

// Proc is this process as a Program sees it.
func Proc(signals <-chan syscall.Signal) *runtime.Proc {
	host, _ := os.Hostname()
	cwd, _ := os.Getwd()
	return &runtime.Proc{
		Args: os.Args, Env: os.Environ(), Cwd: cwd, Hostname: host,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Signals: signals, Killed: make(chan struct{}),
	}
}
