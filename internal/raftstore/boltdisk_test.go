package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/testkit"
)

// Requests to a file system: nothing is written any more, it goes on.
const (
	fsFreeze = 0xc0045877
	fsThaw   = 0xc0045878
)

const diskSize = 64 << 20

// loopDisk is a disk with a real file system, whose power can be cut: an image
// on a loop device. The image is a file on a second file system, in memory.
// When that is frozen, no block reaches the image any more, wherever a sync has
// got to; what it holds then is what the disk had when the power went. What is
// only in the memory of the upper file system is not in it.
//
// All of it is in a mount namespace of the test's thread, and a loop device
// goes with its mount: when the process ends, in whatever way, all is gone.
type loopDisk struct {
	t     testing.TB
	under *os.File // the root of the file system below
	image string
	saved string
	// mount is where the disk is seen, by this thread and its child processes.
	mount string
}

// newLoopDisk makes an empty disk. The test's goroutine stays on its thread.
func newLoopDisk(t testing.TB) *loopDisk {
	t.Helper()
	testkit.NeedsRoot(t)
	_, err := exec.LookPath("mkfs.ext4")
	testkit.Needs(t, err == nil, "no mkfs.ext4: this test makes a file system of its own")
	dir := t.TempDir()
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	err = unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	testkit.Needs(t, err == nil, fmt.Sprintf("no mount namespace of its own: %v", err))
	d := &loopDisk{t: t, mount: filepath.Join(dir, "disk"), saved: filepath.Join(dir, "memory", "saved")}
	memory, below := filepath.Join(dir, "memory"), filepath.Join(dir, "below")
	for _, name := range []string{memory, below, d.mount} {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("tmpfs", memory, "tmpfs", 0, "size=320m"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { d.unmount(memory) })
	file := filepath.Join(memory, "below")
	makeImage(t, file, 2*diskSize, "^has_journal")
	err = mountImage(file, below, unix.MS_NOATIME)
	testkit.Needs(t, !errors.Is(err, errNoLoop), fmt.Sprint(err))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.unmount(below) })
	if d.under, err = os.Open(below); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.under.Close() })
	d.image = filepath.Join(below, "image")
	makeImage(t, d.image, diskSize, "has_journal")
	d.on()
	t.Cleanup(func() { d.unmount(d.mount) })
	return d
}

// on gives the disk power: the file system is mounted, which replays its journal.
func (d *loopDisk) on() {
	d.t.Helper()
	if err := mountImage(d.image, d.mount, unix.MS_NOATIME); err != nil {
		d.t.Fatal(err)
	}
}

// save keeps what is on the disk at this moment.
func (d *loopDisk) save() {
	d.t.Helper()
	if err := freeze(d.under, fsFreeze); err != nil {
		d.t.Fatalf("freeze: %v", err)
	}
	err := copyImage(d.saved, d.image)
	if err := errors.Join(err, freeze(d.under, fsThaw)); err != nil {
		d.t.Fatalf("copy of the disk: %v", err)
	}
	f, err := os.Open(d.saved)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	// The superblock begins at 1024, its incompatible features at 0x60.
	var features [4]byte
	if _, err := f.ReadAt(features[:], 1024+0x60); err != nil {
		d.t.Fatal(err)
	}
	const needsRecovery = 4
	if binary.LittleEndian.Uint32(features[:])&needsRecovery == 0 {
		d.t.Error("the file system was at rest: no power was cut")
	}
}

// restore turns the disk off and on, with what was saved on it. Nobody may use
// it any more.
func (d *loopDisk) restore() {
	d.t.Helper()
	d.unmount(d.mount)
	if err := copyImage(d.image, d.saved); err != nil {
		d.t.Fatalf("copy of the disk: %v", err)
	}
	d.on()
}

// unmount waits a little for the kernel to let go of files of a process that ended.
func (d *loopDisk) unmount(path string) {
	d.t.Helper()
	err := unix.Unmount(path, 0)
	for deadline := time.Now().Add(10 * time.Second); errors.Is(err, unix.EBUSY) && time.Now().Before(deadline); {
		<-time.After(time.Millisecond)
		err = unix.Unmount(path, 0)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: it is not mounted
		d.t.Errorf("unmount %s: %v", path, errors.Join(err, unix.Unmount(path, unix.MNT_DETACH)))
	}
}

// freeze does one of the two requests.
func freeze(root *os.File, request uint) error {
	return unix.IoctlSetInt(int(root.Fd()), request, 0)
}

// makeImage makes a file with an empty file system.
func makeImage(t testing.TB, path string, size int64, features string) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", features, "-E", "lazy_itable_init=0,lazy_journal_init=0", path).CombinedOutput()
	if err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
}

var errNoLoop = errors.New("loop devices cannot be had")

// mountImage mounts a file system in a file by a loop device that goes when it
// is unmounted.
func mountImage(file, at string, flags uintptr) error {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoLoop, err)
	}
	defer control.Close()
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer backing.Close()
	for range 100 { // another process may take the free one first
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("%w: %w", errNoLoop, err)
		}
		name := fmt.Sprint("/dev/loop", n)
		device, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return fmt.Errorf("%w: %w", errNoLoop, err)
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
			Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR},
		})
		if err == nil {
			err = unix.Mount(name, at, "ext4", flags, "")
			_ = device.Close()
			if err != nil {
				return fmt.Errorf("mount %s: %w", file, err)
			}
			return nil
		}
		_ = device.Close()
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("%w: %s: %w", errNoLoop, name, err)
		}
	}
	return fmt.Errorf("%w: others take them first", errNoLoop)
}

// copyImage copies the parts of a file that are not holes.
func copyImage(to, from string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if err := dst.Truncate(diskSize); err != nil {
		return err
	}
	for at := int64(0); ; {
		begin, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		} else if err != nil {
			return err
		}
		if at, err = unix.Seek(int(src.Fd()), begin, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(dst, begin), io.NewSectionReader(src, begin, at-begin)); err != nil {
			return err
		}
	}
}
