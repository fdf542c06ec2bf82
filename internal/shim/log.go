package shim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"
)

// Stream is the stream a log line came from.
type Stream string

// The streams of a program.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// MaxLine is the longest text of one log line; longer lines are cut into
// partial ones.
const MaxLine = 16 << 10

// Line is one line of a log in the CRI format: time, stream, F or P, text.
type Line struct {
	Time   time.Time
	Stream Stream
	// Partial says that the program's line goes on in the next one of the
	// same stream.
	Partial bool
	// Text is without the line's end.
	Text []byte
}

// AppendLine appends l as it stands in a log.
func AppendLine(dst []byte, l Line) []byte {
	dst = l.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, ' ')
	dst = append(dst, l.Stream...)
	if l.Partial {
		dst = append(dst, " P "...)
	} else {
		dst = append(dst, " F "...)
	}
	dst = append(dst, l.Text...)
	return append(dst, '\n')
}

// ParseLine reads a line of a log, with or without its line end. Text lies in b.
func ParseLine(b []byte) (Line, error) {
	b = bytes.TrimSuffix(b, []byte{'\n'})
	stamp, rest, ok1 := bytes.Cut(b, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tag, text, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok1 || !ok2 {
		return Line{}, fmt.Errorf("log line %.80q is not `time stream tag text`", b)
	}
	if !ok3 {
		tag, text = rest, nil // a line that ends after its tag
	}
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return Line{}, fmt.Errorf("log line %.80q: %w", b, err)
	}
	l := Line{Time: t, Stream: Stream(stream), Text: text}
	if l.Stream != Stdout && l.Stream != Stderr {
		return Line{}, fmt.Errorf("log line %.80q: unknown stream %q", b, stream)
	}
	// Tags may be several, joined by colons; the first is F or P.
	first, _, _ := strings.Cut(string(tag), ":")
	switch first {
	case "F":
	case "P":
		l.Partial = true
	default:
		return Line{}, fmt.Errorf("log line %.80q: unknown tag %q", b, tag)
	}
	return l, nil
}

// Log is a container's log file. Several streams may write to it at once.
type Log struct {
	mu       sync.Mutex
	path     string
	maxSize  int64
	maxFiles int
	f        *os.File
	size     int64
	now      func() time.Time
	// lost counts the bytes that could not be written since the last success.
	lost int64
}

// The bounds of a log that sets none.
const (
	DefaultLogSize  = 10 << 20
	DefaultLogFiles = 5
)

// OpenLog opens the log at path for appending, and makes it and its directory
// if need be. A file holds at most maxSize bytes, and at most maxFiles files
// are kept, the newest included; 0 stands for the defaults.
func OpenLog(path string, maxSize int64, maxFiles int) (*Log, error) {
	if maxSize <= 0 {
		maxSize = DefaultLogSize
	}
	if maxFiles <= 0 {
		maxFiles = DefaultLogFiles
	}
	l := &Log{path: path, maxSize: maxSize, maxFiles: maxFiles, now: time.Now}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return l, l.openLocked()
}

func (l *Log) openLocked() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.size = f, info.Size()
	return nil
}

// Write appends whole lines, rotating first if they do not fit any more. After
// an error, say a full disk, the lines are lost, which the log says once lines
// can be written again; the program is not held up.
func (l *Log) Write(lines []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil && l.size > 0 && l.size+int64(len(lines)) > l.maxSize {
		if err := l.rotateLocked(); err != nil && l.f == nil {
			l.lost += int64(len(lines))
			return 0, err
		}
	}
	if l.f == nil {
		if err := l.openLocked(); err != nil {
			l.lost += int64(len(lines))
			return 0, err
		}
	}
	if l.lost > 0 {
		note := AppendLine(nil, Line{Time: l.now(), Stream: Stderr,
			Text: fmt.Appendf(nil, "[wherry: %d bytes of log were lost: the log could not be written]", l.lost)})
		lines = append(note, lines...)
	}
	n, err := l.f.Write(lines)
	l.size += int64(n)
	if err != nil {
		l.lost += int64(len(lines) - n)
		// Half a line must not run into the next one.
		if n > 0 && lines[n-1] != '\n' && l.f.Truncate(l.size-int64(tail(lines[:n]))) == nil {
			l.size -= int64(tail(lines[:n]))
		}
		return n, err
	}
	l.lost = 0
	return n, nil
}

// tail is the length of what follows the last line end.
func tail(b []byte) int { return len(b) - 1 - bytes.LastIndexByte(b, '\n') }

// Rotate closes the file under a new name and goes on in a fresh one.
func (l *Log) Rotate() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rotateLocked()
}

// rotateLocked leaves the log open, on the old file if the rename failed.
func (l *Log) rotateLocked() error {
	name := l.path + "." + l.now().UTC().Format("20060102-150405.000000000")
	if err := os.Rename(l.path, name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	old := l.f
	l.f = nil
	if old != nil {
		old.Close()
	}
	err := l.openLocked()
	l.pruneLocked()
	return err
}

func (l *Log) pruneLocked() {
	files, err := RotatedLogs(l.path)
	if err != nil {
		return
	}
	for len(files) > l.maxFiles-1 {
		os.Remove(files[0])
		files = files[1:]
	}
}

// Close closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}

// RotatedLogs returns the rotated files of the log at path, the oldest first.
// The newest lines are in path itself.
func RotatedLogs(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".") {
			files = append(files, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	sort.Strings(files)
	return files, nil
}

// Lines cuts a program's output into log lines. The end of the output may come
// in the middle of one: Flush.
type Lines struct {
	stream Stream
	held   []byte // a line's beginning, at most MaxLine
	buf    []byte
}

// NewLines returns the cutter of one stream.
func NewLines(s Stream) *Lines { return &Lines{stream: s} }

// Append takes output and returns the log lines that are complete by now. They
// are good until the next call.
func (l *Lines) Append(out []byte, at time.Time) []byte {
	l.buf = l.buf[:0]
	if cap(l.buf) > 4*MaxLine {
		l.buf = nil // a burst of short lines; most programs have none
	}
	for len(out) > 0 {
		i := bytes.IndexByte(out, '\n')
		text, whole := out, false
		if i >= 0 {
			text, whole = out[:i], true
		}
		if room := MaxLine - len(l.held); len(text) > room {
			l.line(text[:room], at, true)
			out = out[room:]
			continue
		}
		if !whole {
			l.held = append(l.held, text...)
			break
		}
		l.line(text, at, false)
		out = out[i+1:]
	}
	return l.buf
}

// Flush returns what is left as a last line; a line that does not end is
// partial.
func (l *Lines) Flush(at time.Time) []byte {
	l.buf = l.buf[:0]
	if len(l.held) > 0 {
		l.line(nil, at, true)
	}
	return l.buf
}

func (l *Lines) line(text []byte, at time.Time, partial bool) {
	if len(l.held) > 0 {
		text = append(l.held, text...)
	}
	l.buf = AppendLine(l.buf, Line{Time: at, Stream: l.stream, Partial: partial, Text: text})
	l.held = l.held[:0]
}
