package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/apierr"
)

// Remove takes the name ref away from its image; the image goes with its last
// name. If ref is an ID, all its names go. The caller knows that no container
// runs from it.
func (s *Store) Remove(ctx context.Context, ref string) error {
	err := s.change(func(images map[string]*record) error {
		if images[ref] != nil {
			delete(images, ref)
			return nil
		}
		name, err := ParseReference(ref)
		if err != nil {
			return err
		}
		for id, r := range images {
			if !r.called(name) {
				continue
			}
			c := *r
			c.Tags = without(r.Tags, []string{name.tagged()})
			if name.Digest != "" {
				c.Digests = without(r.Digests, []string{name.Name() + "@" + name.Digest})
			}
			if images[id] = &c; len(c.Tags) == 0 && (name.Digest == "" || len(c.Digests) == 0) {
				delete(images, id)
			}
			return nil
		}
		return apierr.New(apierr.ErrNotFound, "image %s is not on this node", ref)
	})
	if err != nil {
		return err
	}
	_, err = s.sweep(ctx, 0)
	return err
}

// Collect removes images that nobody uses, longest unused first, if the file
// system is fuller than c.High, until it is not fuller than c.Low; and always
// what no image refers to.
func (s *Store) Collect(ctx context.Context, c Collection) (Collected, error) {
	var done Collected
	bytes, err := s.sweep(ctx, c.MinAge)
	done.Bytes = bytes
	if err != nil {
		return done, err
	}
	goal := c.High
	for _, img := range s.candidates(c) {
		if full, err := s.fullness(); err != nil || (c.High > 0 && full <= goal) {
			return done, err
		}
		goal = c.Low
		gone, err := s.drop(img.ID, c.MinAge)
		if err != nil {
			return done, err
		}
		if !gone {
			continue
		}
		bytes, err := s.sweep(ctx, c.MinAge)
		done.Images, done.Bytes = append(done.Images, img.ID), done.Bytes+bytes
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// candidates returns the images that may go, longest unused first. Those in
// use count as used now.
func (s *Store) candidates(c Collection) []Image {
	all := s.List()
	inUse := map[string]bool{}
	for _, img := range all {
		inUse[img.ID] = c.InUse != nil && c.InUse(img)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var out []Image
	for _, img := range all {
		if inUse[img.ID] {
			s.used[img.ID] = now
		} else if now.Sub(s.used[img.ID]) >= c.MinAge {
			out = append(out, img)
		}
	}
	slices.SortFunc(out, func(a, b Image) int {
		return cmp.Or(s.used[a.ID].Compare(s.used[b.ID]), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// drop removes an image from the index unless it was used within minAge, and
// reports whether it did. Whoever looks it up finds it or not at one moment:
// memory goes first, and a crash before the disk follows brings it back whole.
func (s *Store) drop(id string, minAge time.Duration) (bool, error) {
	s.commits.Lock()
	defer s.commits.Unlock()
	s.mu.Lock()
	r := s.images[id]
	if r == nil || time.Since(s.used[id]) < minAge {
		s.mu.Unlock()
		return false, nil
	}
	next := maps.Clone(s.images)
	delete(next, id)
	s.images = next
	s.mu.Unlock()
	if err := writeIndex(s.path(indexFile), index{Format: indexFormat, Images: next}); err != nil {
		back := maps.Clone(next)
		back[id] = r
		s.mu.Lock()
		defer s.mu.Unlock()
		s.images = back
		return false, fmt.Errorf("write image index: %w", err)
	}
	return true, nil
}

// sweep deletes blobs and layers that no image refers to and nobody holds, and
// returns their bytes. They leave their names at once and their space after.
// Only what is older than minAge goes: a pull that failed a moment ago may be
// repeated and finds its layers.
func (s *Store) sweep(ctx context.Context, minAge time.Duration) (int64, error) {
	s.commits.Lock()
	trash, err := os.MkdirTemp(s.path("tmp"), "trash-")
	if err == nil {
		err = s.discard(trash, time.Now().Add(-minAge))
	}
	s.commits.Unlock()
	if err != nil {
		return 0, fmt.Errorf("collect images: %w", err)
	}
	bytes, err := treeSize(ctx, trash)
	return bytes, errors.Join(err, os.RemoveAll(trash))
}

// discard moves what is not wanted into trash. Holding mu keeps new holders
// from finding what is about to go.
func (s *Store) discard(trash string, before time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	blobs, layers := map[string]bool{}, map[string]bool{}
	keepBlob := func(d string) { blobs[filepath.Base(s.blobPath(d))] = true }
	for _, r := range s.images {
		for _, b := range r.blobs() {
			keepBlob(b)
		}
		for _, l := range r.Layers {
			layers[filepath.Base(s.layerDir(l.Chain))] = true
		}
	}
	for key := range s.held { // a blob or a layer, one cannot tell
		keepBlob(key)
		layers[filepath.Base(s.layerDir(key))] = true
		if l, err := s.readLayer(key); err == nil && l != nil {
			keepBlob(l.Blob)
		}
	}
	return errors.Join(
		moveOthers(s.path("blobs"), trash, blobs, before),
		moveOthers(s.path("layers"), trash, layers, before),
	)
}

// moveOthers moves what is in dir since before, and not in keep, elsewhere.
func moveOthers(dir, to string, keep map[string]bool, before time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if fi, err := e.Info(); err == nil && !fi.ModTime().After(before) {
			if err := os.Rename(filepath.Join(dir, e.Name()), filepath.Join(to, filepath.Base(dir)+"-"+e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Usage measures the store and its file system.
func (s *Store) Usage() (Usage, error) {
	var u Usage
	var fs unix.Statfs_t
	if err := unix.Statfs(s.cfg.Dir, &fs); err != nil {
		return u, fmt.Errorf("measure image file system: %w", err)
	}
	size := uint64(fs.Bsize)
	u.Free, u.Total = fs.Bavail*size, fs.Blocks*size
	u.FreeInodes, u.AllInodes = fs.Ffree, fs.Files
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[string]bool{}
	for _, r := range s.images {
		for _, l := range r.Layers {
			if !seen[l.Chain] {
				u.Images += l.Bytes
			}
			if !seen[l.Blob] {
				u.Images += l.BlobSize
			}
			seen[l.Chain], seen[l.Blob] = true, true
		}
	}
	return u, nil
}

// fullness returns how many per cent of the file system are in use.
func (s *Store) fullness() (int, error) {
	u, err := s.Usage()
	if err != nil || u.Total == 0 {
		return 0, err
	}
	return int((u.Total - u.Free) * 100 / u.Total), nil
}

// treeSize adds up the files below dir.
func treeSize(ctx context.Context, dir string) (int64, error) {
	var n int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			n += fi.Size()
		}
		return nil
	})
	return n, err
}
