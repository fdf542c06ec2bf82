package raftstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/wherry-project/wherry/internal/raftlog"
)

// directoryFormat goes up when the files in a data directory change.
const directoryFormat = 1

// directory is what the format file of a data directory says.
type directory struct {
	Format int    `json:"format"`
	Member string `json:"member"`
	// Cluster is empty where nobody said.
	Cluster string `json:"cluster,omitempty"`
}

// disk is the replica's files.
type disk struct {
	bolt      *raftboltdb.BoltStore
	logs      *logStore
	snapshots *snapshots
}

// remedy is what to do about a damaged replica.
const remedy = "this replica cannot go on with its data: remove the member from the cluster, delete the directory and join again"

// openDisk opens the data directory, or makes it. Whatever is damaged or does
// not belong together is an error; nothing is mended in silence.
func openDisk(dir, member string, log raftLogger) (*disk, error) {
	return openDiskOn(raftlog.Disk{}, dir, member, "", log)
}

// openDiskOn is openDisk for the data of one cluster on one file system.
func openDiskOn(fs raftlog.FS, dir, member, cluster string, log raftLogger) (d *disk, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("raft data: %w", err)
	}
	if err := checkFormat(dir, member, cluster); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "log.db")
	bolt, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, bolt.Close())
		}
	}()
	logs := newLogStore(bolt)
	first, err := logs.verify()
	if err != nil {
		return nil, fmt.Errorf("raft data: %s: %w; %s", path, err, remedy)
	}
	last, err := logs.LastIndex()
	if err != nil {
		return nil, fmt.Errorf("raft data: %s: %w", path, err)
	}
	snapshots, err := openSnapshots(fs, filepath.Join(dir, "snap"), cluster, log.log)
	if err == nil {
		err = snapshots.takeOver(dir, log)
	}
	if err == nil {
		err = snapshots.check(first, last)
	}
	if err != nil {
		return nil, fmt.Errorf("raft data: %s: %w; %s", dir, err, remedy)
	}
	return &disk{bolt, logs, snapshots}, nil
}

func openBolt(path string) (b *raftboltdb.BoltStore, err error) {
	defer func() {
		if r := recover(); r != nil { // bbolt panics on some damaged pages
			err = fmt.Errorf("raft data: %s is damaged: %v; %s", path, r, remedy)
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
	return fmt.Errorf("raft data: %s: %w; %s", path, err, remedy)
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
		return fmt.Errorf("raft data: %s has %d bytes of %d: it is cut off; %s", path, info.Size(), size, remedy)
	}
	return nil
}

// checkFormat reads the format file, or writes it into a new directory.
func checkFormat(dir, member, cluster string) error {
	path := filepath.Join(dir, "format.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, "log.db")); err == nil {
			return fmt.Errorf("raft data: %s has a log but no format.json; %s", dir, remedy)
		}
		return writeFormat(path, directory{directoryFormat, member, cluster})
	}
	if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	var d directory
	if err := json.Unmarshal(b, &d); err != nil || d.Format < 1 {
		return fmt.Errorf("raft data: %s cannot be read (%v); %s", path, err, remedy)
	}
	switch {
	case d.Format > directoryFormat:
		return fmt.Errorf("raft data: %s is of format %d, this version knows up to %d: start the newer version that wrote it", dir, d.Format, directoryFormat)
	case d.Member != member:
		return fmt.Errorf("raft data: %s belongs to member %s, this is %s: use the directory of this member", dir, d.Member, member)
	case d.Cluster != "" && cluster != "" && d.Cluster != cluster:
		return fmt.Errorf("raft data: %s belongs to cluster %s, this member is of cluster %s: use the directory of this cluster", dir, d.Cluster, cluster)
	}
	return nil
}

func writeFormat(path string, d directory) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "format")
	if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
