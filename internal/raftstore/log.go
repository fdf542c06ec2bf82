package raftstore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"runtime/debug"
	"sync"

	"github.com/hashicorp/raft"
)

// logStore guards the log below it: every entry carries a checksum, which is
// looked at when it is read, and the newest entries stay in memory, bounded in
// bytes.
type logStore struct {
	raft.LogStore

	mu    sync.Mutex
	cache map[uint64]*raft.Log
	first uint64 // of cache, which has no gaps
	next  uint64
	bytes int
	// written counts the bytes and entries since the last snapshot.
	written, entries uint64
}

const (
	cacheBytes = 16 << 20
	cacheLogs  = 1024
	logCost    = 128 // of an entry besides its data
)

func newLogStore(below raft.LogStore) *logStore {
	return &logStore{LogStore: below, cache: map[uint64]*raft.Log{}}
}

// sum is the checksum of an entry, as it is kept in its extensions.
func sum(l *raft.Log) []byte {
	var head [17]byte
	binary.LittleEndian.PutUint64(head[:], l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	table := crc32.MakeTable(crc32.Castagnoli)
	c := crc32.Update(crc32.Update(0, table, head[:]), table, l.Data)
	return binary.LittleEndian.AppendUint32(nil, c)
}

// StoreLog implements raft.LogStore.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	summed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l
		c.Extensions = sum(l)
		summed[i] = &c
	}
	if err := s.LogStore.StoreLogs(summed); err != nil {
		return fmt.Errorf("append to the log: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range logs {
		s.keepLocked(l)
		s.written += uint64(len(l.Data) + logCost)
		s.entries++
	}
	return nil
}

func (s *logStore) keepLocked(l *raft.Log) {
	if l.Index != s.next {
		s.dropLocked()
		s.first, s.next = l.Index, l.Index
	}
	s.cache[l.Index] = l
	s.next++
	s.bytes += len(l.Data) + logCost
	for (s.bytes > cacheBytes || len(s.cache) > cacheLogs) && s.first < s.next-1 {
		s.bytes -= len(s.cache[s.first].Data) + logCost
		delete(s.cache, s.first)
		s.first++
	}
}

func (s *logStore) dropLocked() {
	clear(s.cache)
	s.first, s.next, s.bytes = 0, 0, 0
}

// GetLog implements raft.LogStore.
func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	s.mu.Lock()
	cached := s.cache[index]
	s.mu.Unlock()
	if cached != nil {
		*l = *cached
		return nil
	}
	if err := s.LogStore.GetLog(index, l); err != nil {
		return err
	}
	if l.Index != index || string(l.Extensions) != string(sum(l)) {
		return fmt.Errorf("log entry %d is damaged: its checksum is wrong", index)
	}
	l.Extensions = nil
	return nil
}

// DeleteRange implements raft.LogStore.
func (s *logStore) DeleteRange(first, last uint64) error {
	s.mu.Lock()
	if last >= s.first {
		s.dropLocked() // a conflicting end, or everything
	}
	s.mu.Unlock()
	return s.LogStore.DeleteRange(first, last)
}

// sinceSnapshot tells how much was written since snapshotted was called.
func (s *logStore) sinceSnapshot() (bytes, entries uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written, s.entries
}

func (s *logStore) snapshotted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written, s.entries = 0, 0
}

// verify reads the whole log, so that damage shows now and not when an entry
// is needed. It gives the first index and the bytes that are there.
func (s *logStore) verify() (first uint64, err error) {
	// A file that is shorter than its pages say faults when it is read.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the log file is damaged: %v", r)
		}
	}()
	first, err = s.FirstIndex()
	if err != nil {
		return 0, err
	}
	last, err := s.LastIndex()
	if err != nil || last == 0 {
		return 0, err
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			return 0, fmt.Errorf("log entry %d of %d to %d: %w", i, first, last, err)
		}
		s.written += uint64(len(l.Data) + logCost)
		s.entries++
	}
	return first, nil
}
