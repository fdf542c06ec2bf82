package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// drillRoom is the folder below the data directory where a backup is restored on
// trial, one at a time. Its lock, which ends with the process however that ends,
// tells a drill at work from what one left behind that was killed.
type drillRoom struct {
	dir  string
	lock *os.File
}

// errDrilling says that another drill is at work.
var errDrilling = errors.New("another restore drill is running on this data directory; try again when it has ended")

// takeDrillRoom makes the folder, and clears it of what was left behind.
func takeDrillRoom(dataDir string) (*drillRoom, error) {
	r := &drillRoom{dir: filepath.Join(dataDir, "drill")}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of the drill: %w", err)
	}
	var err error
	if r.lock, err = os.Open(r.dir); err != nil {
		return nil, fmt.Errorf("folder of the drill: %w", err)
	}
	if err = r.claim(); err == nil {
		err = r.clear()
	}
	if err != nil {
		return nil, errors.Join(err, r.lock.Close())
	}
	return r, nil
}

// claim locks the folder, which may just be going.
func (r *drillRoom) claim() error {
	if err := unix.Flock(int(r.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return errDrilling
	} else if err != nil {
		return fmt.Errorf("lock the folder of the drill %s: %w", r.dir, err)
	}
	held, err := r.lock.Stat()
	if err != nil {
		return fmt.Errorf("folder of the drill: %w", err)
	}
	if there, err := os.Stat(r.dir); err != nil || !os.SameFile(held, there) {
		return errDrilling // one that has just ended took the folder away
	}
	return nil
}

func (r *drillRoom) clear() error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return fmt.Errorf("folder of the drill: %w", err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(r.dir, e.Name())); err != nil {
			return fmt.Errorf("what a drill left behind: %w", err)
		}
	}
	return nil
}

// leave removes the folder with all that is in it.
func (r *drillRoom) leave() error {
	return errors.Join(os.RemoveAll(r.dir), r.lock.Close())
}

// clearDrills removes what a drill left behind that was killed. One that is at
// work does so itself.
func clearDrills(dataDir string) error {
	if _, err := os.Stat(filepath.Join(dataDir, "drill")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	r, err := takeDrillRoom(dataDir)
	if errors.Is(err, errDrilling) {
		return nil
	} else if err != nil {
		return err
	}
	return r.leave()
}
