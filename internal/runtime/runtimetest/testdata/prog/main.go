// Command prog is runtimetest's Program for real containers, and more that only a
// real one can do.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/wherry-project/wherry/internal/runtime/runtimetest"
)

func main() {
	in := make(chan os.Signal, 8)
	signal.Notify(in, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP)
	out := make(chan syscall.Signal, 8)
	go func() {
		for s := range in {
			out <- s.(syscall.Signal)
		}
	}()
	if len(os.Args) > 1 {
		if code, ok := real(os.Args[1], os.Args[2:]); ok {
			os.Exit(code)
		}
	}
	os.Exit(runtimetest.Program(runtimetest.Proc(out)))
}

// real does what no Fake can.
func real(what string, args []string) (code int, ok bool) {
	switch what {
	case "read": // read FILE…
		for _, f := range args {
			b, err := os.ReadFile(f)
			if err != nil {
				fmt.Println(err)
				return 1, true
			}
			os.Stdout.Write(b)
		}
	case "list": // list DIR
		found, _ := filepath.Glob(filepath.Join(args[0], "*"))
		fmt.Println(strings.Join(found, "\n"))
	case "write": // write FILE TEXT
		if err := os.WriteFile(args[0], []byte(args[1]), 0o644); err != nil {
			fmt.Println(err)
			return 1, true
		}
	case "id":
		groups, _ := os.Getgroups()
		fmt.Println(os.Getuid(), os.Getgid(), groups)
	case "pid":
		fmt.Println(os.Getpid(), os.Getppid())
	case "status": // status FIELD: of /proc/self/status
		b, _ := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, args[0]+":"); ok {
				fmt.Println(strings.TrimSpace(v))
			}
		}
	case "mount": // try a system call that the default filter refuses
		fmt.Println(syscall.Mount("tmpfs", "/tmp", "tmpfs", 0, ""))
	case "syscall": // a system call newer than any profile
		_, _, errno := syscall.Syscall(9999, 0, 0, 0)
		fmt.Println(errno)
	case "eat": // eat memory for ever
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			all = append(all, b)
			_ = all
		}
	case "interfaces":
		all, _ := net.Interfaces()
		for _, i := range all {
			fmt.Println(i.Name)
		}
	case "tty":
		info, _ := os.Stdin.Stat()
		fmt.Println(info.Mode()&os.ModeCharDevice != 0)
	default:
		return 0, false
	}
	return 0, true
}
