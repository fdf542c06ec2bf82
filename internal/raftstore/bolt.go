package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// boltLog keeps the log in a bolt file. Each entry carries a checksum, which is
// looked at when it is read.
type boltLog struct{ *raftboltdb.BoltStore }

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

func (b boltLog) write(logs []*raft.Log) error {
	summed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l
		c.Extensions = sum(l)
		summed[i] = &c
	}
	return b.StoreLogs(summed)
}

// sync has nothing to do: bolt syncs what it writes.
func (b boltLog) sync() error { return nil }

func (b boltLog) syncs() bool { return false }
func (b boltLog) full() bool  { return false }
func (b boltLog) prepare()    {}

// follows: bolt lets a log have gaps.
func (b boltLog) follows() bool { return false }

// GetLog implements raft.LogStore.
func (b boltLog) GetLog(index uint64, l *raft.Log) error {
	if err := b.BoltStore.GetLog(index, l); err != nil {
		return err
	}
	if l.Index != index || string(l.Extensions) != string(sum(l)) {
		return fmt.Errorf("log entry %d is damaged: its checksum is wrong", index)
	}
	l.Extensions = nil
	return nil
}

// verify reads the whole log, so that damage shows now and not when an entry
// is needed. It gives what is there.
func (b boltLog) verify() (entries, bytes uint64, err error) {
	// A file that is shorter than its pages say faults when it is read.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the log file is damaged: %v", r)
		}
	}()
	first, err := b.FirstIndex()
	if err != nil {
		return 0, 0, err
	}
	last, err := b.LastIndex()
	if err != nil || last == 0 {
		return 0, 0, err
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := b.GetLog(i, &l); err != nil {
			return 0, 0, fmt.Errorf("log entry %d of %d to %d: %w", i, first, last, err)
		}
		bytes += uint64(len(l.Data) + logCost)
		entries++
	}
	return entries, bytes, nil
}

func openBolt(path string) (b *raftboltdb.BoltStore, err error) {
	defer func() {
		if r := recover(); r != nil { // bbolt panics on some damaged pages
			err = fmt.Errorf("raft data: %s is damaged: %v; %w", path, r, ErrDamaged)
		}
	}()
	if err := checkLength(path); err != nil {
		return nil, err
	}
	b, err = raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout:        2 * time.Second,
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return nil, openError(path, err)
	}
	return b, nil
}

func openError(path string, err error) error {
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("raft data: %s is in use by another process", path)
	}
	return fmt.Errorf("raft data: %s: %w; %w", path, err, ErrDamaged)
}

// checkLength looks whether an existing file has all the pages that it says;
// reading a page that is not there would kill the process.
func checkLength(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: 2 * time.Second})
	if err != nil {
		return openError(path, err)
	}
	var size int64
	err = db.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return openError(path, err)
	}
	if info.Size() < size {
		return fmt.Errorf("raft data: %s has %d bytes of %d: it is cut off; %w", path, info.Size(), size, ErrDamaged)
	}
	return nil
}
