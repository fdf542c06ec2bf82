package images

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Media types that this package writes. Layers of any other type are taken
// too: how they are compressed is seen from their first bytes.
const (
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
	typeDockIdx  = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Bounds on what an image may ask of us.
const (
	maxDocument = 8 << 20 // a manifest, config or archive index, in bytes
	maxLayers   = 127
)

// descriptor names a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
}

// manifest is an image manifest, or an index of such if Manifests is set.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
	Manifests     []descriptor `json:"manifests,omitempty"`
}

// ociIndex is an index as this package writes it.
type ociIndex struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Manifests     []descriptor `json:"manifests"`
}

// configFile is the part of an image's config that matters here.
type configFile struct {
	Created      *time.Time `json:"created"`
	OS           string     `json:"os"`
	Architecture string     `json:"architecture"`
	Config       struct {
		Entrypoint   []string
		Cmd          []string
		Env          []string
		WorkingDir   string
		User         string
		StopSignal   string
		Volumes      map[string]struct{}
		ExposedPorts map[string]struct{}
		Labels       map[string]string
	} `json:"config"`
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// bundle is an image before its layers are here: its documents, verified to
// belong together.
type bundle struct {
	manifestRaw, configRaw []byte
	manifestDigest         string
	mediaType              string
	manifest               manifest
	config                 configFile
}

// newBundle checks that manifest and config are of one image that can run on
// the wanted platform.
func newBundle(manifestRaw, configRaw []byte, wantOS, wantArch string) (*bundle, error) {
	b := &bundle{manifestRaw: manifestRaw, configRaw: configRaw, manifestDigest: digestOf(manifestRaw)}
	if err := json.Unmarshal(manifestRaw, &b.manifest); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	if b.mediaType = b.manifest.MediaType; b.mediaType == "" {
		b.mediaType = typeManifest
	}
	if got := digestOf(configRaw); got != b.manifest.Config.Digest {
		return nil, fmt.Errorf("config has digest %s, not %s as its manifest says", got, b.manifest.Config.Digest)
	}
	if err := json.Unmarshal(configRaw, &b.config); err != nil {
		return nil, fmt.Errorf("parse config: %w", err)
	}
	return b, b.check(wantOS, wantArch)
}

func (b *bundle) check(wantOS, wantArch string) error {
	c := &b.config
	if (c.OS != "" && c.OS != wantOS) || (c.Architecture != "" && c.Architecture != wantArch) {
		return fmt.Errorf("image is for %s/%s, this node is %s/%s", c.OS, c.Architecture, wantOS, wantArch)
	}
	layers, diffs := b.manifest.Layers, c.RootFS.DiffIDs
	switch {
	case len(layers) == 0:
		return errors.New("image has no layers; is it an artifact of another kind?")
	case len(layers) > maxLayers:
		return fmt.Errorf("image has %d layers, %d is the most", len(layers), maxLayers)
	case len(layers) != len(diffs):
		return fmt.Errorf("manifest has %d layers, config %d", len(layers), len(diffs))
	}
	for i, l := range layers {
		if !validDigest(l.Digest) || !validDigest(diffs[i]) {
			return fmt.Errorf("layer %d: digest %q or diff ID %q is not a sha256 digest", i, l.Digest, diffs[i])
		}
		if l.Size < 0 {
			return fmt.Errorf("layer %d: size %d", i, l.Size)
		}
	}
	return nil
}

// chains returns the chain IDs of the layers, bottom first.
func (b *bundle) chains() []string {
	var out []string
	for i, diff := range b.config.RootFS.DiffIDs {
		if i == 0 {
			out = append(out, diff)
			continue
		}
		out = append(out, digestOf([]byte(out[i-1]+" "+diff)))
	}
	return out
}

// record returns b as an image of the index, with the given layers.
func (b *bundle) record(layers []layer) *record {
	r := &record{
		ID: b.manifest.Config.Digest, Manifest: b.manifestDigest, MediaType: b.mediaType,
		Layers: layers, Size: int64(len(b.manifestRaw) + len(b.configRaw)),
	}
	for _, l := range layers {
		r.Size += l.BlobSize
	}
	if t := b.config.Created; t != nil {
		r.Created = *t
	}
	c := &b.config.Config
	r.Config = ContainerConfig{
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkingDir: c.WorkingDir,
		User: c.User, StopSignal: c.StopSignal, Labels: c.Labels,
		Volumes:      slices.Sorted(maps.Keys(c.Volumes)),
		ExposedPorts: slices.Sorted(maps.Keys(c.ExposedPorts)),
	}
	return r
}

// choose returns the manifest of an index that is for the wanted platform.
func choose(all []descriptor, wantOS, wantArch string) (descriptor, error) {
	var has []string
	for _, d := range all {
		if d.Platform == nil || (d.Platform.OS == wantOS && d.Platform.Architecture == wantArch) {
			return d, nil
		}
		has = append(has, d.Platform.OS+"/"+d.Platform.Architecture)
	}
	return descriptor{}, fmt.Errorf("image is for %s, this node is %s/%s", strings.Join(has, ", "), wantOS, wantArch)
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// validDigest reports whether s is a sha256 digest in its only spelling, and so
// safe as a file name.
func validDigest(s string) bool {
	h, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(h) == 64 && strings.Trim(h, "0123456789abcdef") == ""
}
