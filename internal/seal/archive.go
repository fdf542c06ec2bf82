package seal

import (
	"bufio"
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"golang.org/x/crypto/argon2"
)

// An archive is a head, and chunks of up to 64 KiB, each under AES-256-GCM. The
// head is the magic word, a format byte, how the key comes from the passphrase
// (argon2id: salt, passes, memory, threads), what the archive says of itself in
// the clear, a checksum of all that, and a tag that only the right passphrase
// makes. A chunk's nonce has its number, and whether it is the last: chunks can
// be neither left out nor cut off.
const (
	archiveMagic  = "wherrybackup"
	archiveFormat = 1
	saltBytes     = 16
	chunkBytes    = 64 << 10
	maxAbout      = 64 << 10
	archiveInfo   = "wherry backup 1"

	kdfThreads = 1
	// What a head may ask of a reader.
	maxPasses = 100
	maxMemory = 1 << 20
)

// Reasons to refuse an archive.
var (
	ErrNotArchive    = errors.New("it is not a backup of Wherry's")
	ErrNewerArchive  = errors.New("it is of a newer format than this version knows; use the version that wrote it, or a newer one")
	ErrPassphrase    = errors.New("wrong passphrase")
	ErrArchiveCut    = errors.New("it is cut off: its end is missing; use another copy")
	ErrArchiveBroken = errors.New("it is damaged: it was changed after it was written, or the end is missing; use another copy")
)

// Cost is what trying one passphrase costs: passes over KiB of memory. Whoever
// writes pays it once, and the archive says it to whoever reads.
type Cost struct{ Passes, Memory uint32 }

// ProperCost is the cost of an archive that is kept.
func ProperCost() Cost { return Cost{Passes: 3, Memory: 32 << 10} }

func (c Cost) good() bool {
	return c.Passes > 0 && c.Passes <= maxPasses && c.Memory > 0 && c.Memory <= maxMemory
}

type kdf struct {
	salt    []byte
	cost    Cost
	threads uint8
}

func (k kdf) append(b []byte) []byte {
	b = append(b, k.salt...)
	b = binary.BigEndian.AppendUint32(b, k.cost.Passes)
	b = binary.BigEndian.AppendUint32(b, k.cost.Memory)
	return append(b, k.threads)
}

// ciphers gives what proves the passphrase, and what hides the chunks.
func (k kdf) ciphers(passphrase, head []byte) (check, chunks cipher.AEAD, err error) {
	secret := argon2.IDKey(passphrase, k.salt, k.cost.Passes, k.cost.Memory, k.threads, keyBytes)
	sum := sha256.Sum256(head)
	raw, err := hkdf.Expand(sha256.New, secret, archiveInfo+string(sum[:]), 2*keyBytes)
	if err != nil {
		return nil, nil, err
	}
	if check, err = newAEAD(raw[:keyBytes]); err == nil {
		chunks, err = newAEAD(raw[keyBytes:])
	}
	return check, chunks, err
}

// chunkNonce is of chunk n; the last one's differs.
func chunkNonce(n uint64, last bool) []byte {
	b := make([]byte, nonceBytes)
	binary.BigEndian.PutUint64(b[3:], n)
	if last {
		b[nonceBytes-1] = 1
	}
	return b
}

// Writer writes an archive. It is whole when Close has returned nil.
type Writer struct {
	to     io.Writer
	chunks cipher.AEAD
	buf    []byte
	out    []byte
	n      uint64
	err    error
}

// NewWriter begins an archive. What it says about itself stays readable to
// everyone, but cannot be changed unnoticed.
func NewWriter(to io.Writer, passphrase, about []byte, cost Cost) (*Writer, error) {
	if !cost.good() {
		return nil, fmt.Errorf("archive: no reader takes the cost of %d passes over %d KiB", cost.Passes, cost.Memory)
	}
	if len(passphrase) == 0 {
		return nil, errors.New("the passphrase is empty")
	}
	if len(about) > maxAbout {
		return nil, fmt.Errorf("archive: %d bytes about it are too many", len(about))
	}
	k := kdf{salt: make([]byte, saltBytes), cost: cost, threads: kdfThreads}
	if _, err := rand.Read(k.salt); err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	head := k.append(append([]byte(archiveMagic), archiveFormat))
	head = binary.BigEndian.AppendUint32(head, uint32(len(about)))
	head = append(head, about...)
	head = binary.BigEndian.AppendUint32(head, checksum(head))
	check, chunks, err := k.ciphers(passphrase, head)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	if _, err := to.Write(check.Seal(head, make([]byte, nonceBytes), nil, nil)); err != nil {
		return nil, err
	}
	return &Writer{to: to, chunks: chunks, buf: make([]byte, 0, chunkBytes)}, nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// Write implements io.Writer.
func (w *Writer) Write(b []byte) (int, error) {
	for done := 0; ; {
		n := copy(w.buf[len(w.buf):chunkBytes], b[done:])
		w.buf = w.buf[:len(w.buf)+n]
		if done += n; done == len(b) {
			return done, w.err
		}
		if w.flush(false); w.err != nil { // full, and there is more
			return done, w.err
		}
	}
}

func (w *Writer) flush(last bool) {
	if w.err != nil {
		return
	}
	w.out = w.chunks.Seal(w.out[:0], chunkNonce(w.n, last), w.buf, nil)
	w.n++
	w.buf = w.buf[:0]
	_, w.err = w.to.Write(w.out)
}

// Close writes the end. It does not close what is underneath.
func (w *Writer) Close() error {
	w.flush(true)
	if err := w.err; err != nil {
		return err
	}
	w.err = errors.New("the archive is closed")
	return nil
}

// Reader reads an archive.
type Reader struct {
	// About is what the archive says of itself.
	About []byte

	from   *bufio.Reader
	chunks cipher.AEAD
	rest   []byte
	n      uint64
	err    error
}

// ReadAbout gives what an archive says of itself in the clear. Without the
// passphrase nobody vouches for it.
func ReadAbout(from io.Reader) ([]byte, error) {
	_, about, _, err := readHead(from)
	return about, err
}

func readHead(from io.Reader) (head, about []byte, k kdf, err error) {
	fixed := len(archiveMagic) + 1
	head = make([]byte, fixed)
	n, err := io.ReadFull(from, head)
	switch {
	case !bytes.HasPrefix([]byte(archiveMagic), head[:min(n, len(archiveMagic))]):
		return nil, nil, k, ErrNotArchive
	case err != nil:
		return nil, nil, k, cut(err)
	case head[fixed-1] > archiveFormat:
		return nil, nil, k, ErrNewerArchive
	case head[fixed-1] != archiveFormat:
		return nil, nil, k, ErrArchiveBroken
	}
	next := func(n int) []byte {
		at := len(head)
		head = append(head, make([]byte, n)...)
		if err == nil {
			_, err = io.ReadFull(from, head[at:])
		}
		return head[at:]
	}
	p := next(saltBytes + 4 + 4 + 1 + 4)
	size := binary.BigEndian.Uint32(p[saltBytes+9:])
	k = kdf{p[:saltBytes], Cost{binary.BigEndian.Uint32(p[saltBytes:]), binary.BigEndian.Uint32(p[saltBytes+4:])}, p[saltBytes+8]}
	if err == nil && size > maxAbout {
		return nil, nil, k, ErrArchiveBroken
	}
	about = next(int(size))
	before := len(head)
	sum := next(4)
	switch {
	case err != nil:
		return nil, nil, k, cut(err)
	case binary.BigEndian.Uint32(sum) != checksum(head[:before]),
		!k.cost.good() || k.threads == 0:
		return nil, nil, k, ErrArchiveBroken
	}
	return head, about, k, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrArchiveCut
	}
	return err
}

// NewReader begins to read an archive. Whoever reads must go on to io.EOF
// before it trusts that the archive is whole.
func NewReader(from io.Reader, passphrase []byte) (*Reader, error) {
	in := bufio.NewReaderSize(from, chunkBytes+tagBytes+1)
	head, about, k, err := readHead(in)
	if err != nil {
		return nil, err
	}
	check, chunks, err := k.ciphers(passphrase, head)
	if err != nil {
		return nil, err
	}
	tag := make([]byte, tagBytes)
	if _, err := io.ReadFull(in, tag); err != nil {
		return nil, cut(err)
	}
	if _, err := check.Open(nil, make([]byte, nonceBytes), tag, nil); err != nil {
		return nil, ErrPassphrase
	}
	return &Reader{About: about, from: in, chunks: chunks}, nil
}

// Read implements io.Reader.
func (r *Reader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.next()
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// next reads a chunk. The last one is where the file ends, and says that it is.
func (r *Reader) next() {
	sealed := make([]byte, chunkBytes+tagBytes)
	n, err := io.ReadFull(r.from, sealed)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		r.err = cut(err)
		return
	}
	last := err != nil
	if !last {
		_, err := r.from.Peek(1)
		last = errors.Is(err, io.EOF)
	}
	plain, err := r.chunks.Open(nil, chunkNonce(r.n, last), sealed[:n], nil)
	if err == nil {
		r.rest = plain
		r.n++
		if last {
			r.err = io.EOF
		}
		return
	}
	r.err = ErrArchiveBroken
	if last { // a whole chunk where the file ends was not meant to be the last
		if _, err := r.chunks.Open(nil, chunkNonce(r.n, false), sealed[:n], nil); err == nil {
			r.err = ErrArchiveCut
		}
	}
}
