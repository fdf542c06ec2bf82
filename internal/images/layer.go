package images

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// readLayer returns the unpacked layer of a chain ID, or nil.
func (s *Store) readLayer(chain string) (*layer, error) {
	path := filepath.Join(s.layerDir(chain), "layer.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var l layer
	if err := json.Unmarshal(data, &l); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if l.Format != indexFormat {
		return nil, fmt.Errorf("%s has format %d, this program knows %d", path, l.Format, indexFormat)
	}
	if l.Chain != chain {
		return nil, fmt.Errorf("%s is of layer chain %s, not %s, though their names begin alike", path, l.Chain, chain)
	}
	return &l, nil
}

// publishLayer gives the unpacked layer in tmp its name, once all of it is on
// disk.
func (s *Store) publishLayer(tmp string, l layer) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "layer.json"), data, 0o600); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o711); err != nil {
		return err
	}
	if err := syncTree(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, s.layerDir(l.Chain)); err != nil {
		return err
	}
	return syncDir(s.path("layers"))
}

// unpackFile unpacks the blob at path, whose uncompressed digest must be diff,
// into the new directory dir. It returns the directories of which the blob has
// no entry, and the bytes of all files. On error dir is in any state.
func unpackFile(ctx context.Context, path, dir, diff string) (bare []string, bytes int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, 0, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask
		return nil, 0, err
	}
	plain, err := decompress(f)
	if err != nil {
		return nil, 0, err
	}
	defer plain.Close()
	h := sha256.New()
	tar := io.TeeReader(plain, h)
	u := newUnpacker()
	bytes, err = archive.Apply(ctx, dir, tar, archive.WithFilter(u.filter), archive.WithConvertWhiteout(u.whiteout))
	if err == nil {
		_, err = io.Copy(io.Discard, tar) // what follows the end of the archive counts too
	}
	if err != nil {
		return nil, 0, fmt.Errorf("unpack: %w", err)
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != diff {
		return nil, 0, fmt.Errorf("unpack: %w: uncompressed it should be %s, got %s", errDamaged, diff, got)
	}
	return u.bare(), bytes, u.finish()
}

// decompress returns the plain bytes of a layer, whatever it is packed with.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, err
		}
		return z, nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}
