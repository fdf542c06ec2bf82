// Package backup writes a cluster's state and keys into one encrypted file, and
// reads it back.
//
// The file is an archive of package seal. What it says of itself in the clear is
// the Manifest; behind the passphrase are the keys that open what is sealed in
// the state, and the state as a snapshot.
//
// Invariants: a file that was cut, changed, or is of another format is refused
// as a whole; a file is there under its name as a whole or not at all.
package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/seal"
	"github.com/wherry-project/wherry/internal/store"
)

// Format is the format of manifests and contents written here.
const Format = 1

// Manifest says what is in a backup.
type Manifest struct {
	Format   int       `json:"format"`
	Cluster  string    `json:"cluster"`
	Revision uint64    `json:"revision"`
	Created  time.Time `json:"created"`
	// Version is that of the controld which made it.
	Version string `json:"version"`
	// Objects counts the records, Bytes and SHA256 are of the snapshot.
	Objects int    `json:"objects"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
}

// Source is what a backup is made of.
type Source struct {
	Cluster, Version string
	// State is the state as it is stored, sealed; Keys open it.
	State *store.Snapshot
	Keys  []seal.Key
	Now   time.Time
}

// Manifest describes the backup that Write would write.
func (s Source) Manifest() (Manifest, error) {
	m := Manifest{
		Format: Format, Cluster: s.Cluster, Revision: s.State.Revision(), Created: s.Now.UTC().Truncate(time.Second),
		Version: s.Version, Objects: count(s.State),
	}
	var err error
	m.Bytes, m.SHA256, err = digest(s.State)
	return m, err
}

func count(s *store.Snapshot) (n int) {
	for resource := range s.Resources() {
		n += s.Count(resource, "")
	}
	return n
}

// digest is the length and the hash of a snapshot; equal states have equal ones.
func digest(s *store.Snapshot) (int64, string, error) {
	sum := sha256.New()
	n := &counter{to: sum}
	if err := s.Persist(n); err != nil {
		return 0, "", err
	}
	return n.n, hex.EncodeToString(sum.Sum(nil)), nil
}

type counter struct {
	to io.Writer
	n  int64
}

// Write implements io.Writer.
func (c *counter) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.n += int64(n)
	return n, err
}

// contents begin with this byte, and the keys as JSON behind their length.
type keys struct {
	Keys []key `json:"keys"`
}

type key struct {
	ID    uint32 `json:"id"`
	Bytes []byte `json:"bytes"`
}

// maxKeys bounds the keys' JSON.
const maxKeys = 1 << 20

// Write writes the contents, not encrypted.
func (s Source) Write(w io.Writer) error {
	var all keys
	for _, k := range s.Keys {
		all.Keys = append(all.Keys, key{k.ID(), k.Bytes()})
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint32([]byte{Format}, uint32(len(b)))
	if _, err := w.Write(append(head, b...)); err != nil {
		return err
	}
	return s.State.Persist(w)
}

// WriteFile makes the file: beside its place first, 0600, durable, and then
// under its name. What contents writes is what Source.Write would.
func WriteFile(path string, passphrase []byte, m Manifest, contents func(io.Writer) error) error {
	return writeFile(path, passphrase, seal.ProperCost(), m, contents)
}

func writeFile(path string, passphrase []byte, cost seal.Cost, m Manifest, contents func(io.Writer) error) (err error) {
	about, err := json.Marshal(m)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // err says more
		}
	}()
	write := func() error {
		w, err := seal.NewWriter(f, passphrase, about, cost)
		if err != nil {
			return err
		}
		if err := contents(w); err != nil {
			return err
		}
		return w.Close()
	}
	if err = write(); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write backup %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Backup is one that was read back.
type Backup struct {
	Manifest
	Keys []seal.Key
	// State is whole and checked, and sealed as it was.
	State *store.Mem
}

// ReadFile reads a whole backup and checks all of it.
func ReadFile(path string, passphrase []byte, codec *api.Codec) (*Backup, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := Read(f, passphrase, codec)
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", path, err)
	}
	return b, nil
}

// Peek gives what a file says of itself in the clear.
func Peek(path string) (Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return Manifest{}, err
	}
	defer f.Close()
	about, err := seal.ReadAbout(f)
	if err != nil {
		return Manifest{}, fmt.Errorf("backup %s: %w", path, err)
	}
	return manifest(about)
}

func manifest(about []byte) (Manifest, error) {
	var m Manifest
	switch err := json.Unmarshal(about, &m); {
	case err != nil:
		return m, seal.ErrArchiveBroken
	case m.Format > Format:
		return m, seal.ErrNewerArchive
	case m.Format != Format:
		return m, seal.ErrArchiveBroken
	}
	return m, nil
}

// Read reads a backup from where it stands.
func Read(from io.Reader, passphrase []byte, codec *api.Codec) (*Backup, error) {
	r, err := seal.NewReader(from, passphrase)
	if err != nil {
		return nil, err
	}
	b := &Backup{State: store.NewMem(codec, store.Limits{})}
	if b.Manifest, err = manifest(r.About); err != nil {
		return nil, err
	}
	if b.Keys, err = readKeys(r); err != nil {
		return nil, err
	}
	sum := sha256.New()
	n := &counter{to: sum}
	in := io.TeeReader(r, n)
	if err := b.State.Restore(in); err != nil {
		return nil, archiveError(err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // what restoring did not need to look at
		return nil, archiveError(err)
	}
	return b, b.check(n.n, hex.EncodeToString(sum.Sum(nil)))
}

// archiveError gives what the archive said, without what was read for it.
func archiveError(err error) error {
	for _, known := range []error{seal.ErrArchiveBroken, seal.ErrArchiveCut} {
		if errors.Is(err, known) {
			return known
		}
	}
	return err
}

func (b *Backup) check(bytes int64, sum string) error {
	s := b.State.Snapshot()
	if bytes != b.Bytes || sum != b.SHA256 || s.Revision() != b.Revision || count(s) != b.Objects {
		return fmt.Errorf("its state (%d objects at revision %d, %d bytes) is not what was backed up (%d objects at revision %d, %d bytes); use another copy",
			count(s), s.Revision(), bytes, b.Objects, b.Revision, b.Bytes)
	}
	return nil
}

func readKeys(r io.Reader) ([]seal.Key, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, short(err)
	}
	if head[0] != Format {
		return nil, seal.ErrNewerArchive
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxKeys {
		return nil, seal.ErrArchiveBroken
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, short(err)
	}
	var all keys
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&all); err != nil {
		return nil, seal.ErrArchiveBroken
	}
	var out []seal.Key
	for _, k := range all.Keys {
		one, err := seal.OpenKey(k.ID, k.Bytes)
		if err != nil {
			return nil, seal.ErrArchiveBroken
		}
		out = append(out, one)
	}
	return out, nil
}

func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return seal.ErrArchiveCut
	}
	return err
}
