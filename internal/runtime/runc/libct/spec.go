//go:build cgo && seccomp

package libct

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/shim"
)

// newSpec says in the words of the OCI what the container is to be.
func newSpec(l *shim.Launch, cfg runtime.ContainerConfig, rootfs string, warnings *[]string) (*specs.Spec, error) {
	caps, err := capabilities(cfg)
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: rootfs, Readonly: cfg.ReadOnlyRoot},
		Process: &specs.Process{
			Args: cfg.Args, Cwd: cwd(cfg.Cwd), Terminal: cfg.TTY, NoNewPrivileges: cfg.NoNewPrivileges,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Linux: &specs.Linux{
			CgroupsPath: l.Cgroup,
			Resources:   resources(cfg),
			Namespaces:  namespaces(l),
			// The host's mounts made later come in; see isolate.
			RootfsPropagation: "rslave",
		},
	}
	if spec.Mounts, err = mounts(l, cfg); err != nil {
		return nil, err
	}
	for _, m := range cfg.Mounts {
		if m.Propagation == runtime.PropagationBoth {
			spec.Linux.RootfsPropagation = "rshared"
		}
	}
	if !cfg.Privileged && !cfg.UnmaskedProc {
		spec.Linux.MaskedPaths = maskedPaths()
		spec.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	}
	if err := addDevices(spec, cfg); err != nil {
		return nil, err
	}
	spec.Process.Rlimits, err = rlimits(cfg.Rlimits, warnings)
	return spec, err
}

func maskedPaths() []string {
	return []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

// namespaces are those of a container. It has the host name and IPC of podrun,
// which are the pod's.
func namespaces(l *shim.Launch) []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if l.NetNS != "" {
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: l.NetNS})
	}
	switch {
	case l.HostPID:
	case l.PIDNS != "":
		ns = append(ns, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: l.PIDNS})
	default:
		ns = append(ns, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	if unifiedCgroups() {
		// With v1 a container sees its own cgroup by bind mounts.
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return ns
}

func unifiedCgroups() bool {
	var fs unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// mounts are the usual ones, unless the container brings its own for the place,
// and then the container's.
func mounts(l *shim.Launch, cfg runtime.ContainerConfig) ([]specs.Mount, error) {
	sys := "ro"
	if cfg.Privileged {
		sys = "rw"
	}
	usual := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sys}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", sys}},
	}
	if l.Shm != "" {
		usual = append(usual, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: l.Shm,
			Options: []string{"rbind", "nosuid", "noexec", "nodev"}})
	}
	usual = slices.DeleteFunc(usual, func(u specs.Mount) bool {
		return slices.ContainsFunc(cfg.Mounts, func(m runtime.Mount) bool { return path.Clean(m.Target) == u.Destination })
	})
	for _, m := range cfg.Mounts {
		out := specs.Mount{Destination: path.Clean(m.Target), Source: m.Source, Type: m.Type}
		if m.Type == "" || m.Type == "bind" {
			out.Type = "bind"
			out.Options = append(out.Options, "rbind")
			switch m.Propagation {
			case runtime.PropagationPrivate:
				out.Options = append(out.Options, "rprivate")
			case runtime.PropagationFromHost:
				out.Options = append(out.Options, "rslave")
			case runtime.PropagationBoth:
				out.Options = append(out.Options, "rshared")
			default:
				return nil, shim.Errorf(shim.KindInvalid, "mount %s: unknown propagation %q", m.Target, m.Propagation)
			}
		}
		switch {
		case m.RecursiveReadOnly:
			out.Options = append(out.Options, "ro", "rro")
		case m.ReadOnly:
			out.Options = append(out.Options, "ro")
		}
		out.Options = append(out.Options, m.Options...)
		usual = append(usual, out)
	}
	return usual, nil
}

func resources(cfg runtime.ContainerConfig) *specs.LinuxResources {
	r := cfg.Resources
	deny := specs.LinuxDeviceCgroup{Allow: false, Access: "rwm"}
	if cfg.Privileged {
		deny.Allow = true
	}
	out := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{deny}}
	cpu := &specs.LinuxCPU{Cpus: r.CPUs, Mems: r.Mems}
	if r.CPUShares != 0 {
		cpu.Shares = &r.CPUShares
	}
	if r.CPUQuota != 0 {
		period := r.CPUPeriod
		if period == 0 {
			period = 100_000
		}
		cpu.Quota, cpu.Period = &r.CPUQuota, &period
	}
	if *cpu != (specs.LinuxCPU{}) {
		out.CPU = cpu
	}
	if r.Memory != 0 {
		out.Memory = &specs.LinuxMemory{Limit: &r.Memory}
	}
	if r.Pids != 0 {
		out.Pids = &specs.LinuxPids{Limit: &r.Pids}
	}
	if unifiedCgroups() {
		out.Unified = maps.Clone(r.Unified)
		if r.Memory > 0 {
			// No swap beside the limit, and who exceeds it goes as a whole.
			out.Memory.Swap = &r.Memory
			if out.Unified == nil {
				out.Unified = map[string]string{}
			}
			if _, ok := out.Unified["memory.oom.group"]; !ok {
				out.Unified["memory.oom.group"] = "1"
			}
		}
	}
	return out
}

// defaultCaps are the 14 that container runtimes agree on.
func defaultCaps() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

func capabilities(cfg runtime.ContainerConfig) ([]string, error) {
	all, err := knownCaps()
	if err != nil {
		return nil, err
	}
	if cfg.Privileged {
		return all, nil
	}
	caps := defaultCaps()
	for _, name := range cfg.CapDrop {
		if name, err = capName(name); err != nil {
			return nil, err
		}
		caps = slices.DeleteFunc(caps, func(c string) bool { return name == "CAP_ALL" || c == name })
	}
	for _, name := range cfg.CapAdd {
		if name, err = capName(name); err != nil {
			return nil, err
		}
		if name == "CAP_ALL" {
			// What is dropped by name stays dropped.
			for _, c := range all {
				if !slices.ContainsFunc(cfg.CapDrop, func(d string) bool { d, _ = capName(d); return d == c }) {
					caps = append(caps, c)
				}
			}
			continue
		}
		caps = append(caps, name)
	}
	slices.Sort(caps)
	return slices.Compact(caps), nil
}

func capName(name string) (string, error) {
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "CAP_") {
		name = "CAP_" + name
	}
	if name != "CAP_ALL" && !slices.Contains(allCaps(), name) {
		return "", shim.Errorf(shim.KindInvalid, "unknown capability %q", strings.TrimPrefix(name, "CAP_"))
	}
	return name, nil
}

// rlimits brings limits down to what this machine allows.
func rlimits(wanted []runtime.Rlimit, warnings *[]string) ([]specs.POSIXRlimit, error) {
	var out []specs.POSIXRlimit
	for _, w := range wanted {
		name := "RLIMIT_" + strings.ToUpper(w.Name)
		kind, ok := rlimitKinds()[name]
		if !ok {
			return nil, shim.Errorf(shim.KindInvalid, "unknown limit %q", w.Name)
		}
		var now unix.Rlimit
		if err := unix.Getrlimit(kind, &now); err != nil {
			return nil, err
		}
		soft, hard := w.Soft, w.Hard
		if hard > now.Max && !has(unix.CAP_SYS_RESOURCE) {
			*warnings = append(*warnings, fmt.Sprintf("limit %s: %d is more than this machine allows, it is %d", w.Name, hard, now.Max))
			hard = now.Max
			soft = min(soft, hard)
		}
		out = append(out, specs.POSIXRlimit{Type: name, Soft: soft, Hard: hard})
	}
	return out, nil
}

func rlimitKinds() map[string]int {
	return map[string]int{
		"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
		"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
		"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE,
		"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
		"RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
	}
}

// has reports whether this process has a capability.
func has(capability uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return false
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}
