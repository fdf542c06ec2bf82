// Package shim is what noded and a pod's shim (cmd/podshim) have in common: the
// messages on the shim's socket, the files in which the shim leaves how
// containers ended, the log format and its rotation, and the cgroups of a pod.
//
// Only the standard library is used here, and of it neither net nor log, since
// each pod pays for what this package links.
package shim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Format is the number with which every message and file of this package
// starts. noded speaks to shims of every format up to its own; a shim that
// meets a newer one says so.
const Format = 1

// Op says what a Request asks for.
type Op string

// What a shim does. After Exec, Attach and Watch the connection belongs to that
// request and carries further frames; after all others the next may follow.
const (
	OpHello  Op = "hello"  // say who you are
	OpCreate Op = "create" // create and start a container
	OpSignal Op = "signal" // signal a container; SIGKILL goes to all in it
	OpRemove Op = "remove" // kill a container if it runs, forget it
	OpRotate Op = "rotate" // close its log, go on in a new file
	OpExec   Op = "exec"   // run a further program in it
	OpAttach Op = "attach" // join the streams of its program
	OpWatch  Op = "watch"  // tell all containers, then each that starts or ends
	OpStop   Op = "stop"   // kill and forget all containers, then exit
)

// Request is what noded asks of a shim.
type Request struct {
	Format    int     `json:"format"`
	Op        Op      `json:"op"`
	Container string  `json:"container,omitempty"`
	Signal    int     `json:"signal,omitempty"`
	Create    *Create `json:"create,omitempty"`
	Exec      *Exec   `json:"exec,omitempty"`
}

// Create is the part of a container that concerns the shim; podrun gets the
// rest as it is.
type Create struct {
	Launch    Launch `json:"launch"`
	TTY       bool   `json:"tty,omitempty"`
	Stdin     bool   `json:"stdin,omitempty"`
	StdinOnce bool   `json:"stdinOnce,omitempty"`
	// LogPath is absolute, or empty for no log.
	LogPath     string `json:"logPath,omitempty"`
	LogMaxSize  int64  `json:"logMaxSize,omitempty"`
	LogMaxFiles int    `json:"logMaxFiles,omitempty"`
	// OwnPIDs says that the container has a process namespace of its own, so
	// that killing its process 1 kills all of it.
	OwnPIDs bool `json:"ownPIDs,omitempty"`
}

// Exec asks for a further program in a running container.
type Exec struct {
	// Config is a runtime.ExecConfig, for podrun.
	Config json.RawMessage `json:"config"`
	TTY    bool            `json:"tty,omitempty"`
	Stdin  bool            `json:"stdin,omitempty"`
	Size   *Size           `json:"size,omitempty"`
}

// Size is that of a terminal.
type Size struct {
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
}

// Launch is what podrun gets, on file descriptor 3.
type Launch struct {
	Format int    `json:"format"`
	Op     Op     `json:"op"` // OpCreate or OpExec
	ID     string `json:"id"`
	// Dir is the container's directory below the state directory; RunDir is
	// where libcontainer keeps its state.
	Dir    string `json:"dir"`
	RunDir string `json:"runDir"`
	// Cgroup is the container's cgroup below each hierarchy's mount.
	Cgroup string `json:"cgroup"`
	// NetNS and PIDNS are namespaces to join; the others are the shim's own.
	NetNS   string `json:"netns,omitempty"`
	PIDNS   string `json:"pidns,omitempty"`
	HostPID bool   `json:"hostPID,omitempty"`
	// Shm is the sandbox's /dev/shm on the host.
	Shm string `json:"shm,omitempty"`
	// Cache is a directory for what is good for all containers.
	Cache string `json:"cache,omitempty"`
	// Config is a runtime.ContainerConfig.
	Config json.RawMessage `json:"config,omitempty"`
	// The rest is for OpExec.
	Exec   json.RawMessage `json:"exec,omitempty"` // a runtime.ExecConfig
	Size   *Size           `json:"size,omitempty"`
	Result *Launched       `json:"result,omitempty"` // the container's
}

// Launched is podrun's answer, on file descriptor 4.
type Launched struct {
	Format   int      `json:"format"`
	PID      int      `json:"pid,omitempty"`
	UID      int      `json:"uid"`
	GID      int      `json:"gid"`
	Groups   []int    `json:"groups,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Error    *Error   `json:"error,omitempty"`
}

// ErrorKind tells noded what to make of an Error.
type ErrorKind string

// The kinds of Error.
const (
	KindStart      ErrorKind = "start"     // the program could not be started
	KindNoCommand  ErrorKind = "nocommand" // because of the program itself
	KindInvalid    ErrorKind = "invalid"   // the request cannot be carried out
	KindNotFound   ErrorKind = "notfound"
	KindExists     ErrorKind = "exists"
	KindNotRunning ErrorKind = "notrunning"
	KindInternal   ErrorKind = "internal"
)

// Error is a failure as it travels.
type Error struct {
	Kind    ErrorKind `json:"kind"`
	Message string    `json:"message"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(kind ErrorKind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// AsError returns err as an Error, of KindInternal if it is none.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: KindInternal, Message: err.Error()}
}

// Response answers a Request. A Watch is answered by one Response after
// another, the first with all containers.
type Response struct {
	Format     int        `json:"format"`
	Error      *Error     `json:"error,omitempty"`
	PID        int        `json:"pid,omitempty"`   // of the shim, in Hello
	PIDNS      string     `json:"pidns,omitempty"` // the shared one, in Hello
	Container  *Record    `json:"container,omitempty"`
	Containers []Progress `json:"containers,omitempty"`
}

// Progress is where a container stands; Exit is nil while it runs.
type Progress struct {
	ID   string `json:"id"`
	Exit *Exit  `json:"exit,omitempty"`
}

// Record is what a shim leaves on disk of a container that it started.
type Record struct {
	Format    int       `json:"format"`
	ID        string    `json:"id"`
	StartedAt time.Time `json:"startedAt"`
	Create    Create    `json:"create"`
	Launched  Launched  `json:"launched"`
}

// Exit is how a container, or a program run by Exec, ended.
type Exit struct {
	Format     int       `json:"format"`
	Code       int       `json:"code"` // 128 + Signal after a signal
	Signal     int       `json:"signal,omitempty"`
	OOMKilled  bool      `json:"oomKilled,omitempty"`
	FinishedAt time.Time `json:"finishedAt"`
}

// FrameKind says what a frame carries.
type FrameKind byte

// The kinds of frame. Everything but FrameMessage belongs to Exec and Attach.
const (
	FrameMessage FrameKind = 'm' // a Request or Response
	FrameStdin   FrameKind = 'i' // empty: the end of it
	FrameStdout  FrameKind = 'o'
	FrameStderr  FrameKind = 'e'
	FrameResize  FrameKind = 'r' // a Size
	FrameExit    FrameKind = 'x' // an Exit, the last frame of Exec and Attach
	FrameError   FrameKind = '!' // an Error, likewise
)

// MaxFrame bounds a frame's payload. Streams use at most MaxChunk.
const (
	MaxFrame = 8 << 20
	MaxChunk = 32 << 10
)

// Conn speaks in frames over a connection: a byte of kind, four of length, the
// payload. Writes may come from many goroutines, reads from one.
type Conn struct {
	rw  io.ReadWriter
	mu  sync.Mutex
	out []byte
	in  []byte
}

// NewConn returns a Conn over rw.
func NewConn(rw io.ReadWriter) *Conn { return &Conn{rw: rw} }

// Write sends one frame.
func (c *Conn) Write(kind FrameKind, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("a message of %d bytes is more than the %d that a shim takes", len(payload), MaxFrame)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out[:0], byte(kind), 0, 0, 0, 0)
	binary.BigEndian.PutUint32(c.out[1:], uint32(len(payload)))
	c.out = append(c.out, payload...)
	_, err := c.rw.Write(c.out)
	if cap(c.out) > 2*MaxChunk {
		c.out = nil
	}
	return err
}

// WriteJSON sends v in a frame.
func (c *Conn) WriteJSON(kind FrameKind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.Write(kind, b)
}

// Read returns the next frame. The payload is good until the next Read.
func (c *Conn) Read() (FrameKind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(c.rw, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(head[1:]))
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes, more than %d: the other side speaks something else", n, MaxFrame)
	}
	if cap(c.in) < n || cap(c.in) > 2*MaxChunk && n <= MaxChunk {
		c.in = make([]byte, n)
	}
	c.in = c.in[:n]
	if _, err := io.ReadFull(c.rw, c.in); err != nil {
		return 0, nil, noEOF(err)
	}
	return FrameKind(head[0]), c.in, nil
}

// ReadRequest returns the next request; io.EOF if there is none.
func (c *Conn) ReadRequest() (*Request, error) {
	var req Request
	if err := c.readJSON(&req); err != nil {
		return nil, err
	}
	return &req, checkFormat("shim request", req.Format)
}

// ReadResponse returns the next response; a failure in it is returned as error.
func (c *Conn) ReadResponse() (*Response, error) {
	var resp Response
	if err := c.readJSON(&resp); err != nil {
		return nil, err
	}
	if err := checkFormat("shim response", resp.Format); err != nil {
		return nil, err
	}
	if resp.Error != nil {
		return nil, resp.Error
	}
	return &resp, nil
}

// Call sends a request and returns its response.
func (c *Conn) Call(req Request) (*Response, error) {
	req.Format = Format
	if err := c.WriteJSON(FrameMessage, req); err != nil {
		return nil, err
	}
	resp, err := c.ReadResponse()
	return resp, noEOF(err)
}

func (c *Conn) readJSON(v any) error {
	kind, b, err := c.Read()
	if err != nil {
		return err
	}
	if kind != FrameMessage {
		return fmt.Errorf("frame %q where a message belongs", kind)
	}
	return json.Unmarshal(b, v)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func checkFormat(what string, format int) error {
	if format < 1 || format > Format {
		return fmt.Errorf("%s has format %d, this program knows up to %d: programs of different releases; "+
			"finish the upgrade of this node, or go back to the release that wrote it", what, format, Format)
	}
	return nil
}
