//go:build cgo && seccomp

package main

import (
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultProfile is the filter that a pod with RuntimeDefault has; here it is
// built for each container anew, as libcontainer does it.
func defaultProfile(s *specs.Spec) (*specs.LinuxSeccomp, error) {
	return seccomp.GetDefaultProfile(s)
}
