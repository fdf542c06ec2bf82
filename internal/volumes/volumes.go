// Package volumes makes the folders and files that pods mount: scratch space,
// paths of the node, and files whose content changes under the pod's eyes, all
// at once or not at all. It knows nothing of Kubernetes' objects.
package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"golang.org/x/sys/unix"
)

// Config is all that one pod's volumes depend on. Apply takes it whole.
type Config struct {
	// PodID names the pod for ever, its uid.
	PodID string
	// FSGroup, if set, owns the volumes, and new files in them.
	FSGroup *int64
	Volumes []Volume
}

// Volume is one volume; one of Empty, Host and Files is set.
type Volume struct {
	Name  string
	Empty *Empty
	Host  *Host
	Files *Files
}

// Empty is scratch space that lives as long as the pod.
type Empty struct {
	// Memory keeps it in RAM; Size bounds it then, in bytes, if above 0.
	Memory bool
	Size   int64
}

// Host is a path of the node. Type is "" (no check) or one of Kubernetes'
// hostPath types; what does not fit is an error.
type Host struct {
	Path, Type string
}

// Store holds the volumes of all pods of a node below one folder.
type Store struct{ dir string }

// Open makes a store below dir.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the folder of volumes: %w", err)
	}
	return &Store{dir: dir}, nil
}

func (s *Store) pod(id string) string { return filepath.Join(s.dir, id) }

// Apply makes a pod's volumes those of cfg and gives the path of each. Doing so
// again refreshes files that changed and leaves the rest.
func (s *Store) Apply(ctx context.Context, cfg Config) (map[string]string, error) {
	if !filepath.IsLocal(cfg.PodID) {
		return nil, fmt.Errorf("pod id %q is not a file name", cfg.PodID)
	}
	paths := map[string]string{}
	for _, v := range cfg.Volumes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p, err := s.one(cfg, v)
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", v.Name, err)
		}
		paths[v.Name] = p
	}
	return paths, nil
}

func (s *Store) one(cfg Config, v Volume) (string, error) {
	if !filepath.IsLocal(v.Name) {
		return "", fmt.Errorf("the name is not a file name")
	}
	dir := filepath.Join(s.pod(cfg.PodID), v.Name)
	switch {
	case v.Host != nil:
		return v.Host.Path, v.Host.check()
	case v.Empty != nil:
		return dir, makeEmpty(dir, *v.Empty, cfg.FSGroup)
	case v.Files != nil:
		return dir, v.Files.write(dir, cfg.FSGroup)
	}
	return "", errors.New("it is of no kind")
}

// Remove takes a pod's volumes away; none is no error. Whatever was mounted in
// them is unmounted first, so that nothing but the volumes is removed.
func (s *Store) Remove(_ context.Context, podID string) error {
	if !filepath.IsLocal(podID) {
		return fmt.Errorf("pod id %q is not a file name", podID)
	}
	dir := s.pod(podID)
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := unmountBelow(dir); err != nil {
		return fmt.Errorf("remove volumes: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove volumes: %w", err)
	}
	return nil
}

// List gives the pods that have volumes here, sorted.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	sort.Strings(out)
	return out, nil
}

func makeEmpty(dir string, e Empty, group *int64) error {
	if err := scratch(dir, e); err != nil {
		return err
	}
	return own(dir, 0o777, group)
}

// scratch makes a folder, in RAM if so wanted.
func scratch(dir string, e Empty) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // who uses it sets its mode
		return err
	}
	if !e.Memory || mounted(dir) {
		return nil
	}
	opts := "mode=0755"
	if e.Size > 0 {
		opts += fmt.Sprintf(",size=%d", e.Size)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, opts); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	return nil
}

// own gives a volume's root its mode and group. Setgid lets new files have the
// group too.
func own(dir string, mode os.FileMode, group *int64) error {
	if group != nil {
		if err := os.Chown(dir, -1, int(*group)); err != nil {
			return err
		}
		mode |= os.ModeSetgid
	}
	return os.Chmod(dir, mode)
}

// mounted reports whether something is mounted on dir.
func mounted(dir string) bool {
	var here, above unix.Stat_t
	if unix.Lstat(dir, &here) != nil || unix.Lstat(filepath.Dir(dir), &above) != nil {
		return false
	}
	return here.Dev != above.Dev
}

// check holds a path of the node against its type, and makes what the type
// says to make.
func (h Host) check() error {
	if !filepath.IsAbs(h.Path) {
		return fmt.Errorf("hostPath %q is not absolute", h.Path)
	}
	switch h.Type {
	case "DirectoryOrCreate":
		if err := os.MkdirAll(h.Path, 0o755); err != nil { //nolint:gosec // the mode that Kubernetes documents
			return err
		}
	case "FileOrCreate":
		f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_RDONLY, 0o644) //nolint:gosec // as above
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	st, err := os.Stat(h.Path)
	if err != nil {
		if h.Type == "" && errors.Is(err, os.ErrNotExist) {
			return os.MkdirAll(h.Path, 0o755) //nolint:gosec // as above
		}
		return err
	}
	mode := st.Mode()
	what, ok := map[string]string{
		"": "", "Directory": "directory", "DirectoryOrCreate": "directory", "File": "file", "FileOrCreate": "file",
		"Socket": "socket file", "CharDevice": "character device", "BlockDevice": "block device",
	}[h.Type]
	fits := map[string]bool{
		"": true, "Directory": mode.IsDir(), "DirectoryOrCreate": mode.IsDir(), "File": mode.IsRegular(), "FileOrCreate": mode.IsRegular(),
		"Socket": mode&os.ModeSocket != 0, "CharDevice": mode&os.ModeCharDevice != 0,
		"BlockDevice": mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0,
	}[h.Type]
	switch {
	case !ok:
		return fmt.Errorf("hostPath type %q is not known", h.Type)
	case !fits:
		return fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, what)
	}
	return nil
}
