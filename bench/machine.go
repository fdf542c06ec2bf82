package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// describeMachine prints what the figures depend on.
func (b *bench) describeMachine() error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	sync, err := b.syncTime()
	if err != nil {
		return fmt.Errorf("time of a sync: %w", err)
	}
	load := strings.Fields(firstLine("/proc/loadavg"))
	t := &table{title: "The machine", head: []string{"", ""}}
	t.add("when", time.Now().UTC().Format("2006-01-02 15:04 UTC")+", "+b.version())
	t.add("processors", fmt.Sprintf("%d × %s", runtime.NumCPU(), field("/proc/cpuinfo", "model name")))
	t.add("memory", field("/proc/meminfo", "MemTotal"))
	t.add("system", fmt.Sprintf("Linux %s %s, %s, cgroup %s", unix.ByteSliceToString(uts.Release[:]), unix.ByteSliceToString(uts.Machine[:]),
		strings.Trim(field("/etc/os-release", "PRETTY_NAME"), `"`), cgroups()))
	t.add("disk", fmt.Sprintf("%s; fdatasync of a growing file p50 %s, p99 %s", fileSystem(b.dir), sync.p50(), sync.p99()))
	t.add("Go", runtime.Version())
	t.add("load before", strings.Join(load[:min(3, len(load))], " "))
	if busy, err := strconv.ParseFloat(load[0], 64); err == nil && busy > 0.5 {
		t.note("**The machine was not quiet** (load %s): other work was running, and the figures are worse than they would be.", load[0])
	}
	b.out.show(t)
	return nil
}

// version is what controld says it is.
func (b *bench) version() string {
	out, err := exec.Command(filepath.Join(b.bin, "controld"), "--version").Output()
	if err != nil {
		return "version unknown (" + err.Error() + ")"
	}
	return strings.TrimSpace(string(out))
}

// syncTime measures what every durable write pays at least.
func (b *bench) syncTime() (samples, error) {
	f, err := os.Create(filepath.Join(b.dir, "sync"))
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var s samples
	block := make([]byte, 512)
	for range 300 {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return nil, err
		}
		s = append(s, time.Since(start))
	}
	return s, nil
}

func firstLine(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// field gives the value of the first line that begins with key.
func field(file, key string) string {
	f, err := os.Open(file)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), key); ok {
			return strings.Trim(rest, " \t:=")
		}
	}
	return "unknown"
}

func cgroups() string {
	var st unix.Statfs_t
	switch {
	case unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC:
		return "v2"
	case unix.Statfs("/sys/fs/cgroup/unified", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC:
		return "v1 with a v2 tree beside it"
	}
	return "v1"
}

// fileSystem names the file system of a folder.
func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs (no disk at all: give -dir)", unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	}
	if n := names[int64(st.Type)]; n != "" {
		return n
	}
	return fmt.Sprintf("file system %#x", st.Type)
}
