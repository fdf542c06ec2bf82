package images

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// maxEntries bounds the files of an archive.
const maxEntries = 100_000

// archiveFile is a tar archive on disk whose files can be read at any time.
type archiveFile struct {
	f     *os.File
	files map[string]section
	links map[string]string
}

type section struct{ offset, size int64 }

// spool copies an archive, unzipped, to a temporary file in dir and lists it.
// The file has no name any more; closing it is all there is to do.
func spool(ctx context.Context, r io.Reader, dir string) (*archiveFile, error) {
	f, err := os.CreateTemp(dir, "archive-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	a := &archiveFile{f: f, files: map[string]section{}, links: map[string]string{}}
	plain, err := unzipped(readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	}))
	if err == nil {
		_, err = io.Copy(f, plain)
	}
	if err == nil {
		err = a.list()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read image archive: %w", err)
	}
	return a, nil
}

func unzipped(r io.Reader) (io.Reader, error) {
	br := bufio.NewReader(r)
	if magic, err := br.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		return gzip.NewReader(br)
	}
	return br, nil
}

// list notes where each file of the archive lies.
func (a *archiveFile) list() error {
	if _, err := a.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	tr := tar.NewReader(a.f)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if n == maxEntries {
			return fmt.Errorf("more than %d files", maxEntries)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := a.f.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			a.files[name] = section{at, h.Size}
		case tar.TypeLink:
			a.links[name] = path.Clean(h.Linkname)
		case tar.TypeSymlink:
			a.links[name] = path.Join(path.Dir(name), h.Linkname)
		}
	}
}

// open returns a file of the archive.
func (a *archiveFile) open(name string) (*io.SectionReader, error) {
	for range 8 {
		if s, ok := a.files[name]; ok {
			return io.NewSectionReader(a.f, s.offset, s.size), nil
		}
		if name = a.links[name]; name == "" {
			break
		}
	}
	return nil, fmt.Errorf("archive has no file %q", name)
}

// document reads a small file of the archive whole.
func (a *archiveFile) document(name string) ([]byte, error) {
	r, err := a.open(name)
	if err != nil {
		return nil, err
	}
	if r.Size() > maxDocument {
		return nil, fmt.Errorf("%s has %d bytes, %d is the most", name, r.Size(), maxDocument)
	}
	return io.ReadAll(r)
}

// has reports whether the archive holds the file.
func (a *archiveFile) has(name string) bool { _, err := a.open(name); return err == nil }

// blobFile returns the name of a blob in an OCI layout.
func blobFile(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

// archived is a source: blobs of an archive by digest.
type archived struct {
	a     *archiveFile
	files map[string]string // for blobs that are not where an OCI layout has them
}

func (s archived) blob(_ context.Context, d descriptor) (io.ReadCloser, error) {
	name := s.files[d.Digest]
	if name == "" {
		name = blobFile(d.Digest)
	}
	r, err := s.a.open(name)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(r), nil
}

func (archived) again(error) bool { return false }

// dockerEntry is an image in manifest.json of docker save.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerEntries reads manifest.json, which an OCI layout may have as well.
func (a *archiveFile) dockerEntries() ([]dockerEntry, error) {
	if !a.has("manifest.json") {
		return nil, nil
	}
	raw, err := a.document("manifest.json")
	if err != nil {
		return nil, err
	}
	var out []dockerEntry
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("parse manifest.json: %w", err)
	}
	return out, nil
}

// docker returns the image of an entry, with a manifest made for it: such
// archives have none.
func (a *archiveFile) docker(e dockerEntry, os, arch string) (*bundle, archived, error) {
	src := archived{a, map[string]string{}}
	config, err := a.document(path.Clean(e.Config))
	if err != nil {
		return nil, src, err
	}
	m := manifest{
		SchemaVersion: 2, MediaType: typeManifest,
		Config: descriptor{MediaType: typeConfig, Digest: digestOf(config), Size: int64(len(config))},
	}
	for _, l := range e.Layers {
		d, err := a.describe(path.Clean(l))
		if err != nil {
			return nil, src, err
		}
		src.files[d.Digest] = path.Clean(l)
		m.Layers = append(m.Layers, d)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, src, err
	}
	b, err := newBundle(raw, config, os, arch)
	return b, src, err
}

// describe makes the descriptor of a layer file.
func (a *archiveFile) describe(name string) (descriptor, error) {
	r, err := a.open(name)
	if err != nil {
		return descriptor{}, err
	}
	digest, err := digestAll(r)
	if err != nil {
		return descriptor{}, err
	}
	d := descriptor{MediaType: typeLayer, Digest: digest, Size: r.Size()}
	magic := make([]byte, 4)
	if _, err := r.ReadAt(magic, 0); err != nil && !errors.Is(err, io.EOF) {
		return descriptor{}, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		d.MediaType += "+gzip"
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d.MediaType += "+zstd"
	}
	return d, nil
}
