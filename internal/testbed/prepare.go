package testbed

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The descriptors that a host's init is started with.
const (
	fdSpec    = 3 // hostSpec as JSON, read again by the second stage
	fdControl = 4 // listening socket of the control protocol
	fdReady   = 5 // the starter waits here for "ready" or what went wrong
)

// hostArg0 marks a process as a host's init.
const hostArg0 = "wherry-testbed-host"

// hostSpec is what a host's init must know.
type hostSpec struct {
	Name        string      `json:"name"`
	MachineID   string      `json:"machineID"`
	Disk        string      `json:"disk"` // hosts/NAME of the testbed's directory
	HostsFile   string      `json:"hostsFile"`
	Path        string      `json:"path"` // PATH in the host
	Cgroup      string      `json:"cgroup"`
	Hierarchies []hierarchy `json:"hierarchies"`
}

// IsHost reports whether this process was started as the init of a host.
func IsHost(args []string) bool { return len(args) > 0 && args[0] == hostArg0 }

// Host is the main of a host's init. It does not return while the host is on.
// The first stage, in a thread of its own, makes the mount and cgroup
// namespaces into those of a host and executes the program again, so that all
// threads of the second stage are inside.
func Host(args []string) error {
	ready := os.NewFile(fdReady, "ready")
	var spec hostSpec
	b := make([]byte, 1<<20)
	n, err := unix.Pread(fdSpec, b, 0) // no os.File: its finalizer would close it for the second stage
	if err == nil {
		err = json.Unmarshal(b[:n], &spec)
	}
	if err == nil && os.Getpid() != 1 {
		err = errors.New("a host's init is process 1 of its PID namespace; `wherry testbed up` starts it")
	}
	if err == nil && len(args) == 3 && args[2] == "serve" {
		return serveHost(spec, os.NewFile(fdControl, "control"), ready)
	}
	if err == nil {
		runtime.LockOSThread()
		err = prepare(spec)
	}
	if err == nil {
		err = syscall.Exec("/proc/self/exe", []string{hostArg0, args[1], "serve"}, hostEnv(spec.Path))
	}
	err = fmt.Errorf("host %s: %w", spec.Name, err)
	fmt.Fprint(ready, err)
	return err
}

func hostEnv(path string, more ...string) []string {
	return append([]string{"PATH=" + path, "HOME=/root", "USER=root", "LANG=C.UTF-8"}, more...)
}

// prepare runs on a locked thread of process 1, in new mount, UTS, IPC,
// network and PID namespaces, in the host's cgroup.
func prepare(s hostSpec) error {
	if err := ownCgroup(s); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("part from the machine's mounts: %w", err)
	}
	if err := letGo(); err != nil {
		return err
	}
	if err := kernelMounts(s); err != nil {
		return err
	}
	if err := diskMounts(s.Disk); err != nil {
		return err
	}
	if err := ownHome(); err != nil {
		return err
	}
	if err := files(s); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	// As under systemd: what is mounted later reaches copies of the namespace.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts within the host: %w", err)
	}
	return os.Chdir("/")
}

// ownCgroup makes the host's cgroup the root of what it sees, then leaves that
// root, which in v2 may not have both processes and controllers.
func ownCgroup(s hostSpec) error {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	for _, h := range s.Hierarchies {
		dir := filepath.Join(h.Mount, s.Cgroup)
		if err := os.WriteFile(filepath.Join(dir, initCgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
		if h.V2 {
			delegate(dir)
		}
	}
	return nil
}

// letGo takes away what pins namespaces: the switch of this testbed, or it
// would live as long as the host, and those of others.
func letGo() error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.Contains(line, " - nsfs ") && len(f) > 4 {
			if err := detach(unescape(f[4])); err != nil {
				return err
			}
		}
	}
	return nil
}

// detach takes all mounts away that are at a path, and those below them.
func detach(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // not a mount, or not any more
			return nil
		} else if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// mount makes the target and mounts there.
func mount(source, target, kind string, flags uintptr, options string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s at %s: %w", kind, target, err)
	}
	return nil
}

// kernelMounts mounts what shows the new namespaces: /proc, /sys, the cgroups.
func kernelMounts(s hostSpec) error {
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	// The machine's go first: a mount that is covered is still in mountinfo,
	// and who looks there for cgroups would find the wrong ones.
	for _, old := range []string{"/sys", "/dev/shm", "/proc", "/run"} {
		if err := detach(old); err != nil {
			return err
		}
	}
	err := errors.Join(
		mount("proc", "/proc", "proc", safe, ""),
		mount("tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"),
		mount("sysfs", "/sys", "sysfs", safe, ""),
	)
	if err != nil {
		return err
	}
	for _, h := range s.Hierarchies {
		if h.V2 && h.Mount == "/sys/fs/cgroup" {
			return mount("cgroup2", h.Mount, "cgroup2", safe, "")
		}
	}
	if err := mount("tmpfs", "/sys/fs/cgroup", "tmpfs", safe, "mode=755"); err != nil {
		return err
	}
	for _, h := range s.Hierarchies {
		kind := "cgroup"
		if h.V2 {
			kind = "cgroup2"
		}
		if err := mount(kind, h.Mount, kind, safe, h.Options); err != nil {
			return err
		}
		// Where one tree has several controllers, each is found by its own name.
		for c := range strings.SplitSeq(h.Options, ",") {
			if dir := filepath.Dir(h.Mount); !strings.Contains(c, "=") && c != "none" && c != filepath.Base(h.Mount) && !h.V2 {
				if err := os.Symlink(filepath.Base(h.Mount), filepath.Join(dir, c)); err != nil && !errors.Is(err, fs.ErrExist) {
					return err
				}
			}
		}
	}
	return nil
}

// diskMounts gives the host its own /run, and an /etc and /var that start as
// the machine's and keep what the host writes. The daemons' data are mounted
// through, because an overlay cannot be the upper layer of another.
func diskMounts(disk string) error {
	// Reached by descriptor: /var, where disk may lie, is about to be covered.
	at, err := unix.Open(disk, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the host's disk %s: %w", disk, err)
	}
	defer unix.Close(at)
	base := fmt.Sprintf("/proc/self/fd/%d", at)
	for _, top := range []string{"etc", "var"} {
		options := fmt.Sprintf("lowerdir=/%s,upperdir=%s/%s,workdir=%s/%s.work", top, base, top, base, top)
		if err := overlay("/"+top, options); err != nil {
			return err
		}
	}
	for target, source := range map[string]string{
		"/var/lib/wherry": "data", "/var/log/pods": "pods", "/var/log/wherry": "log",
	} {
		if err := mount(filepath.Join(base, source), target, "bind", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	return os.MkdirAll("/run/lock", 0o1777)
}

// overlay mounts one; the mount of a host just powered off may take a moment
// to let go of the same directories.
func overlay(target, options string) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := mount("overlay", target, "overlay", 0, options)
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

// ownHome gives the host a /root of its own, in which everything that is there
// now is the machine's, but for .kube.
func ownHome() error {
	real, err := unix.Open("/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(real)
	base := fmt.Sprintf("/proc/self/fd/%d", real)
	entries, err := os.ReadDir(base)
	if err != nil {
		return err
	}
	if err := mount("tmpfs", "/root", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=700"); err != nil {
		return err
	}
	for _, e := range entries {
		from, to := filepath.Join(base, e.Name()), filepath.Join("/root", e.Name())
		if e.Name() == ".kube" {
			continue
		}
		if e.Type()&fs.ModeSymlink != 0 {
			if link, err := os.Readlink(from); err == nil {
				err = os.Symlink(link, to)
				if err != nil {
					return err
				}
			}
			continue
		}
		if e.IsDir() {
			err = os.Mkdir(to, 0o755)
		} else {
			err = os.WriteFile(to, nil, 0o644)
		}
		if err == nil {
			err = unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOENT) { // gone meanwhile
			return fmt.Errorf("keep %s: %w", to, err)
		}
	}
	return os.Mkdir("/root/.kube", 0o700)
}

// files writes what makes a host tell itself from another.
func files(s hostSpec) error {
	for dir, mode := range map[string]os.FileMode{"/etc/wherry": 0o755, "/etc/wherry/kube": 0o700, "/run/testbed": 0o700} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
	}
	resolv := "# A testbed's host has no name server: names are in /etc/hosts.\n"
	if err := mount("/etc/wherry/kube", "/root/.kube", "bind", unix.MS_BIND, ""); err != nil {
		return err
	}
	err := errors.Join(
		writeFile("/etc/hosts", []byte(s.HostsFile), 0o644),
		writeFile("/etc/hostname", []byte(s.Name+"\n"), 0o644),
		writeFile("/etc/machine-id", []byte(s.MachineID+"\n"), 0o444),
		writeFile("/etc/resolv.conf", []byte(resolv), 0o644),
		writeFile("/run/testbed/boot_id", []byte(bootID()), 0o444),
	)
	if err != nil {
		return err
	}
	return unix.Mount("/run/testbed/boot_id", "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, "")
}

// bootID is new each time a host is powered on, as a machine's is.
func bootID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x\n", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
