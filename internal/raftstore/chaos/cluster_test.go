package chaos

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/testkit"
)

// cluster is members in processes of their own.
type cluster struct {
	t     *testing.T
	dir   string
	slots []*slot
	// crowds is how many clients there have been.
	crowds int
}

// slot is a place for a member, with an address that stays. Whoever lives there
// has an id of their own.
type slot struct {
	c       *cluster
	number  int
	address string

	mu     sync.Mutex
	lives  int // how many members there have been
	id     string
	proc   *process
	client *rpc.Client
	faults Faults
}

// process is a member's process.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	log   *tail
	ended chan struct{}
	meant bool // it was killed by the test (guarded by the slot)
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (l *tail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, b...)
	if n := len(l.b) - 64<<10; n > 0 {
		l.b = append(l.b[:0], l.b[n:]...)
	}
	return len(b), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(bytes.Clone(l.b))
}

const patience = 60 * time.Second

// newCluster starts members one after the other.
func newCluster(t *testing.T, size int) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir()}
	t.Cleanup(c.close)
	for n := range size {
		ip := testkit.Loopback() // the port stays free when its member is away
		c.slots = append(c.slots, &slot{c: c, number: n, address: netip.AddrPortFrom(ip, testkit.FreePort(t, ip)).String()})
	}
	for n, s := range c.slots {
		s.begin()
		if err := s.start(n == 0); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			c.replace("", s)
		}
	}
	return c
}

func (c *cluster) close() {
	for _, s := range c.slots {
		s.kill()
		if c.t.Failed() && s.proc != nil {
			c.t.Logf("the end of the log of slot %d:\n%s", s.number, s.proc.log)
		}
	}
}

// begin makes whoever is started next in a slot a new member.
func (s *slot) begin() {
	s.lives++
	s.id = fmt.Sprintf("m%d-%d", s.number, s.lives)
}

func (s *slot) dir() string { return filepath.Join(s.c.dir, s.id) }

// start starts the member's process and waits until it can be asked.
func (s *slot) start(first bool) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	socket := filepath.Join(s.c.dir, s.id+".sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	set, err := json.Marshal(memberSettings{ID: s.id, Address: s.address, Dir: s.dir(), Socket: socket, First: first})
	if err != nil {
		return err
	}
	p := &process{cmd: exec.Command(exe), log: &tail{}, ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asMember+"="+string(set), "GORACE=halt_on_error=1")
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in its log
		close(p.ended)
	}()
	s.mu.Lock()
	s.proc, s.faults = p, Faults{}
	s.mu.Unlock()
	for until := time.Now().Add(patience); ; {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			s.mu.Lock()
			s.client = rpc.NewClient(conn)
			s.mu.Unlock()
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("member %s does not start:\n%s", s.id, p.log)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(until) {
			return fmt.Errorf("member %s does not answer:\n%s", s.id, p.log)
		}
	}
}

// kill ends the process as a power cut of the process would.
func (s *slot) kill() {
	s.mu.Lock()
	p, client := s.proc, s.client
	s.client = nil
	if p != nil {
		p.meant = true
	}
	s.mu.Unlock()
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
	_ = p.stdin.Close()
	if client != nil {
		_ = client.Close()
	}
}

// died reports whether the process has ended by itself, and what it said.
func (s *slot) died() (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.proc.ended:
		return s.proc.log.String(), !s.proc.meant
	default:
		return "", false
	}
}

func (s *slot) signal(sig syscall.Signal) { _ = s.proc.cmd.Process.Signal(sig) } // it may have ended

var (
	errNoAnswer = errors.New("no answer")
	errNotThere = errors.New("no such process now")
)

// ask calls the member's process.
func (s *slot) ask(method string, in, out any, within time.Duration) error {
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if client == nil {
		return errNotThere
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	call := client.Go("Member."+method, in, out, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		return call.Error
	case <-timer.C:
		return errNoAnswer
	}
}

// breakIt sets the faults of a member that runs.
func (s *slot) breakIt(f Faults) {
	s.faults = f
	_ = s.ask("Break", f, &struct{}{}, 5*time.Second) // one that does not run has none
}

// replace has any member put the one in a slot in the place of another.
func (c *cluster) replace(old string, by *slot) {
	c.t.Helper()
	var err error
	for until := time.Now().Add(patience); time.Now().Before(until); {
		for _, s := range c.slots {
			if s == by {
				continue
			}
			if err = s.ask("Replace", Replacement{old, by.id, by.address, 10 * time.Second}, &struct{}{}, 12*time.Second); err == nil {
				return
			}
		}
	}
	c.t.Fatalf("member %s does not get in for %s: %v", by.id, old, err)
}

// leader gives the slot of the leader, or nil.
func (c *cluster) leader() *slot {
	for _, s := range c.slots {
		var now State
		if s.ask("State", struct{}{}, &now, time.Second) == nil && now.Leader {
			return s
		}
	}
	return nil
}

// whole waits until a read and a write work on every member.
func (c *cluster) whole(write func(*slot) bool) {
	c.t.Helper()
	until := time.Now().Add(patience)
	for _, s := range c.slots {
		for !write(s) {
			if log, died := s.died(); died {
				c.t.Fatalf("member %s has ended by itself:\n%s", s.id, log)
			}
			if time.Now().After(until) {
				c.t.Fatalf("member %s does not work again:\n%s", s.id, s.proc.log)
			}
		}
	}
}
