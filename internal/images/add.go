package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// source gives the bytes of blobs: a registry or an archive. What it gives is
// not trusted.
type source interface {
	blob(ctx context.Context, d descriptor) (io.ReadCloser, error)
	again(err error) bool // reports whether another try may help
}

// add makes the image b present under the names given and returns it. Every
// step leaves only whole blobs and layers behind.
func (s *Store) add(ctx context.Context, src source, b *bundle, tags, digests []string) (Image, error) {
	chains := b.chains()
	release := s.hold(append(blobsOf(b), chains...)...)
	defer release()
	layers, err := s.addLayers(ctx, src, b, chains)
	if err != nil {
		return Image{}, err
	}
	for _, doc := range [][]byte{b.configRaw, b.manifestRaw} {
		if err := s.keep(doc); err != nil {
			return Image{}, err
		}
	}
	r := b.record(layers)
	if img, ok := s.known(r, tags, digests); ok {
		return img, nil
	}
	r.Used = time.Now()
	err = s.change(func(images map[string]*record) error {
		if old := images[r.ID]; old != nil {
			c := *old
			c.Layers = r.Layers
			r = &c
		}
		r.Tags, r.Digests = union(r.Tags, tags), union(r.Digests, digests)
		for id, other := range images {
			if id != r.ID && slices.ContainsFunc(tags, func(t string) bool { return slices.Contains(other.Tags, t) }) {
				c := *other
				c.Tags = without(other.Tags, tags)
				images[id] = &c
			}
		}
		images[r.ID] = r
		return nil
	})
	if err != nil {
		return Image{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[r.ID] = r.Used
	return s.image(r), nil
}

// known returns the image if the index says all of it already, so that pulling
// again what has not changed writes nothing.
func (s *Store) known(r *record, tags, digests []string) (Image, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.images[r.ID]
	if old == nil || !slices.Equal(old.Layers, r.Layers) ||
		len(without(tags, old.Tags)) > 0 || len(without(digests, old.Digests)) > 0 {
		return Image{}, false
	}
	s.used[r.ID] = time.Now()
	return s.image(old), true
}

func blobsOf(b *bundle) []string {
	out := []string{b.manifestDigest, b.manifest.Config.Digest}
	for _, l := range b.manifest.Layers {
		out = append(out, l.Digest)
	}
	return out
}

// addLayers makes all layers of b present, side by side.
func (s *Store) addLayers(ctx context.Context, src source, b *bundle, chains []string) ([]layer, error) {
	layers := make([]layer, len(chains))
	done := make([]chan struct{}, len(chains))
	for i := range done {
		done[i] = make(chan struct{})
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, d := range b.manifest.Layers {
		want := layer{
			Format: indexFormat, Chain: chains[i], Diff: b.config.RootFS.DiffIDs[i],
			Blob: d.Digest, BlobSize: d.Size, MediaType: d.MediaType,
		}
		below := chains[:i]
		g.Go(func() error {
			got, err := s.addLayer(ctx, src, want, func() ([]string, error) {
				for _, c := range done[:i] {
					select {
					case <-c:
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				return s.lowers(below), nil
			})
			if err != nil {
				return fmt.Errorf("layer %s: %w", want.Blob, err)
			}
			layers[i] = got
			close(done[i])
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return layers, nil
}

// lowers returns the directories of layers given bottom first, topmost first.
func (s *Store) lowers(chains []string) []string {
	var out []string
	for _, c := range slices.Backward(chains) {
		out = append(out, filepath.Join(s.layerDir(c), "fs"))
	}
	return out
}

// addLayer makes one layer present. The function below waits for the layers
// under it and returns their directories; nothing that others may need is held
// meanwhile but the layer's own lock, so waiting goes only downwards.
func (s *Store) addLayer(ctx context.Context, src source, want layer, below func() ([]string, error)) (layer, error) {
	unlock, err := s.locks.lock(ctx, "layer "+want.Chain)
	if err != nil {
		return layer{}, err
	}
	defer unlock()
	if have, err := s.readLayer(want.Chain); err != nil || have != nil {
		if have != nil {
			// Maybe from another blob than ours, which must stay as well.
			want = *have
		}
		return want, err
	}
	tmp, err := os.MkdirTemp(s.path("tmp"), "layer-")
	if err != nil {
		return layer{}, err
	}
	defer os.RemoveAll(tmp)
	bare, err := s.fetchAndUnpack(ctx, src, &want, filepath.Join(tmp, "fs"))
	if err != nil {
		return layer{}, err
	}
	if len(bare) > 0 {
		lowers, err := below()
		if err != nil {
			return layer{}, err
		}
		if err := inherit(filepath.Join(tmp, "fs"), bare, lowers); err != nil {
			return layer{}, err
		}
	}
	return want, s.publishLayer(tmp, want)
}

// fetchAndUnpack unpacks the layer into dir and returns the directories in it
// whose attributes must come from the layers below. A blob found here that
// turns out damaged is fetched anew, once.
func (s *Store) fetchAndUnpack(ctx context.Context, src source, want *layer, dir string) ([]string, error) {
	if err := s.work.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer s.work.Release(1)
	for {
		fresh, err := s.fetch(ctx, src, descriptor{Digest: want.Blob, Size: want.BlobSize, MediaType: want.MediaType})
		if err != nil {
			return nil, err
		}
		bare, bytes, err := unpackFile(ctx, s.blobPath(want.Blob), dir, want.Diff)
		if err == nil {
			want.Bytes = bytes
			return bare, nil
		}
		if fresh || ctx.Err() != nil || s.sound(want.Blob) {
			return nil, err
		}
		if err := errors.Join(os.RemoveAll(dir), os.Remove(s.blobPath(want.Blob))); err != nil {
			return nil, err
		}
	}
}

// sound reports whether a blob on disk still has its digest.
func (s *Store) sound(digest string) bool {
	f, err := os.Open(s.blobPath(digest))
	if err != nil {
		return false
	}
	defer f.Close()
	got, err := digestAll(f)
	return err == nil && got == digest
}

func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

func without(a, drop []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(drop, s) })
}
