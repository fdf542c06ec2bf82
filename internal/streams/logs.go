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

// errLimit ends a copy that has written what it may.
var errLimit = errors.New("limit reached")

// Logs copies the log at path, with its rotated files, to out. Ended is closed
// when the container has ended and all its output is in the log. A log that is
// not there is an error of kind os.ErrNotExist.
func Logs(ctx context.Context, path string, ended <-chan struct{}, o Options, out io.Writer) error {
	old, err := shim.RotatedLogs(path)
	if err != nil {
		return fmt.Errorf("find rotated logs: %w", err)
	}
	c := &copier{o: o, out: out, left: o.Limit}
	if o.Tail >= 0 {
		total, err := count(ctx, append(old, path), o.Since)
		if err != nil {
			return err
		}
		c.skip = max(total-o.Tail, 0)
	}
	for _, name := range old {
		if err := c.file(ctx, name); err != nil {
			return quiet(err)
		}
	}
	return quiet(c.grow(ctx, path, ended))
}

func quiet(err error) error {
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

// count gives the whole lines of the files that are not before since.
func count(ctx context.Context, files []string, since time.Time) (int64, error) {
	n := int64(0)
	c := &copier{o: Options{Since: since, Limit: -1}, left: -1, out: io.Discard, each: func(l shim.Line) {
		if !l.Partial {
			n++
		}
	}}
	for i, name := range files {
		err := c.file(ctx, name)
		if errors.Is(err, os.ErrNotExist) && i < len(files)-1 {
			continue // pruned meanwhile
		}
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// copier writes lines of a log as they were asked for.
type copier struct {
	o    Options
	out  io.Writer
	left int64
	skip int64
	each func(shim.Line) // if set, instead of writing
	mid  bool            // the last line was partial: no time stamp before the rest
}

// file copies a file that no longer grows.
func (c *copier) file(ctx context.Context, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = c.lines(ctx, bufio.NewReaderSize(f, 64<<10), nil)
	return err
}

// lines copies whole lines until the reader's end, and gives what is left of a
// line that is not whole yet.
func (c *copier) lines(ctx context.Context, r *bufio.Reader, rest []byte) ([]byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b, err := r.ReadBytes('\n')
		rest = append(rest, b...)
		if errors.Is(err, io.EOF) {
			return rest, nil
		} else if err != nil {
			return nil, err
		}
		if err := c.line(rest); err != nil {
			return nil, err
		}
		rest = rest[:0]
	}
}

func (c *copier) line(b []byte) error {
	l, err := shim.ParseLine(b)
	if err != nil {
		return nil // a line torn by a crash says nothing
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
	text := append([]byte(nil), l.Text...)
	if !l.Partial {
		text = append(text, '\n')
	}
	if c.o.Timestamps && !c.mid {
		text = append([]byte(l.Time.UTC().Format(time.RFC3339Nano)+" "), text...)
	}
	c.mid = l.Partial
	return c.write(text)
}

func (c *copier) write(b []byte) error {
	if c.left >= 0 && int64(len(b)) >= c.left {
		if _, err := c.out.Write(b[:c.left]); err != nil {
			return err
		}
		return errLimit
	}
	if c.left >= 0 {
		c.left -= int64(len(b))
	}
	_, err := c.out.Write(b)
	return err
}

// grow copies the newest file, and with Follow what is added to it and to its
// successors.
func (c *copier) grow(ctx context.Context, path string, ended <-chan struct{}) error {
	w, err := newWatch(path)
	if err != nil {
		return err
	}
	defer w.close()
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	var rest []byte
	over := false
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		if rest, err = c.lines(ctx, r, rest); err != nil {
			return err
		}
		next, rotated := successor(f, path)
		if rotated {
			// What was written between the last read and the rotation.
			if rest, err = c.lines(ctx, r, rest); err != nil {
				next.Close()
				return err
			}
			f.Close()
			f, rest = next, rest[:0]
			r.Reset(f)
			continue
		}
		if !c.o.Follow || over {
			return nil
		}
		if over, err = w.wait(ctx, ended); err != nil {
			return err
		}
	}
}

// successor opens the file that has taken the place of f, if one has.
func successor(f *os.File, path string) (*os.File, bool) {
	was, err := f.Stat()
	if err != nil {
		return nil, false
	}
	next, err := os.Open(path)
	if err != nil {
		return nil, false // between two renames; the watch tells when it is there
	}
	is, err := next.Stat()
	if err != nil || os.SameFile(was, is) {
		next.Close()
		return nil, false
	}
	return next, true
}
