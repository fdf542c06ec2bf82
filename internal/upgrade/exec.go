package upgrade

import (
	"context"
	"io"
	"net/http"

	"github.com/wherry-project/wherry/internal/api"
)

// Options are the streams that a client asks for.
type Options struct {
	Stdin, Stdout, Stderr, TTY bool
}

// Streams are the client's ends; those not asked for are nil.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan api.TerminalSize
}

// Session runs while a client is connected. It returns when all output is
// written. Its ctx ends when the client is gone.
type Session func(ctx context.Context, s Streams) (exit int, err error)

// Exec upgrades the connection, runs the session and tells the client how it
// ended. An error means that nothing was answered yet.
func Exec(w http.ResponseWriter, r *http.Request, o Options, run Session) error {
	switch {
	case isWebSocket(r):
		return execWebSocket(w, r, o, run)
	case isSPDY(r):
		return execSPDY(w, r, o, run)
	}
	return errNoUpgrade(r)
}
