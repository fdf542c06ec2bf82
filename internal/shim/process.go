package shim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Process names a process for good: a pid alone may come to mean another one.
type Process struct {
	PID int `json:"pid"`
	// Start is when it started, in the kernel's ticks since the boot BootID.
	Start  uint64 `json:"start"`
	BootID string `json:"bootID"`
}

// FindProcess returns the process that has the pid now.
func FindProcess(pid int) (Process, error) {
	start, err := startTime(pid)
	if err != nil {
		return Process{}, err
	}
	boot, err := BootID()
	return Process{PID: pid, Start: start, BootID: boot}, err
}

// BootID returns what names the time since the machine was started.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// Kill kills the process and waits for its end, at most for the time given. It
// is no error if it has ended, whoever has its pid now.
func (p Process) Kill(within time.Duration) error {
	if boot, err := BootID(); err != nil || boot != p.BootID || p.PID <= 0 {
		return err
	}
	fd, err := pidfdOpen(p.PID)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	} else if err != nil {
		return err
	}
	defer syscall.Close(fd)
	// The handle holds the pid, so if the start time fits now it is the one.
	if start, err := startTime(p.PID); err != nil || start != p.Start {
		return nil
	}
	if err := pidfdKill(fd); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	ended, err := pollIn(fd, within)
	if err == nil && !ended {
		err = fmt.Errorf("process %d does not die", p.PID)
	}
	return err
}

// Alive reports whether the process is there and has not ended.
func (p Process) Alive() bool {
	boot, err := BootID()
	if err != nil || boot != p.BootID {
		return false
	}
	start, err := startTime(p.PID)
	return err == nil && start == p.Start
}

// startTime returns field 22 of /proc/PID/stat; an error for a zombie too.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("process %d has a strange stat", pid)
	}
	if s := string(fields[0]); s == "Z" || s == "X" {
		return 0, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// The system calls that package syscall has no names for; the numbers are the
// same on all architectures.
const (
	sysPidfdSendSignal = 424
	sysPidfdOpen       = 434
)

func pidfdOpen(pid int) (int, error) {
	fd, _, errno := syscall.Syscall(sysPidfdOpen, uintptr(pid), 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func pidfdKill(fd int) error {
	_, _, errno := syscall.Syscall6(sysPidfdSendSignal, uintptr(fd), uintptr(syscall.SIGKILL), 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// pollIn reports whether fd became readable within the time: a process handle
// is when the process has ended.
func pollIn(fd int, within time.Duration) (bool, error) {
	deadline := time.Now().Add(within)
	for {
		p := struct {
			fd              int32
			events, revents int16
		}{fd: int32(fd), events: 1}
		ts := syscall.NsecToTimespec(max(int64(time.Until(deadline)), 0))
		n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL,
			uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return false, errno
		}
		return n > 0, nil
	}
}
