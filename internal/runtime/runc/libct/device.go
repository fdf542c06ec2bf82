//go:build cgo && seccomp

package libct

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/shim"
)

// addDevices gives a container further devices of the host; a privileged one
// gets all.
func addDevices(spec *specs.Spec, cfg runtime.ContainerConfig) error {
	wanted := cfg.Devices
	if cfg.Privileged {
		var err error
		if wanted, err = hostDevices(); err != nil {
			return fmt.Errorf("list the host's devices: %w", err)
		}
	}
	for _, d := range wanted {
		target, access := d.Target, d.Access
		if target == "" {
			target = d.Source
		}
		if access == "" {
			access = "rwm"
		}
		var st unix.Stat_t
		if err := unix.Stat(d.Source, &st); err != nil {
			if cfg.Privileged && errors.Is(err, unix.ENOENT) {
				continue // gone since it was listed
			}
			return shim.Errorf(shim.KindInvalid, "device %s: %v", d.Source, err)
		}
		kind, ok := map[uint32]string{unix.S_IFBLK: "b", unix.S_IFCHR: "c", unix.S_IFIFO: "p"}[st.Mode&unix.S_IFMT]
		if !ok {
			return shim.Errorf(shim.KindInvalid, "device %s is no device", d.Source)
		}
		major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		mode := os.FileMode(st.Mode & 0o7777)
		spec.Linux.Devices = append(spec.Linux.Devices, specs.LinuxDevice{
			Path: target, Type: kind, Major: major, Minor: minor, FileMode: &mode, UID: &st.Uid, GID: &st.Gid,
		})
		if kind != "p" {
			spec.Linux.Resources.Devices = append(spec.Linux.Resources.Devices,
				specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access})
		}
	}
	return nil
}

// hostDevices lists the device nodes in /dev, without terminals and what a
// container has of its own.
func hostDevices() ([]runtime.Device, error) {
	var found []runtime.Device
	err := filepath.WalkDir("/dev", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // gone meanwhile
		case d.IsDir():
			switch path {
			case "/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/.lxc", "/dev/.lxd-mounts", "/dev/.udev":
				return fs.SkipDir
			}
		case d.Type()&fs.ModeDevice != 0 && path != "/dev/console" && path != "/dev/ptmx" && !strings.HasPrefix(path, "/dev/tty"):
			found = append(found, runtime.Device{Source: path})
		}
		return nil
	})
	return found, err
}
