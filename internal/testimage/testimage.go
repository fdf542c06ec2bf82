// Package testimage makes small real images for tests and serves them: from
// static programs of this repository and Debian's busybox-static, in process,
// without any network but the listener it is given.
//
// It stands outside the layers, like testkit, and is never linked into a
// program.
package testimage

import (
	"context"
	"errors"
	"io"
)

var errLater = errors.New("testimage: not built yet")

// Image is an image built in memory.
type Image struct{}

// Hello builds e2e/images/hello with the go command and returns an image of it,
// entrypoint /hello; see the program for what it can do.
func Hello(ctx context.Context) (*Image, error) { return nil, errLater }

// Busybox returns an image of the machine's static busybox, cmd sh.
func Busybox() (*Image, error) { return nil, errLater }

// WriteOCI writes images by name as a tar of an OCI layout.
func WriteOCI(w io.Writer, images map[string]*Image) error { return errLater }

// WriteDocker writes images by name as docker save does.
func WriteDocker(w io.Writer, images map[string]*Image) error { return errLater }
