// Package checkpoint keeps on disk what noded must know after a restart: its
// share of the cluster's state, so that a machine that comes up alone runs its
// pods. The file is sealed with a key of the node's own, since Secrets are in
// it, and replaced as a whole: after a power cut it is the old or the new one.
package checkpoint

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Format starts every file. A file of another format is refused.
const Format = 1

const magic = "WHCP"

// ErrFormat says that the file is of a format that this program does not know.
var ErrFormat = errors.New("unknown format")

// Store is one checkpoint file.
type Store struct {
	path string
	seal cipher.AEAD
}

// Open makes a Store of the file at path, sealed under a secret of any length.
func Open(path string, secret []byte) (*Store, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "wherry checkpoint", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the checkpoint's key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("seal the checkpoint: %w", err)
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("seal the checkpoint: %w", err)
	}
	return &Store{path: path, seal: seal}, nil
}

// Load gives what was saved last; nil if nothing was. A file that is of another
// format, or not ours, is an error, and stays as it is.
func (s *Store) Load() ([]byte, error) {
	b, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	head := len(magic) + 1
	if len(b) < head+s.seal.NonceSize() || string(b[:len(magic)]) != magic {
		return nil, fmt.Errorf("checkpoint %s is damaged; remove it and noded asks the control plane anew", s.path)
	}
	if f := b[len(magic)]; f != Format {
		return nil, fmt.Errorf("checkpoint %s has format %d, this noded reads %d; run the noded that wrote it, or remove the file: %w", s.path, f, Format, ErrFormat)
	}
	nonce := b[head : head+s.seal.NonceSize()]
	plain, err := s.seal.Open(nil, nonce, b[head+len(nonce):], b[:head])
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s is damaged or of another node; remove it and noded asks the control plane anew: %w", s.path, err)
	}
	return plain, nil
}

// Save replaces the checkpoint; when it returns it is on disk.
func (s *Store) Save(data []byte) (err error) {
	nonce := make([]byte, s.seal.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return fmt.Errorf("seal checkpoint: %w", err)
	}
	out := append([]byte(magic), Format)
	out = s.seal.Seal(append(out, nonce...), nonce, data, out[:len(magic)+1])
	f, err := os.OpenFile(s.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(out); err != nil {
		return errors.Join(fmt.Errorf("write checkpoint: %w", err), f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	if err := os.Rename(f.Name(), s.path); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	dir, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return nil
}
