// Package streams reads containers' logs: from the beginning, from the end, and
// as they grow, across rotations.
package streams

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/wherry-project/wherry/internal/shim"
)

// Options choose what of a log is wanted.
type Options struct {
	// Follow goes on until the container has ended, or ctx.
	Follow bool
	// Since leaves out lines before it.
	Since time.Time
	// Timestamps puts the time, in RFC 3339 with nanoseconds, and a space
	// before each line.
	Timestamps bool
	// Tail is how many lines from the end to begin with; negative is all.
	Tail int64
	// Limit is how many bytes to write at most; negative is no limit.
	Limit int64
}

const (
	readSize  = 64 << 10
	writeSize = 32 << 10
)

// errLimit ends a copy that has written what it may.
var errLimit = errors.New("limit reached")

// Logs copies the log at path, with its rotated files, to out. Ended is closed
// when the container has ended and all its output is in the log. A log that is
// not there is an error of kind os.ErrNotExist.
func Logs(ctx context.Context, path string, ended <-chan struct{}, o Options, out io.Writer) (err error) {
	c := &copier{o: o, out: bufio.NewWriterSize(out, writeSize), left: o.Limit}
	var w *watch
	if o.Follow {
		if w, err = newWatch(path); err != nil {
			return err
		}
		defer w.close()
	}
	files, err := open(path)
	if err != nil {
		return err
	}
	defer func() { closeAll(files) }()
	if o.Tail >= 0 {
		total, err := count(ctx, files, o.Since)
		if err != nil {
			return err
		}
		c.skip = max(total-o.Tail, 0)
	}
	for _, f := range files[:len(files)-1] {
		if err := c.file(ctx, f); err != nil {
			return c.end(err)
		}
	}
	closeAll(files[:len(files)-1])
	newest := files[len(files)-1]
	files = nil
	return c.end(c.grow(ctx, newest, path, w, ended))
}

// open opens the log's files, the oldest first, as they are at one moment.
func open(path string) ([]*os.File, error) {
	for {
		names, err := list(path)
		if err != nil {
			return nil, err
		}
		files, err := openAll(names)
		now, lerr := list(path)
		switch {
		case lerr != nil:
			closeAll(files)
			return nil, lerr
		case !slices.Equal(now, names): // a rotation came between
			closeAll(files)
		case err == nil:
			return files, nil
		case errors.Is(err, os.ErrNotExist) && len(files) > 0 && len(files) == len(names)-1:
			return files, nil // rotated, and the next one is yet to come
		default:
			closeAll(files)
			return nil, err
		}
	}
}

// openAll opens files in order, until one cannot be opened.
func openAll(names []string) ([]*os.File, error) {
	var files []*os.File
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	return files, nil
}

// list names the log's files, the oldest first.
func list(path string) ([]string, error) {
	old, err := shim.RotatedLogs(path)
	if err != nil {
		return nil, fmt.Errorf("find rotated logs: %w", err)
	}
	return append(old, path), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // only read
	}
}

// count gives the whole lines of the files that are not before since, and goes
// back to their beginnings.
func count(ctx context.Context, files []*os.File, since time.Time) (int64, error) {
	n := int64(0)
	c := &copier{o: Options{Since: since}, each: func(l shim.Line) {
		if !l.Partial {
			n++
		}
	}}
	for _, f := range files {
		if err := c.file(ctx, f); err != nil {
			return 0, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// copier writes lines of a log as they were asked for.
type copier struct {
	o    Options
	out  *bufio.Writer
	left int64
	skip int64
	each func(shim.Line) // if set, instead of writing
	mid  bool            // the last line was partial: no time stamp before the rest
}

// end sends what is still held back.
func (c *copier) end(err error) error {
	if errors.Is(err, errLimit) {
		err = nil
	}
	return errors.Join(err, c.out.Flush())
}

// file copies a file that no longer grows.
func (c *copier) file(ctx context.Context, f *os.File) error {
	_, err := c.lines(ctx, bufio.NewReaderSize(f, readSize), nil)
	return err
}

// lines copies whole lines until the reader's end, and gives what is left of a
// line that is not whole yet.
func (c *copier) lines(ctx context.Context, r *bufio.Reader, rest []byte) ([]byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b, err := r.ReadSlice('\n')
		if len(rest) > 0 || err != nil {
			if len(rest)+len(b) <= maxLine { // the shim writes none that is longer
				rest = append(rest, b...)
			}
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return rest, nil
		case err != nil:
			return nil, err
		}
		if len(rest) > 0 {
			b = rest
		}
		if err := c.line(b); err != nil {
			return nil, err
		}
		rest = rest[:0]
	}
}

// maxLine is what a line of a log has at most, with its time and tag.
const maxLine = shim.MaxLine + 256

func (c *copier) line(b []byte) error {
	l, err := shim.ParseLine(b)
	if err != nil {
		return nil //nolint:nilerr // a line torn by a crash says nothing
	}
	if l.Time.Before(c.o.Since) {
		return nil
	}
	if c.each != nil {
		c.each(l)
		return nil
	}
	if c.skip > 0 {
		if !l.Partial {
			c.skip--
		}
		return nil
	}
	if c.o.Timestamps && !c.mid {
		if err := c.write(l.Time.UTC().AppendFormat(nil, time.RFC3339Nano+" ")); err != nil {
			return err
		}
	}
	c.mid = l.Partial
	if err := c.write(l.Text); err != nil || l.Partial {
		return err
	}
	return c.write([]byte{'\n'})
}

func (c *copier) write(b []byte) error {
	if c.left >= 0 && int64(len(b)) >= c.left {
		if _, err := c.out.Write(b[:c.left]); err != nil {
			return err
		}
		c.left = 0
		return errLimit
	}
	if c.left >= 0 {
		c.left -= int64(len(b))
	}
	_, err := c.out.Write(b)
	return err
}

// grow copies the newest file, and with a watch what is added to it and to its
// successors. It closes f.
func (c *copier) grow(ctx context.Context, f *os.File, path string, w *watch, ended <-chan struct{}) error {
	defer func() { _ = f.Close() }() // only read
	var rest []byte
	var err error
	over := false
	r := bufio.NewReaderSize(f, readSize)
	for {
		if rest, err = c.lines(ctx, r, rest); err != nil {
			return err
		}
		if w == nil {
			return nil
		}
		next, err := successor(f, path)
		if err != nil {
			return err
		}
		if next != nil {
			// What was written between the last read and the rotation.
			if rest, err = c.lines(ctx, r, rest); err != nil {
				return errors.Join(err, next.Close())
			}
			_ = f.Close() // only read
			f, rest = next, rest[:0]
			r.Reset(f)
			continue
		}
		if over {
			return nil
		}
		if err := c.out.Flush(); err != nil {
			return err
		}
		if over, err = w.wait(ctx, ended); err != nil {
			return err
		}
	}
}

// successor opens the file that came after f; nil if f is the newest, or if the
// newest is just being made, which the watch tells. If f is gone already it is
// the oldest that is left.
func successor(f *os.File, path string) (*os.File, error) {
	was, err := f.Stat()
	if err != nil {
		return nil, err
	}
	for {
		if is, err := os.Stat(path); err == nil && os.SameFile(was, is) {
			return nil, nil
		}
		names, err := list(path)
		if err != nil {
			return nil, nil //nolint:nilerr // the folder is gone: nothing follows
		}
		after := 0
		for i, name := range names {
			if is, err := os.Stat(name); err == nil && os.SameFile(was, is) {
				after = i + 1
			}
		}
		if after == len(names) {
			continue // it was the newest a moment ago: look again
		}
		next, err := os.Open(names[after])
		if now, lerr := list(path); lerr == nil && !slices.Equal(now, names) {
			if err == nil {
				_ = next.Close() // only read
			}
			continue // a rotation came between
		}
		if err != nil {
			return nil, nil //nolint:nilerr // the newest is yet to come
		}
		return next, nil
	}
}
