// Package images keeps container images on a node: it pulls them from
// registries or takes them from archives, verifies every byte against its
// digest, unpacks each layer once into a directory of its own that serves as a
// lower directory of overlayfs, and collects what nobody uses.
//
// Everything below Config.Dir is published by renames of files and directories
// that are already on disk, in an order in which the index comes last. A crash
// or power cut at any moment leaves the former or the next state and, at most,
// unreferenced blobs and layers, which a later pull takes over and [Store.Collect]
// removes.
//
// It is the only importer of go-containerregistry besides test support.
package images

import (
	"errors"
	"slices"
	"time"
)

// ErrInvalidName is wrapped by the error of a reference that cannot be the name
// of any image: what Kubernetes calls InvalidImageName. Other failures of a
// pull carry a kind of apierr: ErrNotFound and ErrUnauthorized when the
// registry says so, ErrUnavailable when it cannot be reached.
var ErrInvalidName = errors.New("invalid image name")

// Config says where images are kept and how registries are reached. The zero
// value of every field but Dir is a good default.
type Config struct {
	Dir        string              // created if missing; one Store at a time
	Registries map[string]Registry // by host[:port]; others are reached by verified HTTPS
	OS         string              // wanted platform; default linux
	Arch       string              // default that of the program
	Parallel   int                 // blobs fetched and unpacked at once; default 4
	Timeout    time.Duration       // longest pull; default 30 minutes
	Stall      time.Duration       // a transfer without a byte for so long is given up; default 1 minute
}

// Registry is how one registry is reached.
type Registry struct {
	PlainHTTP  bool   // HTTP is tried if HTTPS does not answer
	SkipVerify bool   // any server certificate will do
	CA         []byte // PEM; trusted besides the system's
}

// Auth is one way to log in to a registry. The zero value is nobody.
type Auth struct {
	Username      string
	Password      string
	IdentityToken string // OAuth2 refresh token
	RegistryToken string // bearer token, sent as it is
}

// Image is one image that is wholly on this node. It is shared: do not change
// what its slices hold.
type Image struct {
	ID          string   // digest of the config, sha256:…
	RepoTags    []string // docker.io/library/busybox:latest
	RepoDigests []string // docker.io/library/busybox@sha256:…
	Size        int64    // bytes as transferred
	Layers      []string // lower directories for overlayfs, topmost first
	Config      ContainerConfig
	Created     time.Time // when the image was built, as it claims
}

// ContainerConfig is what a container of the image runs unless its pod says
// otherwise.
type ContainerConfig struct {
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Env          []string          `json:"env,omitempty"` // NAME=value
	WorkingDir   string            `json:"workingDir,omitempty"`
	User         string            `json:"user,omitempty"` // user[:group], names or numbers; see Image.Resolve
	StopSignal   string            `json:"stopSignal,omitempty"`
	Volumes      []string          `json:"volumes,omitempty"`      // sorted
	ExposedPorts []string          `json:"exposedPorts,omitempty"` // 80/tcp, sorted
	Labels       map[string]string `json:"labels,omitempty"`
}

// PinnedName returns the name that means this image for ever: repository and
// digest where known, else the ID. It is what a container's imageID shows.
func (i Image) PinnedName() string {
	if len(i.RepoDigests) > 0 {
		return i.RepoDigests[0]
	}
	return i.ID
}

// Names returns all names of the image, as a Node lists them: digests first.
func (i Image) Names() []string { return slices.Concat(i.RepoDigests, i.RepoTags) }

// User is who a process of the image runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary, from /etc/group
	Home     string
}

// Collection is one round of garbage collection.
type Collection struct {
	InUse  func(Image) bool // of the images that must stay
	High   int              // per cent of the file system in use that starts it; 0: always
	Low    int              // per cent at which it stops; 0: when nothing unused is left
	MinAge time.Duration    // images used since are left alone
}

// Collected is what a round of garbage collection did.
type Collected struct {
	Images []string // IDs
	Bytes  int64    // of blobs and layers
}

// Usage is how full the store's file system is.
type Usage struct {
	Images                int64 // bytes of all blobs and layers kept
	Free, Total           uint64
	FreeInodes, AllInodes uint64
}
