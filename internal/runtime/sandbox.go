package runtime

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// SandboxConfig says what the containers of a pod share.
type SandboxConfig struct {
	// ID names the sandbox: the pod's uid. Letters, digits, '-', '_' and '.'.
	ID string `json:"id"`
	// Name is for people: namespace/name of the pod.
	Name string `json:"name,omitempty"`
	// Hostname is that of the sandbox's own UTS namespace; empty: the host's.
	Hostname string `json:"hostname,omitempty"`
	// NetNS is the path of a network namespace; empty: the host's.
	NetNS string `json:"netns,omitempty"`
	// HostIPC and HostPID share the host's IPC and process namespaces.
	HostIPC bool `json:"hostIPC,omitempty"`
	HostPID bool `json:"hostPID,omitempty"`
	// SharePID gives all containers one process namespace, in which they see
	// one another and a process of the sandbox is number 1.
	SharePID bool `json:"sharePID,omitempty"`
	// CgroupParent is a path below the runtime's cgroup root, say a class of
	// pods ("burstable"), in which the sandbox's own cgroup is made.
	CgroupParent string `json:"cgroupParent,omitempty"`
	// Resources bound all containers together.
	Resources Resources `json:"resources,omitzero"`
	// Sysctls are written in the sandbox's network and IPC namespaces.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// ShmSize is the size of /dev/shm in bytes; 0: 64 MiB.
	ShmSize int64 `json:"shmSize,omitempty"`
	// LogDir is where log paths that are not absolute lie.
	LogDir string `json:"logDir,omitempty"`
	// LogMaxSize and LogMaxFiles bound each container's log: a file's size in
	// bytes (0: 10 MiB) and the number of files, the newest included (0: 5).
	LogMaxSize  int64 `json:"logMaxSize,omitempty"`
	LogMaxFiles int   `json:"logMaxFiles,omitempty"`
	// Labels are kept and given back by List.
	Labels map[string]string `json:"labels,omitempty"`
}

// Resources are limits of a cgroup. Zero fields set nothing.
type Resources struct {
	// CPUShares is the weight in the old scale, 1024 for one core; it is
	// converted where cgroup v2 counts otherwise.
	CPUShares uint64 `json:"cpuShares,omitempty"`
	// CPUQuota is the time in microseconds that may be used per CPUPeriod
	// (0: 100000); negative: no limit.
	CPUQuota  int64  `json:"cpuQuota,omitempty"`
	CPUPeriod uint64 `json:"cpuPeriod,omitempty"`
	// Memory is the limit in bytes; negative: no limit.
	Memory int64 `json:"memory,omitempty"`
	// Pids bounds the number of processes and threads; negative: no limit.
	Pids int64 `json:"pids,omitempty"`
	// CPUs and Mems pin to processors and memory nodes ("0-3,8").
	CPUs string `json:"cpus,omitempty"`
	Mems string `json:"mems,omitempty"`
	// Unified are further files of a cgroup v2 and what to write to them.
	Unified map[string]string `json:"unified,omitempty"`
}

// SandboxState says whether a sandbox can be used.
type SandboxState string

// The states of a sandbox.
const (
	// SandboxReady says that containers can be started.
	SandboxReady SandboxState = "Ready"
	// SandboxGone says that its shim is gone, or that it never got one.
	SandboxGone SandboxState = "Lost"
)

// Sandbox is a sandbox as it is.
type Sandbox struct {
	ID        string
	Name      string
	State     SandboxState
	StartedAt time.Time
	// PID is the process of the sandbox: its shim.
	PID int
	// NetNS is what the configuration said.
	NetNS string
	// Cgroup is the path of the sandbox's cgroup below each hierarchy's mount.
	Cgroup string
	// Dir is where the runtime keeps what belongs to the sandbox on disk.
	Dir        string
	Labels     map[string]string
	Containers []Container // ordered by StartedAt
}

// Container returns the container of that id, if it is there.
func (s Sandbox) Container(id string) (Container, bool) {
	for _, c := range s.Containers {
		if c.ID == id {
			return c, true
		}
	}
	return Container{}, false
}

// Validate reports what of the configuration cannot be carried out.
func (c SandboxConfig) Validate() error {
	if err := validID("sandbox id", c.ID); err != nil {
		return err
	}
	if c.NetNS != "" && !filepath.IsAbs(c.NetNS) {
		return fmt.Errorf("network namespace %q is not an absolute path: %w", c.NetNS, ErrInvalid)
	}
	if c.HostPID && c.SharePID {
		return fmt.Errorf("the host's process namespace and one shared by the containers exclude each other: %w", ErrInvalid)
	}
	if c.LogDir != "" && !filepath.IsAbs(c.LogDir) {
		return fmt.Errorf("log directory %q is not an absolute path: %w", c.LogDir, ErrInvalid)
	}
	if c.CgroupParent != "" && !filepath.IsLocal(c.CgroupParent) {
		return fmt.Errorf("cgroup parent %q leaves the runtime's cgroup root: %w", c.CgroupParent, ErrInvalid)
	}
	for name := range c.Sysctls {
		switch {
		case strings.Contains(name, ".."), strings.HasPrefix(name, "/"), strings.HasPrefix(name, "."):
			return fmt.Errorf("sysctl %q is not a name such as net.core.somaxconn: %w", name, ErrInvalid)
		case strings.HasPrefix(sysctlName(name), "net.") && c.NetNS == "":
			return fmt.Errorf("sysctl %q would change the host's network: %w", name, ErrInvalid)
		case strings.HasPrefix(sysctlName(name), "kernel.") && c.HostIPC:
			return fmt.Errorf("sysctl %q would change the host's IPC: %w", name, ErrInvalid)
		}
	}
	return nil
}

func sysctlName(s string) string { return strings.ReplaceAll(s, "/", ".") }

// validID reports whether id can be the name of a directory and of a cgroup.
func validID(what, id string) error {
	if id == "" || len(id) > 128 || id[0] == '.' || id[0] == '-' {
		return fmt.Errorf("%s %q: %w", what, id, ErrInvalid)
	}
	for _, r := range id {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
		if !ok {
			return fmt.Errorf("%s %q has %q: %w", what, id, r, ErrInvalid)
		}
	}
	return nil
}
