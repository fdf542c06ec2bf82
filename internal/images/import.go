package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// Annotations by which an OCI layout names its images.
const (
	annotationName = "io.containerd.image.name"
	annotationRef  = "org.opencontainers.image.ref.name"
)

// Import takes every image of a tar archive, an OCI layout or what docker save
// writes, gzipped or not, with all its names.
func (s *Store) Import(ctx context.Context, r io.Reader) ([]Image, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, errClosed
	}
	s.pulls.Add(1)
	s.mu.Unlock()
	defer s.pulls.Done()
	a, err := spool(ctx, r, s.path("tmp"))
	if err != nil {
		return nil, err
	}
	defer a.f.Close()
	var out []Image
	switch {
	case a.has("index.json"):
		out, err = s.importLayout(ctx, a)
	case a.has("manifest.json"):
		out, err = s.importDocker(ctx, a)
	default:
		err = errors.New("it is neither an OCI layout (no index.json) nor a Docker archive (no manifest.json)")
	}
	if err != nil {
		return out, fmt.Errorf("import image archive: %w", err)
	}
	return out, nil
}

func (s *Store) importDocker(ctx context.Context, a *archiveFile) ([]Image, error) {
	entries, err := a.dockerEntries()
	if err != nil {
		return nil, err
	}
	var out []Image
	for _, e := range entries {
		tags, err := complete(e.RepoTags)
		if err != nil {
			return out, err
		}
		b, src, err := a.docker(e, s.cfg.OS, s.cfg.Arch)
		if err != nil {
			return out, fmt.Errorf("image %s: %w", strings.Join(e.RepoTags, ", "), err)
		}
		img, err := s.add(ctx, src, b, tags, nil)
		if err != nil {
			return out, fmt.Errorf("image %s: %w", strings.Join(e.RepoTags, ", "), err)
		}
		out = append(out, img)
	}
	return out, nil
}

func (s *Store) importLayout(ctx context.Context, a *archiveFile) ([]Image, error) {
	raw, err := a.document("index.json")
	if err != nil {
		return nil, err
	}
	var index manifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("parse index.json: %w", err)
	}
	entries, err := a.dockerEntries()
	if err != nil {
		return nil, err
	}
	byID := map[string]int{} // place in out
	var out []Image
	for _, d := range index.Manifests {
		b, err := s.layoutImage(a, d, 0)
		if err != nil {
			return out, fmt.Errorf("image %s: %w", d.Digest, err)
		}
		names, err := complete(layoutNames(d, b.manifest.Config.Digest, entries))
		if err != nil {
			return out, err
		}
		var digests []string
		for _, n := range names {
			ref, err := ParseReference(n)
			if err != nil {
				return out, err
			}
			digests = append(digests, ref.Name()+"@"+d.Digest)
		}
		img, err := s.add(ctx, archived{a: a}, b, names, digests)
		if err != nil {
			return out, fmt.Errorf("image %s: %w", d.Digest, err)
		}
		if i, ok := byID[img.ID]; ok {
			out[i] = img
			continue
		}
		byID[img.ID] = len(out)
		out = append(out, img)
	}
	return out, nil
}

// layoutImage reads the image that d names, or, of an index, the one of it for
// our platform.
func (s *Store) layoutImage(a *archiveFile, d descriptor, depth int) (*bundle, error) {
	if !validDigest(d.Digest) {
		return nil, fmt.Errorf("%q is not a sha256 digest", d.Digest)
	}
	raw, err := a.document(blobFile(d.Digest))
	if err != nil {
		return nil, err
	}
	if got := digestOf(raw); got != d.Digest {
		return nil, fmt.Errorf("%w: wanted %s, got %s", errDamaged, d.Digest, got)
	}
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	if len(m.Manifests) > 0 {
		if depth == 3 {
			return nil, errors.New("indexes are nested too deep")
		}
		child, err := choose(m.Manifests, s.cfg.OS, s.cfg.Arch)
		if err != nil {
			return nil, err
		}
		return s.layoutImage(a, child, depth+1)
	}
	if !validDigest(m.Config.Digest) {
		return nil, fmt.Errorf("config: %q is not a sha256 digest", m.Config.Digest)
	}
	config, err := a.document(blobFile(m.Config.Digest))
	if err != nil {
		return nil, err
	}
	return newBundle(raw, config, s.cfg.OS, s.cfg.Arch)
}

// layoutNames returns the names of an image of an OCI layout: by its
// annotations, whichever tool wrote them, and by manifest.json beside.
func layoutNames(d descriptor, config string, entries []dockerEntry) []string {
	var names []string
	if n := d.Annotations[annotationName]; n != "" {
		names = append(names, n)
	} else if n := d.Annotations[annotationRef]; strings.ContainsAny(n, "/:") {
		names = append(names, n) // otherwise only a tag, of no repository
	}
	for _, e := range entries {
		if path.Clean(e.Config) == blobFile(config) {
			names = append(names, e.RepoTags...)
		}
	}
	return names
}

// complete returns the full forms of names, each once.
func complete(names []string) ([]string, error) {
	var out []string
	for _, n := range names {
		ref, err := ParseReference(n)
		if err != nil {
			return nil, err
		}
		if t := ref.tagged(); t != "" {
			out = union(out, []string{t})
		}
	}
	return out, nil
}

// digestAll returns the digest of all that r gives.
func digestAll(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
