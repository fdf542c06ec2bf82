package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/wherry-project/wherry/internal/apierr"
)

// Export writes the images that refs name as a tar archive that is both an OCI
// layout and what docker load reads. A name given is the only one exported of
// its image; an ID stands for all its names.
func (s *Store) Export(ctx context.Context, w io.Writer, refs ...string) error {
	e := exporter{s: s, tw: tar.NewWriter(w), done: map[string]bool{}, entries: map[string]int{}}
	for _, ref := range refs {
		s.mu.Lock()
		r := s.findLocked(ref)
		s.mu.Unlock()
		if r == nil {
			return apierr.New(apierr.ErrNotFound, "image %s is not on this node", ref)
		}
		if err := e.image(ctx, r, ref); err != nil {
			return fmt.Errorf("export image %s: %w", ref, err)
		}
	}
	return e.close()
}

// exporter writes one archive.
type exporter struct {
	s       *Store
	tw      *tar.Writer
	index   ociIndex
	docker  []dockerEntry
	entries map[string]int  // image ID: place in docker
	done    map[string]bool // blobs
}

func (e *exporter) image(ctx context.Context, r *record, ref string) error {
	release := e.s.hold(r.blobs()...)
	defer release()
	raw, digest, err := e.s.manifestOf(r)
	if err != nil {
		return err
	}
	if err := e.write(blobFile(digest), raw); err != nil {
		return err
	}
	config, err := os.ReadFile(e.s.blobPath(r.ID))
	if err != nil {
		return err
	}
	if err := e.write(blobFile(r.ID), config); err != nil {
		return err
	}
	entry := dockerEntry{Config: blobFile(r.ID)}
	for _, l := range r.Layers {
		if err := e.blob(ctx, l); err != nil {
			return err
		}
		entry.Layers = append(entry.Layers, blobFile(l.Blob))
	}
	names := r.Tags
	if name, err := ParseReference(ref); err == nil && ref != r.ID && name.tagged() != "" {
		names = []string{name.tagged()}
	}
	e.name(r, names, descriptor{MediaType: r.MediaType, Digest: digest, Size: int64(len(raw))}, entry)
	return nil
}

// name enters the image in both indexes.
func (e *exporter) name(r *record, names []string, d descriptor, entry dockerEntry) {
	for _, n := range names {
		named := d
		ref, err := ParseReference(n)
		if err != nil {
			continue // cannot be: names in the index were parsed
		}
		named.Annotations = map[string]string{annotationName: n, annotationRef: ref.Tag}
		e.index.Manifests = append(e.index.Manifests, named)
	}
	if len(names) == 0 {
		e.index.Manifests = append(e.index.Manifests, d)
	}
	i, ok := e.entries[r.ID]
	if !ok {
		i = len(e.docker)
		e.entries[r.ID] = i
		e.docker = append(e.docker, entry)
	}
	e.docker[i].RepoTags = union(e.docker[i].RepoTags, names)
}

// manifestOf returns the manifest r came by, or one made of the blobs that are
// here if another image with the same layers brought other blobs.
func (s *Store) manifestOf(r *record) (raw []byte, digest string, err error) {
	if raw, err = os.ReadFile(s.blobPath(r.Manifest)); err != nil {
		return nil, "", err
	}
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, "", fmt.Errorf("parse manifest: %w", err)
	}
	same := len(m.Layers) == len(r.Layers)
	for i := 0; same && i < len(m.Layers); i++ {
		same = m.Layers[i].Digest == r.Layers[i].Blob
	}
	if same {
		return raw, r.Manifest, nil
	}
	m.Layers = nil
	for _, l := range r.Layers {
		m.Layers = append(m.Layers, descriptor{MediaType: l.MediaType, Digest: l.Blob, Size: l.BlobSize})
	}
	raw, err = json.Marshal(m)
	return raw, digestOf(raw), err
}

// blob writes a layer's blob, verified once more on the way.
func (e *exporter) blob(ctx context.Context, l layer) error {
	if e.done[l.Blob] {
		return nil
	}
	e.done[l.Blob] = true
	f, err := os.Open(e.s.blobPath(l.Blob))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := e.tw.WriteHeader(&tar.Header{Name: blobFile(l.Blob), Mode: 0o644, Size: l.BlobSize}); err != nil {
		return err
	}
	body := readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return f.Read(p)
	})
	return copyVerified(e.tw, body, descriptor{Digest: l.Blob, Size: l.BlobSize})
}

func (e *exporter) write(name string, data []byte) error {
	if e.done[name] {
		return nil
	}
	e.done[name] = true
	if err := e.tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := e.tw.Write(data)
	return err
}

// close writes the indexes and ends the archive.
func (e *exporter) close() error {
	e.index.SchemaVersion, e.index.MediaType = 2, typeIndex
	index, err := json.Marshal(e.index)
	if err != nil {
		return err
	}
	docker, err := json.Marshal(e.docker)
	if err != nil {
		return err
	}
	return errors.Join(
		e.write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)),
		e.write("index.json", index),
		e.write("manifest.json", docker),
		e.tw.Close(),
	)
}
