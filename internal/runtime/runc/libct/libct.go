//go:build cgo && seccomp

// Package libct makes containers and runs programs in them by libcontainer. It
// is linked into podrun only: everything else asks podrun by a shim.Launch.
//
// Nothing of a container is mounted in the host's mount namespace: podrun puts
// the root file system together in a mount namespace of its own, which the
// container's is copied from and which goes away with podrun. So there is nothing
// to unmount when the container is gone, however it went.
package libct

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"

	_ "github.com/opencontainers/cgroups/devices" // lets libcontainer set device rules
	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // C code that runs before Go in `init`
	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/shim"
)

// Main is all of podrun. It does not return if this process is an init that
// libcontainer started.
func Main() int {
	if len(os.Args) == 2 && os.Args[1] == "init" {
		seccompInInit()
		libcontainer.Init()
	}
	// Namespaces belong to threads: everything happens on this one.
	runtime.LockOSThread()
	unix.CloseOnExec(requestFD)
	unix.CloseOnExec(resultFD)
	result := os.NewFile(resultFD, "result")
	out, err := run()
	if err != nil {
		out = &shim.Launched{Error: shim.AsError(err)}
	}
	out.Format = shim.Format
	if err := json.NewEncoder(result).Encode(out); err != nil {
		return 1
	}
	return 0
}

// The file descriptors by which podshim speaks with podrun.
const (
	requestFD = 3
	resultFD  = 4
	consoleFD = 5
)

func run() (*shim.Launched, error) {
	in := os.NewFile(requestFD, "request")
	b, err := io.ReadAll(in)
	in.Close()
	if err != nil {
		return nil, err
	}
	var l shim.Launch
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, shim.Errorf(shim.KindInternal, "podrun is started by podshim: %v", err)
	}
	if l.Format != shim.Format {
		return nil, shim.Errorf(shim.KindInternal, "podshim asks in format %d, podrun knows %d: programs of different releases", l.Format, shim.Format)
	}
	switch l.Op {
	case shim.OpCreate:
		return create(&l)
	case shim.OpExec:
		return execute(&l)
	}
	return nil, shim.Errorf(shim.KindInvalid, "podrun does not know the request %q", l.Op)
}

// startError is what kept a program from starting, in libcontainer's words.
func startError(err error) error {
	var known *shim.Error
	if errors.As(err, &known) {
		return known
	}
	kind := shim.KindStart
	// The program itself is looked for last, by os/exec, whose errors come
	// over a pipe as text.
	if strings.Contains(err.Error(), `exec: "`) {
		kind = shim.KindNoCommand
	}
	return shim.Errorf(kind, "%v", err)
}
