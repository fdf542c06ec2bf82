//go:build cgo && seccomp

// Command podrun makes one container, or runs one program in one, and goes away.
// podshim starts it and inherits what it leaves behind. It is the only program
// that links libcontainer, and the only one that needs cgo:
//
//	CGO_ENABLED=1 go build -tags "seccomp netgo osusergo" -ldflags '-s -w -extldflags "-static"'
package main

import (
	"os"

	"github.com/wherry-project/wherry/internal/runtime/runc/libct"
)

func main() { os.Exit(libct.Main()) }
