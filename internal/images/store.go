package images

import (
	"context"
	"errors"
	"io"
)

// Store is the images of one node. All methods may be called at once.
type Store struct{}

var errLater = errors.New("images: not built yet")

// Open opens the store in cfg.Dir and clears what a crash left half done.
func Open(cfg Config) (*Store, error) { return nil, errLater }

// Close waits for pulls to end after cancelling them.
func (s *Store) Close() error { return errLater }

// Pull makes the image that ref names in its registry present and returns it.
// The registry is always asked; what is already here is not transferred again.
// The credentials are tried in order, then none. Callers that want the same
// image at the same time share one pull, which goes on while one of them waits.
func (s *Store) Pull(ctx context.Context, ref string, creds ...Auth) (Image, error) {
	return Image{}, errLater
}

// Lookup returns the image that ref, a name, a name with digest or an ID, means
// on this node, and reports whether it is here. It counts as a use.
func (s *Store) Lookup(ref string) (Image, bool) { return Image{}, false }

// List returns all images, ordered by their first name.
func (s *Store) List() []Image { return nil }

// Import takes every image of a tar archive, an OCI layout or what docker save
// writes, gzipped or not, with all its names.
func (s *Store) Import(ctx context.Context, r io.Reader) ([]Image, error) { return nil, errLater }

// Export writes the images that refs name as a tar archive that is both an OCI
// layout and what docker load reads.
func (s *Store) Export(ctx context.Context, w io.Writer, refs ...string) error { return errLater }

// Remove takes the name ref away from its image; the image goes with its last
// name. If ref is an ID, all its names go. The caller knows that no container
// runs from it.
func (s *Store) Remove(ctx context.Context, ref string) error { return errLater }

// Collect removes images that nobody uses, longest unused first, if the file
// system is fuller than c.High, until it is not fuller than c.Low; and always
// what no image refers to.
func (s *Store) Collect(ctx context.Context, c Collection) (Collected, error) {
	return Collected{}, errLater
}

// Usage measures the store and its file system.
func (s *Store) Usage() (Usage, error) { return Usage{}, errLater }

// Resolve returns who user, as in USER of a Dockerfile or runAsUser:runAsGroup,
// is by the image's /etc/passwd and /etc/group. Empty is root. A number need
// not be listed; a name must.
func (i Image) Resolve(user string) (User, error) { return User{}, errLater }

// Credentials returns the logins that a .dockerconfigjson (or .dockercfg) holds
// for the registry of ref, best match first.
func Credentials(dockerConfig []byte, ref string) ([]Auth, error) { return nil, errLater }
