package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Stable keeps a few small values in one file: the term and the vote. There are
// two copies, and the older one is written over, so that a power cut leaves one
// whole. One sync stores a value.
type Stable struct {
	mu     sync.Mutex
	file   File
	number uint64 // of the newest copy
	values map[string][]byte
}

const (
	stableMagic = "whstable"
	stableHead  = 24
	// slotBytes is a page, so that no sector belongs to both copies.
	slotBytes = 4096
)

// ErrTooLarge says that the values do not fit.
var ErrTooLarge = errors.New("too large to be kept")

// OpenStable opens the file, or makes it unless it must be there.
func OpenStable(fs FS, path string, must bool) (*Stable, error) {
	s := &Stable{values: map[string][]byte{}}
	if err := s.open(fs, path, must); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
		if s.file != nil {
			err = errors.Join(err, s.file.Close())
		}
		return nil, err
	}
	return s, nil
}

func (s *Stable) open(fs FS, path string, must bool) (err error) {
	s.file, err = fs.Open(path, 0)
	if errors.Is(err, os.ErrNotExist) && must {
		return fmt.Errorf("%w: it is gone", ErrDamaged)
	}
	if errors.Is(err, os.ErrNotExist) {
		return s.create(fs, path)
	} else if err != nil {
		return err
	}
	b := make([]byte, 2*slotBytes)
	if n, err := s.file.ReadAt(b, 0); n < len(b) {
		return fmt.Errorf("%w: it has %d bytes of %d (%w)", ErrDamaged, n, len(b), err)
	}
	var reason error
	for i := range 2 {
		number, values, err := decodeSlot(b[i*slotBytes : (i+1)*slotBytes])
		if errors.Is(err, ErrNewer) {
			return err
		}
		if err != nil {
			reason = err
		} else if number >= s.number {
			s.number, s.values = number, values
		}
	}
	if s.number == 0 {
		return reason
	}
	// What a killed process wrote is seen now, and must stay.
	if err := s.file.Sync(); err != nil {
		return err
	}
	return fs.SyncDir(filepath.Dir(path))
}

// create makes the file under another name, so that it is there as a whole.
func (s *Stable) create(fs FS, path string) error {
	var err error
	if s.file, err = fs.Open(path+".tmp", os.O_CREATE|os.O_TRUNC); err != nil {
		return err
	}
	if err := s.file.Allocate(2 * slotBytes); err != nil {
		return full(err)
	}
	if err := s.store(s.values); err != nil {
		return err
	}
	if err := fs.Rename(path+".tmp", path); err != nil {
		return err
	}
	return fs.SyncDir(filepath.Dir(path))
}

// Get gives a value, nil if there is none.
func (s *Stable) Get(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.values[key]
}

// Set stores a value: when it returns nil, it survives a power cut.
func (s *Stable) Set(key string, value []byte) error {
	return s.SetAll(map[string][]byte{key: value})
}

// SetAll stores several values with one sync, all of them or none.
func (s *Stable) SetAll(values map[string][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maps.Clone(s.values)
	for k, v := range values {
		next[k] = append([]byte{}, v...)
	}
	if err := s.store(next); err != nil {
		return fmt.Errorf("store %s: %w", strings.Join(slices.Sorted(maps.Keys(values)), " and "), err)
	}
	s.values = next
	return nil
}

// store writes over the older copy. If it fails the same copy is written the
// next time: the newer one stays.
func (s *Stable) store(values map[string][]byte) error {
	number := s.number + 1
	b, err := encodeSlot(number, values)
	if err != nil {
		return err
	}
	if _, err := s.file.WriteAt(b, int64(number%2)*slotBytes); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	s.number = number
	return nil
}

// Close lets go of the file.
func (s *Stable) Close() error { return s.file.Close() }

func encodeSlot(number uint64, values map[string][]byte) ([]byte, error) {
	b := append(make([]byte, 0, slotBytes), stableMagic...)
	b = binary.LittleEndian.AppendUint32(b, format)
	b = binary.LittleEndian.AppendUint64(b, number)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(values)))
	for _, k := range slices.Sorted(maps.Keys(values)) {
		b = binary.AppendUvarint(b, uint64(len(k)))
		b = append(b, k...)
		b = binary.AppendUvarint(b, uint64(len(values[k])))
		b = append(b, values[k]...)
	}
	if len(b) > slotBytes-4 {
		return nil, fmt.Errorf("%d bytes: %w", len(b), ErrTooLarge)
	}
	b = b[:slotBytes-4]
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

func decodeSlot(b []byte) (number uint64, values map[string][]byte, err error) {
	whole := binary.LittleEndian.Uint32(b[slotBytes-4:]) == crc32.Checksum(b[:slotBytes-4], castagnoli)
	if !whole || string(b[:len(stableMagic)]) != stableMagic {
		return 0, nil, fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	}
	if f := binary.LittleEndian.Uint32(b[8:]); f > format {
		return 0, nil, fmt.Errorf("%w: format %d, this version knows up to %d", ErrNewer, f, format)
	}
	number = binary.LittleEndian.Uint64(b[12:])
	count := binary.LittleEndian.Uint32(b[20:])
	values = map[string][]byte{}
	rest := b[stableHead : slotBytes-4]
	text := func() ([]byte, bool) {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return nil, false
		}
		v := rest[n : n+int(size)]
		rest = rest[n+int(size):]
		return v, true
	}
	for range count {
		k, ok := text()
		v, also := text()
		if !ok || !also {
			return 0, nil, fmt.Errorf("%w: its values are cut off", ErrDamaged)
		}
		values[string(k)] = v
	}
	return number, values, nil
}
