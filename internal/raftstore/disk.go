package raftstore

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"syscall"

	"github.com/wherry-project/wherry/internal/raftlog"
)

// disk is the replica's files.
type disk struct {
	lock      io.Closer
	logs      *logStore
	stable    stable
	snapshots *snapshots
	closers   []io.Closer
}

// ErrDamaged says that a replica's data is damaged, or a part of it is gone. It
// may lack entries that were acknowledged and votes that were given, so it must
// not go on as the member that it was: as another one, from an empty directory,
// it gets everything from the others.
var ErrDamaged = errors.New("this replica cannot go on with its data; as a new member with an empty directory it gets everything from the others")

// logAsFound keeps the kind of log that a directory has.
const logAsFound = ""

// openDisk opens the data directory, or makes it. Whatever is damaged or does
// not belong together is an error; nothing is mended in silence.
func openDisk(dir, member string, log raftLogger) (*disk, error) {
	return openDiskOn(raftlog.Disk{}, dir, member, "", logAsFound, log)
}

// openDiskOn is openDisk for the data of one cluster on one file system, with a
// kind of log. A bolt log is kept in the operating system's files in any case.
func openDiskOn(fs raftlog.FS, dir, member, cluster, kind string, log raftLogger) (_ *disk, err error) {
	d := &disk{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("raft data: %w", err)
	}
	if err := fs.SyncDir(filepath.Dir(dir)); err != nil { // its own name
		return nil, fmt.Errorf("raft data: %w", err)
	}
	if d.lock, err = fs.Lock(dir); err != nil {
		return nil, fmt.Errorf("raft data: %w", err)
	}
	format, err := readFormat(fs, dir, member, cluster)
	if err != nil {
		return nil, err
	}
	if err := refuseSnapshots(fs, dir, cluster); err != nil {
		return nil, fmt.Errorf("raft data: %s: %w", dir, err)
	}
	if format.Format == formatBolt && kind == LogWherry {
		if format, err = convertLog(fs, dir, format, log.log); err != nil {
			return nil, err
		}
	}
	if format.Format == 0 && kind == LogBolt {
		format.Format = formatBolt
		if err := writeFormat(fs, dir, format); err != nil {
			return nil, err
		}
	}
	if format.Format == formatBolt {
		err = d.openBolt(dir)
	} else {
		err = d.openLog(fs, dir, format.Format != 0, log.log)
	}
	if err != nil {
		return nil, err
	}
	if err := d.openSnapshots(fs, dir, cluster, log); err != nil {
		if errors.Is(err, errSnapshotDamaged) || errors.Is(err, syscall.EIO) {
			err = fmt.Errorf("%w; %w", err, ErrDamaged)
		}
		return nil, fmt.Errorf("raft data: %s: %w", dir, err)
	}
	if format.Format == 0 {
		if last, err := d.logs.LastIndex(); err != nil || last > 0 {
			return nil, errors.Join(fmt.Errorf("raft data: %s has a log but no %s; %w", dir, formatFile, ErrDamaged), err)
		}
		format.Format = formatWherry // from here on there is a member here
		return d, writeFormat(fs, dir, format)
	}
	return d, removeBolt(fs, dir, format)
}

func (d *disk) openBolt(dir string) error {
	path := filepath.Join(dir, boltFile)
	b, err := openBolt(path)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, b)
	entries, bytes, err := boltLog{b}.verify()
	if err != nil {
		return fmt.Errorf("raft data: %s: %w; %w", path, err, ErrDamaged)
	}
	d.logs = newLogStore(boltLog{b}, entries, bytes)
	d.stable = &boltStable{StableStore: b, watch: &d.logs.watch}
	return nil
}

// openLog opens the log in segments. One that was there must be there still.
func (d *disk) openLog(fs raftlog.FS, dir string, must bool, log *slog.Logger) error {
	path := filepath.Join(dir, logDir)
	l, found, err := raftlog.Open(fs, path, raftlog.Options{Must: must})
	if err != nil {
		return openFailed(err)
	}
	d.closers = append(d.closers, l)
	if found.Cut != "" {
		log.Warn("the log had not been written to its end when the power or the process went; nothing that was acknowledged is lost", "dir", path, "where", found.Cut)
	}
	values, err := raftlog.OpenStable(fs, filepath.Join(dir, stableFile), must)
	if err != nil {
		return openFailed(err)
	}
	d.closers = append(d.closers, values)
	d.logs = newLogStore(wherryLog{l}, found.Entries, found.Bytes)
	d.stable = &stableStore{s: values, logs: d.logs}
	return nil
}

func openFailed(err error) error {
	switch {
	case errors.Is(err, raftlog.ErrDamaged), errors.Is(err, syscall.EIO):
		return fmt.Errorf("raft data: %w; %w", err, ErrDamaged)
	case errors.Is(err, raftlog.ErrNewer):
		return fmt.Errorf("raft data: %w: start the newer version that wrote it", err)
	}
	return fmt.Errorf("raft data: %w", err)
}

func (d *disk) openSnapshots(fs raftlog.FS, dir, cluster string, log raftLogger) error {
	first, err := d.logs.FirstIndex()
	if err != nil {
		return err
	}
	last, err := d.logs.LastIndex()
	if err != nil {
		return err
	}
	d.snapshots, err = openSnapshots(fs, filepath.Join(dir, "snap"), cluster, log.log)
	if err == nil {
		err = d.snapshots.takeOver(dir, log)
	}
	if err == nil {
		err = d.snapshots.check(first, last)
	}
	if err != nil {
		return err
	}
	metas, err := d.snapshots.List()
	if err != nil || len(metas) == 0 || last == 0 || last >= metas[0].Index {
		return err
	}
	// A snapshot of the leader was installed, and the power went before the log
	// that it replaces was removed.
	return d.logs.DeleteRange(first, last)
}

// close lets go of the files.
func (d *disk) close() error {
	var err error
	if d.logs != nil {
		err = d.logs.close()
	}
	for _, c := range d.closers {
		err = errors.Join(err, c.Close())
	}
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}
