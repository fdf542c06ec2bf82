package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// The files of a container's directory.
const (
	recordFile = "container.json"
	exitFile   = "exit.json"
)

// WriteRecord leaves a started container's Record in its directory. It is for
// the next noded, not for the next boot, and so not synced.
func WriteRecord(dir string, r Record) error {
	r.Format = Format
	return writeFile(filepath.Join(dir, recordFile), r, false)
}

// ReadRecord returns the Record in a container's directory; fs.ErrNotExist
// if the container never started.
func ReadRecord(dir string) (Record, error) {
	var r Record
	if err := readFile(filepath.Join(dir, recordFile), &r); err != nil {
		return Record{}, err
	}
	return r, checkFormat(filepath.Join(dir, recordFile), r.Format)
}

// WriteExit leaves how a container ended, whole or not at all, and on the disk
// when it returns.
func WriteExit(dir string, e Exit) error {
	e.Format = Format
	return writeFile(filepath.Join(dir, exitFile), e, true)
}

// ReadExit returns how a container ended; fs.ErrNotExist if that is not known.
func ReadExit(dir string) (Exit, error) {
	var e Exit
	if err := readFile(filepath.Join(dir, exitFile), &e); err != nil {
		return Exit{}, err
	}
	return e, checkFormat(filepath.Join(dir, exitFile), e.Format)
}

// WriteFile writes v as JSON, whole or not at all; with sync it is on the disk
// when WriteFile returns.
func WriteFile(path string, v any, sync bool) error { return writeFile(path, v, sync) }

// ReadFile reads what WriteFile wrote.
func ReadFile(path string, v any) error { return readFile(path, v) }

func writeFile(path string, v any, sync bool) (err error) {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
		}
	}()
	if _, err = f.Write(b); err == nil && sync {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err = os.Rename(tmp, path); err != nil || !sync {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func readFile(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
