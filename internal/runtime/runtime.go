// Package runtime is the contract by which a node runs the containers of its
// pods: a sandbox is what the containers of one pod share (host name, network,
// IPC, a cgroup, /dev/shm), a container is one process tree in it.
//
// Two implementations keep the contract, and runtimetest holds both to it:
// runtime/runc, on libcontainer behind a shim process per pod, and Fake, which
// keeps its state in memory. The package knows nothing of Kubernetes.
//
// What a runtime promises:
//   - It outlives its user. A Runtime opened again over the same directories
//     finds every sandbox and container by List, also those that ended
//     meanwhile, with their exit codes; no container notices.
//   - Whatever Start left half done, RemoveSandbox undoes, and doing so twice
//     is no error.
//   - The exit of a container, and the loss of a sandbox, come as an Event
//     without being asked for.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// Runtime starts, watches and ends sandboxes and containers. All methods may be
// called at the same time from many goroutines.
type Runtime interface {
	// StartSandbox makes a sandbox and returns when containers can be started
	// in it. One that is there already under the same id and ready is returned
	// as it is; one that was lost is made anew, without its old containers.
	StartSandbox(ctx context.Context, cfg SandboxConfig) (Sandbox, error)

	// StartContainer creates a container and starts its program in one step,
	// and returns once the program runs. A *StartError means that the
	// program cannot run; the container then does not exist, and its id may
	// be used again.
	StartContainer(ctx context.Context, sandboxID string, cfg ContainerConfig) (Container, error)

	// Signal sends a signal to process 1 of a container, or with SIGKILL to
	// all its processes. ErrNotRunning if it has ended.
	Signal(ctx context.Context, sandboxID, containerID string, sig syscall.Signal) error

	// StopContainer sends sig (0: the container's StopSignal), waits for the
	// exit at most grace, then kills, and returns the container as it ended.
	// Of a container that has ended it returns that at once. If ctx ends
	// first the container is left as it is.
	StopContainer(ctx context.Context, sandboxID, containerID string, sig syscall.Signal, grace time.Duration) (Container, error)

	// RemoveContainer kills the container if it still runs and removes all
	// traces of it but its logs. Of an unknown one it does nothing.
	RemoveContainer(ctx context.Context, sandboxID, containerID string) error

	// UpdateContainer sets new limits of a running container. Fields that are
	// zero stay as they are.
	UpdateContainer(ctx context.Context, sandboxID, containerID string, r Resources) error

	// UpdateSandbox sets new limits of all containers of a sandbox together.
	// Fields that are zero stay as they are.
	UpdateSandbox(ctx context.Context, id string, r Resources) error

	// Exec runs a further program in a running container until it ends and
	// returns its exit code (128 + n after signal n). A *StartError means that
	// it could not be started. When ctx ends the program is killed, and
	// Exec returns the ctx's error.
	Exec(ctx context.Context, sandboxID, containerID string, cfg ExecConfig, io Streams) (int, error)

	// Attach joins the streams of a running container's own program, output
	// from now on, until it ends or ctx does. Stdin reaches it if
	// ContainerConfig.Stdin was set.
	Attach(ctx context.Context, sandboxID, containerID string, io Streams) error

	// RotateLog closes the container's log file under a new name and goes on
	// in a fresh one. Logs rotate by themselves at their size limit.
	RotateLog(ctx context.Context, sandboxID, containerID string) error

	// RemoveSandbox kills and removes all containers of a sandbox and the
	// sandbox, whatever state it is in. Of an unknown one it does nothing.
	RemoveSandbox(ctx context.Context, id string) error

	// List returns all sandboxes with their containers, ordered by id, as
	// they are now, including lost ones, until they are removed.
	List(ctx context.Context) ([]Sandbox, error)

	// Events is where exits and losses are told, from Open on. There is one
	// channel and so one receiver. No event is lost however slow it is: what
	// waits is one event per container. The channel closes with Close.
	Events() <-chan Event

	// Close lets go of the runtime. Sandboxes and containers stay.
	Close() error
}

// The errors by which a caller tells cases apart. See also StartError.
var (
	// ErrNotFound says that there is no such sandbox or container.
	ErrNotFound = errors.New("not found")
	// ErrExists says that a container of that id is there already.
	ErrExists = errors.New("already exists")
	// ErrNotRunning says that the container has ended.
	ErrNotRunning = errors.New("not running")
	// ErrLost says that the sandbox's shim is gone: what happens in its
	// containers can no longer be known, and it can only be removed.
	ErrLost = errors.New("sandbox lost")
	// ErrInvalid says that a configuration cannot be carried out as it is.
	ErrInvalid = errors.New("invalid configuration")
)

// StartError says that a program could not be started, in the runtime's own
// words: the container terminated with exit code 128.
type StartError struct {
	// Message is the runtime's message, e.g. `exec: "foo": executable file
	// not found in $PATH`.
	Message string
	// NoCommand reports whether the program itself is what could not be
	// run: not in the image, or not executable.
	NoCommand bool
}

// Error returns the runtime's message.
func (e *StartError) Error() string { return e.Message }

// NotFound returns ErrNotFound with the name of what was not found.
func NotFound(kind, id string) error { return fmt.Errorf("%s %q: %w", kind, id, ErrNotFound) }

// EventKind says what happened.
type EventKind string

// The kinds of Event.
const (
	// ContainerExited says that Container ended; its output is in its log.
	ContainerExited EventKind = "ContainerExited"
	// SandboxLost says that the sandbox's shim died; all of its containers
	// are lost.
	SandboxLost EventKind = "SandboxLost"
)

// Event tells of something that happened in a sandbox by itself.
type Event struct {
	Kind      EventKind
	SandboxID string
	// Container is the container as it is after the event; zero in SandboxLost.
	Container Container
}
