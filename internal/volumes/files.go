package volumes

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// The names by which Kubernetes' tools know an atomically written volume.
const (
	dataLink = "..data"
	tempLink = "..data_tmp"
)

// Files is a volume of given files. All of them change at one moment: readers
// see the old set or the new one.
type Files struct {
	// Memory keeps the files in RAM, for secrets.
	Memory bool
	files  map[string]file
}

type file struct {
	data []byte
	mode os.FileMode
	user *int64
}

// Add adds a file at a relative path; the last one of a path counts.
func (f *Files) Add(path string, data []byte, mode uint32) {
	if f.files == nil {
		f.files = map[string]file{}
	}
	f.files[path] = file{data: data, mode: os.FileMode(mode) & os.ModePerm}
}

// AddOwned is Add for a file that belongs to a user.
func (f *Files) AddOwned(path string, data []byte, mode uint32, user int64) {
	f.Add(path, data, mode)
	one := f.files[path]
	one.user = &user
	f.files[path] = one
}

// write makes dir show the files. What is there already and the same is left.
func (f *Files) write(dir string, group *int64) error {
	if err := scratch(dir, Empty{Memory: f.Memory}); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // any user in the pod reads it
		return err
	}
	for path := range f.files {
		if !filepath.IsLocal(path) || strings.HasPrefix(path, "..") {
			return fmt.Errorf("path %q starts with .. or is not relative", path)
		}
	}
	current, err := os.Readlink(filepath.Join(dir, dataLink))
	if err == nil && f.same(filepath.Join(dir, current)) {
		return nil
	}
	fresh, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := f.fill(fresh, group); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	temp := filepath.Join(dir, tempLink)
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Base(fresh), temp); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(dir, dataLink)); err != nil {
		return err
	}
	if err := f.link(dir); err != nil {
		return err
	}
	return clearOld(dir, filepath.Base(fresh))
}

// clearOld removes former sets of files, also those that a killed noded did not
// finish.
func clearOld(dir, current string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "..") && e.Name() != current {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *Files) fill(dir string, group *int64) error {
	if err := own(dir, 0o755, group); err != nil {
		return err
	}
	for path, one := range f.files {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil { //nolint:gosec // as above
			return err
		}
		if err := os.WriteFile(full, one.data, one.mode); err != nil {
			return err
		}
		mode := one.mode
		if one.user != nil {
			if err := os.Chown(full, int(*one.user), -1); err != nil {
				return err
			}
		}
		if group != nil {
			mode |= 0o440
			if err := os.Chown(full, -1, int(*group)); err != nil {
				return err
			}
		}
		if err := os.Chmod(full, mode); err != nil { // whatever the umask is
			return err
		}
	}
	return nil
}

// same reports whether dir has just these files.
func (f *Files) same(dir string) bool {
	n := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		one, ok := f.files[rel]
		if !ok {
			return errDiffers
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(b, one.data) {
			return errDiffers
		}
		n++
		return nil
	})
	return err == nil && n == len(f.files)
}

var errDiffers = errors.New("differs")

// link makes the visible names point into the data, and removes those that no
// longer lead anywhere.
func (f *Files) link(dir string) error {
	tops := map[string]bool{}
	for path := range f.files {
		top, _, _ := strings.Cut(path, "/")
		tops[top] = true
	}
	names := make([]string, 0, len(tops))
	for t := range tops {
		names = append(names, t)
	}
	sort.Strings(names)
	for _, t := range names {
		err := os.Symlink(filepath.Join(dataLink, t), filepath.Join(dir, t))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !tops[e.Name()] && !strings.HasPrefix(e.Name(), "..") {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
