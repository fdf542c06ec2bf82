//go:build cgo && seccomp

package libct

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/shim"
)

type identity struct {
	uid, gid int
	groups   []int
}

// lookup finds out who a user is, by the passwd and group files of a root file
// system that is not to be trusted.
func lookup(rootfs string, u runtime.User) (identity, error) {
	name, _, _ := strings.Cut(u.Name, ":")
	_, nerr := strconv.Atoi(name)
	passwd, err := openIn(rootfs, "etc/passwd")
	if err != nil {
		return identity{}, err
	}
	defer passwd.Close()
	group, err := openIn(rootfs, "etc/group")
	if err != nil {
		return identity{}, err
	}
	defer group.Close()
	found, err := user.GetExecUser(u.Name, &user.ExecUser{}, passwd, group)
	if err != nil {
		if name != "" && nerr != nil {
			return identity{}, shim.Errorf(shim.KindInvalid, "the image has no user %q: %v", u.Name, err)
		}
		return identity{}, shim.Errorf(shim.KindInvalid, "user %q: %v", u.Name, err)
	}
	id := identity{uid: found.Uid, gid: found.Gid}
	if !u.OnlyGroups {
		id.groups = found.Sgids
	}
	id.groups = append(id.groups, u.Groups...)
	slices.Sort(id.groups)
	id.groups = slices.Compact(id.groups)
	return id, nil
}

// openIn opens a file below a root without following a link out of it. A file
// that is not there reads as empty.
func openIn(rootfs, name string) (io.ReadCloser, error) {
	root, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root %s: %w", rootfs, err)
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return io.NopCloser(strings.NewReader("")), nil
	} else if err != nil {
		return nil, fmt.Errorf("open the image's /%s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, 1<<20), f}, nil
}
