package volumes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// subPaths is the folder of a pod in which parts of its volumes are mounted.
const subPaths = ".subpaths"

// SubPath gives a path that shows sub of a volume, for the mount of that name.
// What is not there is made, with the mode of the volume's root. It never leads
// out of the volume: what was found is pinned by a mount of its own, so that a
// link that a container swaps in later changes nothing.
func (s *Store) SubPath(_ context.Context, podID, mount, volume, sub string) (string, error) {
	if !filepath.IsLocal(podID) || !filepath.IsLocal(mount) {
		return "", fmt.Errorf("mount %q of pod %q is not a file name", mount, podID)
	}
	if filepath.IsAbs(sub) || !filepath.IsLocal(sub) {
		return "", fmt.Errorf("subPath %q has .. in it or is not relative", sub)
	}
	f, err := openBelow(volume, sub)
	if err != nil {
		return "", fmt.Errorf("subPath %q: %w", sub, err)
	}
	defer f.Close()
	target := filepath.Join(s.pod(podID), subPaths, mount)
	if err := pinAt(f, target); err != nil {
		return "", fmt.Errorf("subPath %q: %w", sub, err)
	}
	return target, nil
}

// openBelow opens a folder or file below a volume without ever leaving it, and
// makes a folder if there is nothing.
func openBelow(volume, sub string) (*os.File, error) {
	root, err := os.OpenRoot(volume)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if _, err := root.Stat(sub); errors.Is(err, os.ErrNotExist) {
		top, err := root.Stat(".")
		if err != nil {
			return nil, err
		}
		if err := makeBelow(root, sub, top.Mode()&(os.ModePerm|os.ModeSetgid)); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	// A FIFO or device would block or act when opened; Stat comes first.
	st, err := root.Stat(sub)
	if err != nil {
		return nil, err
	}
	if m := st.Mode(); !m.IsDir() && !m.IsRegular() {
		return nil, errors.New("it is neither a folder nor a file")
	}
	return root.OpenFile(sub, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// makeBelow makes each missing folder of a path with a mode, whatever the umask.
func makeBelow(root *os.Root, sub string, mode os.FileMode) error {
	parts := strings.Split(filepath.Clean(sub), string(filepath.Separator))
	for i := range parts {
		dir := filepath.Join(parts[:i+1]...)
		switch err := root.Mkdir(dir, 0o700); {
		case errors.Is(err, os.ErrExist):
		case err != nil:
			return err
		default:
			if err := root.Chmod(dir, mode); err != nil {
				return err
			}
		}
	}
	return nil
}

// pinAt mounts what f is at target, in place of what was mounted there.
func pinAt(f *os.File, target string) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := unmountBelow(target); err != nil {
		return err
	}
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	if st.IsDir() {
		err = os.MkdirAll(target, 0o700)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o700); err == nil {
		err = os.WriteFile(target, nil, 0o600)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount at %s: %w", target, err)
	}
	return nil
}

// unmountBelow takes off every mount at dir and below it, the deepest first.
func unmountBelow(dir string) error {
	points, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, p := range points {
		err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	if points, err = mountsBelow(dir); err == nil && len(points) > 0 {
		err = fmt.Errorf("%s is still mounted", points[0])
	}
	return err
}

// mountsBelow lists the mount points at dir and below it, the newest first.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The kernel lists resolved paths.
	if real, err := filepath.EvalSymlinks(filepath.Dir(dir)); err == nil {
		dir = filepath.Join(real, filepath.Base(dir))
	}
	var out []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		p := unescape(fields[4])
		if p == dir || strings.HasPrefix(p, dir+"/") {
			out = append(out, p)
		}
	}
	slices.Reverse(out)
	return out, lines.Err()
}

// unescape undoes the kernel's \040 and the like.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
