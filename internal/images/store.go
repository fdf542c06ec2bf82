package images

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// Store is the images of one node. All methods may be called at once.
type Store struct {
	cfg     Config
	lock    *os.File // keeps a second Store out of the directory
	reach   *reach
	work    *semaphore.Weighted // fetching and unpacking
	locks   keyed               // one worker per blob and per layer
	commits sync.Mutex          // held to change the index on disk; before mu
	pulls   sync.WaitGroup

	mu      sync.Mutex
	images  map[string]*record // by ID; replaced whole, records never change
	used    map[string]time.Time
	held    map[string]int // blobs and layers that somebody works with
	flights map[string]*flight
	closed  bool
}

// errClosed says that the store is going down.
var errClosed = errors.New("image store is closed")

// Open opens the store in cfg.Dir and clears what a crash left half done.
func Open(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	reach, err := newReach(cfg)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, reach: reach,
		work:    semaphore.NewWeighted(int64(cfg.Parallel)),
		held:    map[string]int{},
		used:    map[string]time.Time{},
		flights: map[string]*flight{},
	}
	if err := s.openDir(); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return s, nil
}

func (c Config) withDefaults() Config {
	if c.OS == "" {
		c.OS = "linux"
	}
	if c.Arch == "" {
		c.Arch = runtime.GOARCH
	}
	if c.Parallel <= 0 {
		c.Parallel = 4
	}
	if c.Timeout <= 0 {
		c.Timeout = 30 * time.Minute
	}
	if c.Stall <= 0 {
		c.Stall = time.Minute
	}
	return c
}

// openDir takes the directory for this Store alone, clears it and reads the
// index.
func (s *Store) openDir() (err error) {
	if s.cfg.Dir == "" {
		return errors.New("no directory given")
	}
	if s.cfg.Dir, err = filepath.Abs(s.cfg.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o711); err != nil {
		return err
	}
	if s.lock, err = os.OpenFile(s.path("lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.lock.Close()
		}
	}()
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s is in use by another process: %w", s.cfg.Dir, err)
	}
	if err := os.RemoveAll(s.path("tmp")); err != nil {
		return err
	}
	for dir, mode := range map[string]os.FileMode{"tmp": 0o700, "blobs": 0o700, "layers": 0o711} {
		if err := os.MkdirAll(s.path(dir), mode); err != nil {
			return err
		}
	}
	if err := syncDir(s.cfg.Dir); err != nil {
		return err
	}
	return s.load()
}

// load reads the index and forgets images of which a layer is missing.
func (s *Store) load() error {
	x, err := readIndex(s.path(indexFile))
	if err != nil {
		return err
	}
	for id, r := range x.Images {
		if !s.complete(r) {
			delete(x.Images, id)
			continue
		}
		s.used[id] = r.Used
	}
	s.images = x.Images
	return nil
}

func (s *Store) complete(r *record) bool {
	for _, l := range r.Layers {
		if _, err := os.Lstat(s.layerDir(l.Chain)); err != nil {
			return false
		}
	}
	return true
}

// Close cancels the pulls that are going on and waits for them.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, f := range s.flights {
		f.cancel()
	}
	s.mu.Unlock()
	s.pulls.Wait()
	s.reach.close()
	return s.lock.Close()
}

// Lookup returns the image that ref, a name, a name with digest or an ID, means
// on this node, and reports whether it is here. It counts as a use.
func (s *Store) Lookup(ref string) (Image, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.findLocked(ref)
	if r == nil {
		return Image{}, false
	}
	s.used[r.ID] = time.Now()
	return s.image(r), true
}

// findLocked returns the record that ref means, or nil.
func (s *Store) findLocked(ref string) *record {
	if r, ok := s.images[ref]; ok {
		return r
	}
	name, err := ParseReference(ref)
	if err != nil {
		return nil
	}
	for _, r := range s.images {
		if r.called(name) {
			return r
		}
	}
	return nil
}

// List returns all images, ordered by their first name.
func (s *Store) List() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Image
	for _, r := range s.images {
		out = append(out, s.image(r))
	}
	slices.SortFunc(out, func(a, b Image) int {
		return strings.Compare(sortKey(a), sortKey(b))
	})
	return out
}

func sortKey(i Image) string { return strings.Join(append(slices.Clone(i.RepoTags), i.ID), " ") }

// image returns what callers see of r.
func (s *Store) image(r *record) Image {
	i := Image{
		ID: r.ID, RepoTags: r.Tags, RepoDigests: r.Digests,
		Config: r.Config, Created: r.Created, Size: r.Size,
	}
	for _, l := range slices.Backward(r.Layers) {
		i.Layers = append(i.Layers, filepath.Join(s.layerDir(l.Chain), "fs"))
	}
	return i
}

// change makes the index what edit makes of a copy, on disk and then for
// everybody. Records in the copy are replaced, not altered.
func (s *Store) change(edit func(images map[string]*record) error) error {
	s.commits.Lock()
	defer s.commits.Unlock()
	s.mu.Lock()
	next := maps.Clone(s.images)
	used := maps.Clone(s.used)
	s.mu.Unlock()
	if err := edit(next); err != nil {
		return err
	}
	for id, r := range next {
		if t := used[id]; t.After(r.Used) {
			c := *r
			c.Used = t
			next[id] = &c
		}
	}
	if err := writeIndex(s.path(indexFile), index{Format: indexFormat, Images: next}); err != nil {
		return fmt.Errorf("write image index: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images = next
	for id := range s.used {
		if next[id] == nil {
			delete(s.used, id)
		}
	}
	return nil
}

// hold keeps blobs and layers from being collected until release is called.
func (s *Store) hold(keys ...string) (release func()) {
	add := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, k := range keys {
			if s.held[k] += n; s.held[k] == 0 {
				delete(s.held, k)
			}
		}
	}
	add(1)
	return func() { add(-1) }
}

func (s *Store) path(name string) string { return filepath.Join(s.cfg.Dir, name) }

// blobPath returns where the blob with a valid sha256 digest is kept.
func (s *Store) blobPath(digest string) string {
	return filepath.Join(s.cfg.Dir, "blobs", strings.TrimPrefix(digest, "sha256:"))
}

// layerDir returns the directory of a layer. Its name is short so that many
// fit into the options of one overlay mount; layer.json within tells the whole
// chain ID.
func (s *Store) layerDir(chain string) string {
	return filepath.Join(s.cfg.Dir, "layers", strings.TrimPrefix(chain, "sha256:")[:16])
}

// keyed is a lock per key.
type keyed struct {
	mu sync.Mutex
	m  map[string]*keyLock
}

type keyLock struct {
	free  chan struct{} // holds one token while nobody has the lock
	users int
}

// lock waits for the lock of key until ctx ends.
func (k *keyed) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.m == nil {
		k.m = map[string]*keyLock{}
	}
	l := k.m[key]
	if l == nil {
		l = &keyLock{free: make(chan struct{}, 1)}
		l.free <- struct{}{}
		k.m[key] = l
	}
	l.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.m, key)
		}
	}
	select {
	case <-l.free:
		return func() { l.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
