package runtime

import (
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ContainerConfig says what a container is made of and what runs in it.
type ContainerConfig struct {
	// ID names the container in its sandbox and is never used twice while it
	// is there. Letters, digits, '-', '_' and '.'.
	ID string `json:"id"`
	// Name and Attempt are the container's name in the pod and the number of
	// starts before this one; given back by List.
	Name    string `json:"name,omitempty"`
	Attempt int    `json:"attempt,omitempty"`
	// Labels are kept and given back by List.
	Labels map[string]string `json:"labels,omitempty"`

	// Layers are the unpacked image layers, the topmost first. The runtime
	// puts a fresh writable layer of its own on top.
	Layers []string `json:"layers"`
	// ReadOnlyRoot makes the root file system read-only for the program.
	ReadOnlyRoot bool `json:"readOnlyRoot,omitempty"`
	// Mounts are made in this order on top of the usual ones (/proc, /dev,
	// /dev/shm, /sys, …); a Mount at the place of a usual one replaces it.
	Mounts []Mount `json:"mounts,omitempty"`

	// Args is the program and its arguments. The program is searched in the
	// container's PATH.
	Args []string `json:"args"`
	// Env is KEY=value, complete; without PATH a usual one is added.
	Env []string `json:"env,omitempty"`
	// Cwd is made if it is not there; empty: /.
	Cwd string `json:"cwd,omitempty"`
	// User is who runs the program.
	User User `json:"user,omitzero"`
	// TTY gives the program a terminal; stdout and stderr are then one.
	TTY bool `json:"tty,omitempty"`
	// Stdin keeps the program's input open for Attach; otherwise it is empty.
	// StdinOnce ends it when the first Attach ends.
	Stdin     bool `json:"stdin,omitempty"`
	StdinOnce bool `json:"stdinOnce,omitempty"`

	// PIDOf is a running container of the sandbox whose process namespace this
	// one joins; empty: its own, or what the sandbox shares.
	PIDOf string `json:"pidOf,omitempty"`

	Resources Resources `json:"resources,omitzero"`
	// OOMScoreAdj is who is killed first, -1000 to 1000. Where the machine
	// does not allow a lower one the nearest is used, with a warning.
	OOMScoreAdj *int `json:"oomScoreAdj,omitempty"`
	// Rlimits are by name ("nofile"). Where the machine does not allow a
	// higher one the nearest is used, with a warning.
	Rlimits []Rlimit `json:"rlimits,omitempty"`

	// CapAdd and CapDrop change the usual 14 capabilities, with or without
	// CAP_; ALL names all. Drops come first.
	CapAdd  []string `json:"capAdd,omitempty"`
	CapDrop []string `json:"capDrop,omitempty"`
	// Privileged: all capabilities and devices, nothing masked, no seccomp.
	Privileged bool `json:"privileged,omitempty"`
	// NoNewPrivileges keeps set-uid programs from giving privileges.
	NoNewPrivileges bool `json:"noNewPrivileges,omitempty"`
	// Seccomp is SeccompDefault (also if empty), SeccompUnconfined, or the
	// path of a profile on the host.
	Seccomp string `json:"seccomp,omitempty"`
	// UnmaskedProc leaves /proc as it is (procMount: Unmasked).
	UnmaskedProc bool `json:"unmaskedProc,omitempty"`
	// Devices are further device nodes of the host by path.
	Devices []Device `json:"devices,omitempty"`

	// LogPath is the log file in the CRI format, absolute or below the
	// sandbox's LogDir; empty: output goes to Attach only.
	LogPath string `json:"logPath,omitempty"`
	// StopSignal is what StopContainer sends; 0: SIGTERM.
	StopSignal syscall.Signal `json:"stopSignal,omitempty"`
}

// The seccomp profiles with names.
const (
	SeccompDefault    = "default"
	SeccompUnconfined = "unconfined"
)

// User is who runs a program, in the ids of the host.
type User struct {
	// Name is as an image writes it: "", uid, name, uid:gid, name:group. Names
	// are looked up in the container's /etc/passwd and /etc/group.
	Name string `json:"name,omitempty"`
	// Groups are further groups, beside those in which the container's
	// /etc/group has the user.
	Groups []int `json:"groups,omitempty"`
	// OnlyGroups leaves out those of /etc/group.
	OnlyGroups bool `json:"onlyGroups,omitempty"`
}

// Propagation says which mounts made later are seen on the other side.
type Propagation string

// The ways mounts propagate.
const (
	PropagationPrivate Propagation = ""
	// PropagationFromHost shows later mounts of the host in the container.
	PropagationFromHost Propagation = "host-to-container"
	// PropagationBoth also shows later mounts of the container on the host.
	PropagationBoth Propagation = "both"
)

// Mount is a directory or file of the host, or a fresh file system, in a
// container.
type Mount struct {
	// Source is a path of the host; of a Type other than bind what that
	// file system wants.
	Source string `json:"source,omitempty"`
	// Target is an absolute path in the container; made if it is not there.
	Target string `json:"target"`
	// Type is a file system type; empty: a bind mount, with all below it.
	Type     string `json:"type,omitempty"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// RecursiveReadOnly makes ReadOnly hold for all mounts below too.
	RecursiveReadOnly bool        `json:"recursiveReadOnly,omitempty"`
	Propagation       Propagation `json:"propagation,omitempty"`
	// Options are further mount options ("size=1m", "noexec").
	Options []string `json:"options,omitempty"`
}

// Device is a device node of the host for a container.
type Device struct {
	Source string `json:"source"`
	Target string `json:"target,omitempty"` // empty: as Source
	Access string `json:"access,omitempty"` // of r, w, m; empty: all
}

// Rlimit is a limit of a process, by its name in lower case ("nofile").
type Rlimit struct {
	Name string `json:"name"`
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// ContainerState says where a container is in its life.
type ContainerState string

// The states of a container.
const (
	Running ContainerState = "Running"
	Exited  ContainerState = "Exited"
	// Lost says that nobody can tell how, or whether, the container ended.
	Lost ContainerState = "Lost"
)

// ExitStartError is the exit code that stands for a program that could not be
// started, ExitLost that of a container that was lost.
const (
	ExitStartError = 128
	ExitLost       = 137
)

// Container is a container as it is.
type Container struct {
	ID        string
	SandboxID string
	Name      string
	Attempt   int
	Labels    map[string]string
	State     ContainerState
	// PID is process 1 of the container as the host counts, also after its end.
	PID       int
	StartedAt time.Time
	// The rest is set once State is Exited, and ExitCode also in Lost.
	FinishedAt time.Time
	ExitCode   int // 128 + Signal if a signal ended it
	Signal     syscall.Signal
	OOMKilled  bool
	// LogPath is the absolute path of the newest log file.
	LogPath string
	// Cgroup is the path of its cgroup below each hierarchy's mount.
	Cgroup string
	// Upper is the writable layer on the host.
	Upper string
	// UID, GID and Groups are who runs the program.
	UID, GID int
	Groups   []int
	// Warnings say what was asked for and could not be had.
	Warnings []string
}

// ExecConfig says what Exec runs.
type ExecConfig struct {
	Args []string `json:"args"`
	// Env is added to the container's.
	Env []string `json:"env,omitempty"`
	// Cwd is where to run; empty: the container's.
	Cwd string `json:"cwd,omitempty"`
	TTY bool   `json:"tty,omitempty"`
	// User is who runs it; nil: the container's user.
	User *User `json:"user,omitempty"`
}

// Streams are the ends that a caller gives to Exec and Attach; any may be nil.
// The program's input ends where Stdin does. A Stdin that is never read to its
// end does not keep Exec from returning.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize brings new sizes of the terminal.
	Resize <-chan Size
}

// Size is that of a terminal.
type Size struct {
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
}

// Validate reports what of the configuration cannot be carried out.
func (c ContainerConfig) Validate() error {
	if err := validID("container id", c.ID); err != nil {
		return err
	}
	if len(c.Args) == 0 || c.Args[0] == "" {
		return fmt.Errorf("container %q has no program to run: %w", c.Name, ErrInvalid)
	}
	if len(c.Layers) == 0 {
		return fmt.Errorf("container %q has no image layers: %w", c.Name, ErrInvalid)
	}
	for _, l := range c.Layers {
		if !filepath.IsAbs(l) {
			return fmt.Errorf("image layer %q is not an absolute path: %w", l, ErrInvalid)
		}
	}
	for _, m := range c.Mounts {
		if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
			return fmt.Errorf("mount target %q is not a path below /: %w", m.Target, ErrInvalid)
		}
		if (m.Type == "" || m.Type == "bind") && !filepath.IsAbs(m.Source) {
			return fmt.Errorf("source %q of mount %s is not an absolute path: %w", m.Source, m.Target, ErrInvalid)
		}
	}
	if c.Cwd != "" && !path.IsAbs(c.Cwd) {
		return fmt.Errorf("working directory %q is not an absolute path: %w", c.Cwd, ErrInvalid)
	}
	for _, e := range c.Env {
		if i := strings.IndexByte(e, '='); i < 1 || strings.IndexByte(e, 0) >= 0 {
			return fmt.Errorf("environment entry %q is not NAME=value: %w", e, ErrInvalid)
		}
	}
	switch c.Seccomp {
	case "", SeccompDefault, SeccompUnconfined:
	default:
		if !filepath.IsAbs(c.Seccomp) {
			return fmt.Errorf("seccomp profile %q is neither %s, %s nor an absolute path: %w",
				c.Seccomp, SeccompDefault, SeccompUnconfined, ErrInvalid)
		}
	}
	return nil
}
