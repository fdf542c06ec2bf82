package images

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// How a layer's tar and overlayfs say that something below is gone.
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
	opaqueXattr    = "trusted.overlay.opaque"
)

// unpacker watches one layer being unpacked: it turns whiteouts into
// overlayfs's and notes which directories have no entry of their own.
type unpacker struct {
	listed map[string]bool // directories with an entry
	passed map[string]bool // directories on the way to an entry
	hidden []string        // paths that were whited out
}

func newUnpacker() *unpacker {
	return &unpacker{listed: map[string]bool{}, passed: map[string]bool{}}
}

// filter lets every entry pass, without the attributes by which a layer could
// give overlayfs orders of its own.
func (u *unpacker) filter(h *tar.Header) (bool, error) {
	for k := range h.PAXRecords {
		name := strings.TrimPrefix(k, "SCHILY.xattr.")
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			delete(h.PAXRecords, k)
		}
	}
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if h.Typeflag == tar.TypeDir {
		u.listed[name] = true
	}
	for dir := path.Dir(name); dir != "." && dir != "/" && !u.passed[dir]; dir = path.Dir(dir) {
		u.passed[dir] = true
	}
	return true, nil
}

// whiteout makes overlayfs's form of a whiteout and reports whether the entry
// is an ordinary one.
func (u *unpacker) whiteout(_ *tar.Header, p string) (bool, error) {
	dir, base := filepath.Split(p)
	switch {
	case base == whiteoutOpaque:
		return false, setOpaque(dir)
	case strings.HasPrefix(base, whiteoutMeta):
		return false, nil // aufs's own
	case !strings.HasPrefix(base, whiteoutPrefix):
		return true, nil
	}
	name := base[len(whiteoutPrefix):]
	if name == "" || name == "." || name == ".." {
		return false, fmt.Errorf("whiteout %q names no file", base)
	}
	target := filepath.Join(dir, name)
	u.hidden = append(u.hidden, target)
	if err := unix.Mknod(target, unix.S_IFCHR, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("make whiteout: %w", err)
	}
	return false, nil
}

// finish completes whiteouts of names that the layer itself makes anew: such a
// file hides what is below by being there, such a directory must be told to.
func (u *unpacker) finish() error {
	for _, p := range u.hidden {
		if fi, err := os.Lstat(p); err == nil && fi.IsDir() {
			if err := setOpaque(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// bare returns the directories that the layer only passes through, parents
// first.
func (u *unpacker) bare() []string {
	var out []string
	for dir := range u.passed {
		if !u.listed[dir] {
			out = append(out, dir)
		}
	}
	slices.Sort(out)
	return out
}

func setOpaque(dir string) error {
	if err := unix.Lsetxattr(dir, opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("mark directory opaque: %w", err)
	}
	return nil
}

// inherit gives the directories bare, in root, the owner, mode and time that
// they have in the layers below, topmost first: overlayfs shows the uppermost
// directory's.
func inherit(root string, bare, lowers []string) error {
	for _, dir := range bare {
		own, err := findDir([]string{root}, dir)
		if err != nil || own == "" {
			if err != nil {
				return err
			}
			continue // a link, or replaced by something else
		}
		from, err := findDir(lowers, dir)
		if err != nil {
			return err
		}
		if from == "" {
			continue
		}
		if err := copyAttributes(from, own); err != nil {
			return fmt.Errorf("attributes of %s: %w", dir, err)
		}
	}
	return nil
}

func copyAttributes(from, to string) error {
	fi, err := os.Lstat(from)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("no owner known")
	}
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmodat(unix.AT_FDCWD, to, st.Mode&0o7777, 0); err != nil {
		return err
	}
	return os.Chtimes(to, fi.ModTime(), fi.ModTime())
}
