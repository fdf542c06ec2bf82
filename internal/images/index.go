package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	indexFile   = "index.json"
	indexFormat = 1
)

// index is the file that says which images there are. An image exists from the
// moment that the index names it.
type index struct {
	Format int                `json:"format"`
	Images map[string]*record `json:"images"`
}

// record is one image in the index.
type record struct {
	ID        string          `json:"id"`
	Manifest  string          `json:"manifest"` // digest of the manifest it came by; the blob is kept
	MediaType string          `json:"mediaType"`
	Tags      []string        `json:"tags,omitempty"`
	Digests   []string        `json:"digests,omitempty"`
	Size      int64           `json:"size"`
	Layers    []layer         `json:"layers"` // bottom first
	Config    ContainerConfig `json:"config"`
	Created   time.Time       `json:"created"`
	Used      time.Time       `json:"used"`
}

// layer is one unpacked layer, in an image's record and in its own layer.json.
type layer struct {
	Format    int    `json:"format"`
	Chain     string `json:"chain"`     // it and all layers below
	Diff      string `json:"diff"`      // digest of the uncompressed tar
	Blob      string `json:"blob"`      // digest of the blob it was unpacked from
	BlobSize  int64  `json:"blobSize"`  // of the blob
	MediaType string `json:"mediaType"` // of the blob
	Bytes     int64  `json:"bytes"`     // unpacked
}

// called reports whether name means r.
func (r *record) called(name Reference) bool {
	if name.Digest != "" {
		return slices.Contains(r.Digests, name.Name()+"@"+name.Digest)
	}
	return slices.Contains(r.Tags, name.tagged())
}

// blobs returns the digests of all blobs of r.
func (r *record) blobs() []string {
	out := []string{r.ID, r.Manifest}
	for _, l := range r.Layers {
		out = append(out, l.Blob)
	}
	return out
}

// readIndex reads the index; a missing file is an empty one.
func readIndex(path string) (index, error) {
	x := index{Images: map[string]*record{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return x, nil
	} else if err != nil {
		return x, err
	}
	var format struct{ Format int }
	if err := json.Unmarshal(data, &format); err != nil {
		return x, fmt.Errorf("%s is damaged: %w; remove it to start without images", path, err)
	}
	if format.Format != indexFormat {
		return x, fmt.Errorf("%s has format %d, this program knows %d", path, format.Format, indexFormat)
	}
	if err := json.Unmarshal(data, &x); err != nil {
		return x, fmt.Errorf("%s is damaged: %w; remove it to start without images", path, err)
	}
	for id, r := range x.Images {
		if r == nil || !validDigest(id) || r.ID != id || slices.ContainsFunc(r.Layers, func(l layer) bool { return !validDigest(l.Chain) }) {
			return x, fmt.Errorf("%s is damaged at image %q; remove it to start without images", path, id)
		}
	}
	return x, nil
}

func writeIndex(path string, x index) error {
	data, err := json.Marshal(x)
	if err != nil {
		return err
	}
	return writeFile(path, data)
}

// writeFile replaces path by data: wholly, durably, or not at all. The
// temporary file lies beside it.
func writeFile(path string, data []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes renames and removals in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// syncTree makes all files below dir durable, by writing back its file system.
func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err = unix.Syncfs(int(d.Fd())); err != nil {
		err = fmt.Errorf("sync file system of %s: %w", dir, err)
	}
	return errors.Join(err, d.Close())
}
