package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/netns"
)

// Down removes the testbed of that name below dir, whatever state it is in:
// half made, half removed, of another version. All that it needs follows from
// the directory's path. A testbed that is not there is no error.
func Down(ctx context.Context, dir, name string) error {
	t, err := at(dir, name)
	if err != nil {
		return err
	}
	return t.Down(ctx)
}

// Down kills all in the testbed and removes it: processes, mounts,
// namespaces, links, cgroups, files.
func (t *Testbed) Down(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("a testbed is removed by root")
	}
	unlock, err := t.lockAll(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := t.remove(ctx); err != nil {
		return fmt.Errorf("remove testbed %s: %w; run `wherry testbed down --name %s` again", t.name, err, t.name)
	}
	if err := os.Remove(t.lockFile()); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(t.dir)) // if it was the last one
	return nil
}

func (t *Testbed) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, offTimeout)
	defer cancel()
	// Without this file no other command touches what is being removed.
	if err := os.Remove(t.path("testbed.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	hosts, _ := os.ReadDir(t.path("hosts"))
	for _, e := range hosts { // the inits first: each takes its host with it
		if p, err := t.readPower(e.Name()); err == nil && alive(p) {
			_ = unix.Kill(p.Pid, unix.SIGKILL)
		}
	}
	if err := killMembers(ctx, trees, t.cgroupBase()); err != nil {
		return err
	}
	if err := removeCgroup(ctx, trees, t.cgroupBase()); err != nil {
		return err
	}
	for _, h := range trees {
		_ = unix.Rmdir(filepath.Join(h.Mount, filepath.Dir(t.cgroupBase()))) // stays if another testbed is there
	}
	if err := netns.Delete(t.switchPin()); err != nil {
		return err
	}
	if err := unmountBelow(t.dir); err != nil {
		return err
	}
	return os.RemoveAll(t.dir)
}

// unmountBelow makes sure that removing dir removes nothing of another mount.
func unmountBelow(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var at []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(unescape(f[4]), dir+"/") {
			at = append(at, unescape(f[4]))
		}
	}
	for i := len(at) - 1; i >= 0; i-- {
		if err := unix.Unmount(at[i], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", at[i], err)
		}
	}
	return nil
}

// unescape undoes mountinfo's octal escapes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
