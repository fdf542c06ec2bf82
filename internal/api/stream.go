package api

import (
	"context"
	"io"
	"net"

	corev1 "k8s.io/api/core/v1"
)

// PodStreams gives the streams of running pods as the API's front ends see
// them. The node's session implements it. The front end has authorized the
// user; errors have a kind of apierr.
type PodStreams interface {
	// Logs opens a container's log. With o.Follow it ends when the container
	// does, or ctx.
	Logs(ctx context.Context, u User, namespace, pod string, o *corev1.PodLogOptions) (io.ReadCloser, error)
	// Ready says, before a connection is upgraded, what keeps a stream to a
	// pod from being opened, or nil. Container is nil where none is meant.
	Ready(ctx context.Context, u User, namespace, pod string, container *string) error
	// Exec runs a command, or joins the main process, and returns when it has
	// ended and all output is written, with its exit code. An error says that
	// it could not be started or was lost.
	Exec(ctx context.Context, u User, r ExecRequest) (exit int, err error)
	// Dial connects to a port of the pod's localhost.
	Dial(ctx context.Context, u User, namespace, pod string, port uint16) (net.Conn, error)
}

// ExecRequest asks for a command in a container, or for its main process.
type ExecRequest struct {
	Namespace, Pod string
	// Container is empty when the pod has one or names a default.
	Container string
	// Command is empty for attach.
	Command []string
	TTY     bool
	// Stdin, Stdout and Stderr are nil where they were not asked for. Stdin
	// ends with io.EOF when the client closes its side.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize gives the sizes of the client's terminal; nil without TTY. It is
	// closed when the client is gone.
	Resize <-chan TerminalSize
}

// Attach reports whether the request joins the main process.
func (r ExecRequest) Attach() bool { return len(r.Command) == 0 }

// TerminalSize is in characters.
type TerminalSize struct{ Width, Height uint16 }

// Backends find and reach what the proxy subresources stand for. The nodes'
// sessions implement it: the control plane itself need not reach the pod
// network. The front end has authorized the user; errors have a kind of apierr.
type Backends interface {
	// Backend finds what a proxy subresource stands for: resource is pods,
	// services or nodes. Port is a number, or the name of a service's port; if
	// it is empty, a pod's first port, a service's only one, or noded itself is
	// meant.
	Backend(ctx context.Context, resource, namespace, name, port string) (Backend, error)
	// DialBackend makes a connection to it, which lives until it is closed.
	DialBackend(ctx context.Context, b Backend) (net.Conn, error)
}

// Backend is where connections go.
type Backend struct {
	// Node is from where Address is reached.
	Node string
	// Address is host:port; of noded itself its own host:port, for show.
	Address string
	// Noded says that noded itself is meant.
	Noded bool
}
