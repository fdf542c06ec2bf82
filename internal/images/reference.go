package images

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
)

// Reference is the name of an image, complete: busybox is
// docker.io/library/busybox:latest.
type Reference struct {
	Registry   string // docker.io, registry.example:5000
	Repository string // library/busybox
	Tag        string // empty only if there is a Digest
	Digest     string // sha256:…; decides when both are given
}

// ParseReference completes the name s as Docker does. Its error wraps
// ErrInvalidName and says what is wrong with s.
func ParseReference(s string) (Reference, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, fmt.Errorf("%w %q: %w", ErrInvalidName, s, err)
	}
	r := Reference{Registry: reference.Domain(named), Repository: reference.Path(named)}
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		r.Digest = d.Digest().String()
		if !strings.HasPrefix(r.Digest, "sha256:") {
			return Reference{}, fmt.Errorf("%w %q: only sha256 digests are supported", ErrInvalidName, s)
		}
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r, nil
}

// Name returns registry and repository.
func (r Reference) Name() string { return r.Registry + "/" + r.Repository }

// String returns the complete name.
func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// tagged returns the name with tag only, or "" for one pinned by digest.
func (r Reference) tagged() string {
	if r.Digest != "" || r.Tag == "" {
		return ""
	}
	return r.Name() + ":" + r.Tag
}
