// Package runc is the Runtime on libcontainer: a shim process per pod
// (cmd/podshim) is the parent of the pod's containers, and a passing helper
// (cmd/podrun) makes them. This package starts both and speaks with the shims.
package runc

import (
	"log/slog"
)

// Config says where the runtime finds and keeps things. Every path is absolute.
type Config struct {
	// StateDir keeps a directory per sandbox: configuration, exit codes,
	// writable layers. It survives reboots.
	StateDir string
	// RunDir holds the shims' sockets and what is only good until a reboot.
	// Keep it short: a socket's path has at most 107 bytes.
	RunDir string
	// CgroupRoot is the cgroup below which all sandboxes' cgroups are made, as
	// a path below each hierarchy's mount ("/wherry.slice/wherry-pods.service").
	CgroupRoot string
	// Podshim and Podrun are the two programs.
	Podshim, Podrun string
	// Log gets warnings; nil: none.
	Log *slog.Logger
}
