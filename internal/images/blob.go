package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// errDamaged is wrapped by errors of content that is not what its digest says.
var errDamaged = errors.New("content does not match its digest")

func isDamage(err error) bool { return errors.Is(err, errDamaged) }

// tries is how often the transfer of a blob is begun.
const tries = 3

// fetch makes the blob d present and reports whether it was transferred now. A
// blob gets its name only after its size and digest are right and it is on
// disk.
func (s *Store) fetch(ctx context.Context, src source, d descriptor) (fresh bool, err error) {
	unlock, err := s.locks.lock(ctx, "blob "+d.Digest) // a plain first layer has its own digest as chain ID
	if err != nil {
		return false, err
	}
	defer unlock()
	path := s.blobPath(d.Digest)
	if fi, err := os.Stat(path); err == nil && fi.Size() == d.Size {
		return false, nil
	}
	for try := 1; ; try++ {
		err := s.transfer(ctx, src, d, path)
		if err == nil || ctx.Err() != nil || isDamage(err) || !src.again(err) || try == tries {
			return true, err
		}
		select {
		case <-time.After(time.Duration(try) * 300 * time.Millisecond):
		case <-ctx.Done():
			return true, err
		}
	}
}

// transfer copies the blob from its source to path once.
func (s *Store) transfer(ctx context.Context, src source, d descriptor, path string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(s.cfg.Stall, func() { cancel(fmt.Errorf("no data for %v", s.cfg.Stall)) })
	defer stall.Stop()
	body, err := src.blob(ctx, d)
	if err != nil {
		return because(ctx, err)
	}
	defer body.Close()
	tmp, err := os.CreateTemp(s.path("tmp"), "blob-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	moving := readerFunc(func(p []byte) (int, error) { stall.Reset(s.cfg.Stall); return body.Read(p) })
	err = copyVerified(tmp, moving, d)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(because(ctx, err), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(s.path("blobs"))
}

// because adds to err why ctx was cancelled, if it was.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// copyVerified copies exactly the bytes that d names.
func copyVerified(w io.Writer, r io.Reader, d descriptor) error {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, d.Size+1))
	if err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", n, d.Size, err)
	}
	if n != d.Size {
		return fmt.Errorf("%w: %s has %d bytes, got %s", errDamaged, d.Digest, d.Size, atLeast(n, d.Size))
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != d.Digest {
		return fmt.Errorf("%w: wanted %s, got %s", errDamaged, d.Digest, got)
	}
	return nil
}

func atLeast(n, limit int64) string {
	if n > limit {
		return "more"
	}
	return fmt.Sprint(n)
}

// keep stores a small document as a blob.
func (s *Store) keep(doc []byte) error {
	path := s.blobPath(digestOf(doc))
	if fi, err := os.Stat(path); err == nil && fi.Size() == int64(len(doc)) {
		return nil
	}
	tmp, err := os.CreateTemp(s.path("tmp"), "doc-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(doc)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(s.path("blobs"))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
