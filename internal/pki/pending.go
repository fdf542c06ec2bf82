package pki

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// pendingFile holds the key of a join that is under way.
const pendingFile = "join.key"

// PendingKey gives the key that a machine joins a cluster with. It lies in dir
// (made 0700) before anybody is asked, so that after an answer that was lost
// the same machine asks again with the same key, and the cluster knows it.
func PendingKey(dir string) (crypto.Signer, error) {
	file := filepath.Join(dir, pendingFile)
	der, err := readPEM(file, "PRIVATE KEY")
	if err == nil {
		key, err := parseKey(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %w; remove it to join with a new key", file, err)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; remove it to join with a new key", err)
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	text, err := EncodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return key, WriteFile(file, text, 0o600)
}

// DropPendingKey forgets the key of a join that has come to its end, and the
// folder if nothing else is in it.
func DropPendingKey(dir string) error {
	if err := os.Remove(filepath.Join(dir, pendingFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		return err
	}
	return os.Remove(dir)
}
