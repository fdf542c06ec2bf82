package images

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// Bounds on looking into an image.
const (
	maxLinks    = 40
	maxPasswd   = 4 << 20
	maxElements = 256
)

// Resolve returns who spec, as in USER of a Dockerfile or runAsUser:runAsGroup,
// is by the image's /etc/passwd and /etc/group. Empty is root. A number need
// not be listed; a name must.
func (i Image) Resolve(spec string) (User, error) {
	passwd, err := i.open("/etc/passwd")
	if err != nil {
		return User{}, err
	}
	defer passwd.Close()
	group, err := i.open("/etc/group")
	if err != nil {
		return User{}, err
	}
	defer group.Close()
	u, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, io.LimitReader(passwd, maxPasswd), io.LimitReader(group, maxPasswd))
	if err != nil {
		return User{}, fmt.Errorf("user %q of image: %w", spec, err)
	}
	out := User{UID: uint32(u.Uid), GID: uint32(u.Gid), Home: u.Home}
	for _, g := range u.Sgids {
		out.Groups = append(out.Groups, uint32(g))
	}
	return out, nil
}

// open opens a regular file of the image; a missing one is empty.
func (i Image) open(name string) (io.ReadCloser, error) {
	p, err := find(i.Layers, name)
	if err != nil {
		return nil, err
	}
	if p == "" {
		return io.NopCloser(strings.NewReader("")), nil
	}
	f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s of image is no regular file", name)
	}
	return f, nil
}

// find returns the path on this machine of a file of the image made of lowers,
// topmost first, as overlayfs would show it. Symbolic links are followed within
// the image. It returns "" if there is none.
func find(lowers []string, name string) (string, error) {
	links := 0
	todo := elements(name)
	var done []string
	at := dirs(lowers, "")
	for n := 0; len(todo) > 0; n++ {
		if n > maxElements {
			return "", fmt.Errorf("%s of image: path is too long", name)
		}
		el := todo[0]
		todo = todo[1:]
		if el == ".." {
			done = done[:max(0, len(done)-1)]
			todo = append(append([]string{}, done...), todo...)
			done, at = nil, dirs(lowers, "")
			continue
		}
		file, below, err := step(at, el)
		if err != nil {
			return "", err
		}
		if len(below) > 0 {
			at, done = below, append(done, el)
			continue
		}
		if file == "" {
			return "", nil
		}
		target, err := os.Readlink(file)
		if err != nil { // no link
			if len(todo) > 0 {
				return "", nil
			}
			return file, nil
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s of image: too many symbolic links", name)
		}
		if path.IsAbs(target) {
			done = nil
		}
		todo = append(append(append([]string{}, done...), elements(target)...), todo...)
		done, at = nil, dirs(lowers, "")
	}
	if len(at) == 0 {
		return "", nil
	}
	return at[0], nil
}

// findDir returns where the directory name is uppermost in lowers, "" if it is
// none there or reached through a link.
func findDir(lowers []string, name string) (string, error) {
	at := dirs(lowers, "")
	for _, el := range elements(name) {
		_, below, err := step(at, el)
		if err != nil {
			return "", err
		}
		at = below
	}
	if len(at) == 0 {
		return "", nil
	}
	return at[0], nil
}

// step looks for el in a directory that is the merger of the directories at,
// topmost first. It returns the file it is, or the directories it merges.
func step(at []string, el string) (file string, below []string, err error) {
	for _, dir := range at {
		p := filepath.Join(dir, el)
		fi, err := os.Lstat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", nil, err
		case isWhiteout(fi):
			return "", below, nil
		case !fi.IsDir():
			if len(below) > 0 {
				return "", below, nil
			}
			return p, nil, nil
		}
		if below = append(below, p); isOpaque(p) {
			return "", below, nil
		}
	}
	return "", below, nil
}

func isWhiteout(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && fi.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0
}

func isOpaque(dir string) bool {
	var v [4]byte
	n, err := unix.Lgetxattr(dir, opaqueXattr, v[:])
	return err == nil && n == 1 && v[0] == 'y'
}

func dirs(lowers []string, name string) []string {
	var out []string
	for _, l := range lowers {
		out = append(out, filepath.Join(l, name))
	}
	return out
}

// elements splits a path, leaving out what means nothing.
func elements(name string) []string {
	var out []string
	for el := range strings.SplitSeq(name, "/") {
		if el != "" && el != "." {
			out = append(out, el)
		}
	}
	return out
}
