package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Conn commits to the kernel's nftables in one network namespace. Its methods
// may be called from several goroutines; commits wait for each other.
type Conn struct {
	ns string

	mu   sync.Mutex
	conn *nftables.Conn
	sock *netlink.Conn // conn's socket, for its deadline
}

const (
	// A transaction is one message to the kernel: the socket must take it
	// whole. This is a bound, not a reservation.
	sendBuffer    = 64 << 20
	receiveBuffer = 16 << 20
	// maxWait bounds a commit whose context has no deadline.
	maxWait = 30 * time.Second
	// chunk is how many elements go into one message of a transaction: their
	// list has a 16-bit length.
	chunk = 400
)

// Open opens a connection in the network namespace at path; the empty path is
// the caller's own.
func Open(path string) (*Conn, error) {
	c := &Conn{ns: path}
	if path == "" {
		path = "/proc/thread-self/ns/net"
	}
	return c, c.dial(path)
}

func (c *Conn) dial(path string) error {
	ns, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	c.conn, err = nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(int(ns.Fd())),
		nftables.WithSockOptions(func(sock *netlink.Conn) error {
			c.sock = sock
			return errors.Join(sock.SetWriteBuffer(sendBuffer), sock.SetReadBuffer(receiveBuffer))
		}))
	if err != nil {
		return fmt.Errorf("open nftables in %s: %w", path, err)
	}
	return nil
}

// Close closes the connection. Tables stay.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn.CloseLasting()
}

// Commit makes all changes, in one transaction, or none.
func (c *Conn) Commit(ctx context.Context, changes Changes) error {
	if changes.Empty() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.deadline(ctx); err != nil {
		return err
	}
	b := batch{conn: c.conn, table: &nftables.Table{Name: changes.Table, Family: nftables.TableFamily(changes.Family)}}
	err := b.fill(&changes)
	if err == nil {
		err = c.conn.Flush()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("commit to table %v %s: %w", changes.Family, changes.Table, err), c.redial())
	}
	return nil
}

// Intact reports whether a table is there and has chains or sets.
func (c *Conn) Intact(ctx context.Context, family Family, table string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.deadline(ctx); err != nil {
		return false, err
	}
	t, err := c.conn.ListTableOfFamily(table, nftables.TableFamily(family))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	} else if err != nil {
		return false, errors.Join(fmt.Errorf("look for table %v %s: %w", family, table, err), c.redial())
	}
	return t.Use > 0, nil
}

// DropElements deletes the elements of a map that drop reports true for. It is
// for dynamic maps, whose elements only the kernel knows.
func (c *Conn) DropElements(ctx context.Context, family Family, table string, set *Set, drop func(Element) bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.deadline(ctx); err != nil {
		return err
	}
	b := batch{conn: c.conn, table: &nftables.Table{Name: table, Family: nftables.TableFamily(family)}}
	found, err := c.conn.GetSetElements(b.set(set))
	if err != nil {
		return errors.Join(fmt.Errorf("list elements of %s: %w", set.Name, err), c.redial())
	}
	for _, e := range found {
		el := Element{Key: Data(e.Key), Value: Data(e.Val)}
		if !drop(el) {
			continue
		}
		// One by one: an element that timed out meanwhile must not keep the
		// others.
		if err := c.conn.SetDeleteElements(b.set(set), []nftables.SetElement{{Key: e.Key}}); err == nil {
			err = c.conn.Flush()
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return errors.Join(fmt.Errorf("delete element of %s: %w", set.Name, err), c.redial())
			}
		}
	}
	return nil
}

func (c *Conn) deadline(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d := time.Now().Add(maxWait)
	if t, ok := ctx.Deadline(); ok && t.Before(d) {
		d = t
	}
	return c.sock.SetDeadline(d)
}

// redial drops a connection on which answers of a failed transaction may wait.
func (c *Conn) redial() error {
	_ = c.conn.CloseLasting() // it is given up either way
	path := c.ns
	if path == "" {
		path = "/proc/thread-self/ns/net"
	}
	return c.dial(path)
}

// batch turns Changes into the library's messages.
type batch struct {
	conn  *nftables.Conn
	table *nftables.Table
	ids   uint32
}

func (b *batch) fill(c *Changes) error {
	if c.Replace || c.Remove {
		b.conn.AddTable(b.table) // so that the deletion finds one
		b.conn.DelTable(b.table)
	}
	if c.Remove {
		return nil
	}
	b.conn.AddTable(b.table)
	for i := range c.AddSets {
		if err := b.conn.AddSet(b.newSet(&c.AddSets[i]), nil); err != nil {
			return fmt.Errorf("set %s: %w", c.AddSets[i].Name, err)
		}
	}
	for i := range c.AddChains {
		b.addChain(&c.AddChains[i])
	}
	for i := range c.AddChains {
		if err := b.addRules(&c.AddChains[i]); err != nil {
			return err
		}
	}
	for i := range c.SetRules {
		b.conn.FlushChain(&nftables.Chain{Table: b.table, Name: c.SetRules[i].Name})
		if err := b.addRules(&c.SetRules[i]); err != nil {
			return err
		}
	}
	return b.fillRest(c)
}

func (b *batch) fillRest(c *Changes) error {
	for _, e := range c.DelElements {
		if err := b.elements(e.Set, e.List, b.conn.SetDeleteElements); err != nil {
			return err
		}
	}
	for i := range c.AddSets {
		s := &c.AddSets[i]
		if err := b.elements(s, s.Elements, b.conn.SetAddElements); err != nil {
			return err
		}
	}
	for _, e := range c.AddElements {
		if err := b.elements(e.Set, e.List, b.conn.SetAddElements); err != nil {
			return err
		}
	}
	for _, name := range c.DelChains { // they may jump to each other
		b.conn.FlushChain(&nftables.Chain{Table: b.table, Name: name})
	}
	for _, name := range c.DelChains {
		b.conn.DelChain(&nftables.Chain{Table: b.table, Name: name})
	}
	for _, name := range c.DelSets {
		b.conn.DelSet(&nftables.Set{Table: b.table, Name: name})
	}
	return nil
}

func (b *batch) addChain(c *Chain) {
	ch := &nftables.Chain{Table: b.table, Name: c.Name}
	if c.Hook != nil {
		points := [...]*nftables.ChainHook{
			nftables.ChainHookPrerouting, nftables.ChainHookInput, nftables.ChainHookForward,
			nftables.ChainHookOutput, nftables.ChainHookPostrouting,
		}
		ch.Type = nftables.ChainType(c.Hook.Type)
		ch.Hooknum = points[c.Hook.At]
		ch.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.Hook.Priority))
	}
	b.conn.AddChain(ch)
}

func (b *batch) addRules(c *Chain) error {
	for _, r := range c.Rules {
		exprs, err := compile(Family(b.table.Family), r)
		if err != nil {
			return fmt.Errorf("chain %s: %w", c.Name, err)
		}
		b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: &nftables.Chain{Table: b.table, Name: c.Name}, Exprs: exprs})
	}
	return nil
}

// newSet gives the set a number within the transaction, as the kernel wants.
// The library's own numbers come from a counter that all connections share
// without a lock.
func (b *batch) newSet(s *Set) *nftables.Set {
	n := b.set(s)
	b.ids++
	n.ID = b.ids
	return n
}

func (b *batch) set(s *Set) *nftables.Set {
	n := &nftables.Set{
		Table: b.table, Name: s.Name, KeyType: typeOf(s.Key), Concatenation: len(s.Key) > 1,
		Timeout: s.Timeout, HasTimeout: s.Timeout > 0 || s.Dynamic, Dynamic: s.Dynamic,
	}
	if s.Dynamic {
		n.Size = s.size()
	}
	switch {
	case s.Verdicts:
		n.IsMap, n.DataType = true, nftables.TypeVerdict
	case len(s.Value) > 0:
		n.IsMap, n.DataType = true, typeOf(s.Value)
	}
	return n
}

func typeOf(types []Type) nftables.SetDatatype {
	list := make([]nftables.SetDatatype, len(types))
	for i, t := range types {
		switch t {
		case TypeAddr:
			list[i] = nftables.TypeIPAddr
		case TypeProto:
			list[i] = nftables.TypeInetProto
		case TypePort:
			list[i] = nftables.TypeInetService
		case TypeIfName:
			list[i] = nftables.TypeIFName
		default:
			list[i] = nftables.TypeMark
		}
	}
	if len(list) == 1 {
		return list[0]
	}
	return nftables.MustConcatSetType(list...)
}

func (b *batch) elements(s *Set, list []Element, do func(*nftables.Set, []nftables.SetElement) error) error {
	for len(list) > 0 {
		n := min(len(list), chunk)
		part := make([]nftables.SetElement, n)
		for i, e := range list[:n] {
			if err := s.check(e); err != nil {
				return err
			}
			part[i] = nftables.SetElement{Key: exact(s.Key, e.Key)}
			switch {
			case s.Verdicts:
				part[i].VerdictData = verdictExpr(e.Verdict)
			case len(s.Value) > 0:
				part[i].Val = exact(s.Value, e.Value)
			}
		}
		if err := do(b.set(s), part); err != nil {
			return fmt.Errorf("elements of %s: %w", s.Name, err)
		}
		list = list[n:]
	}
	return nil
}

// check says what is wrong with an element of s.
func (s *Set) check(e Element) error {
	if len(s.Key) == 0 || len(s.Key) > 5 || len(s.Value) > 5 {
		return fmt.Errorf("set %s: keys and values have one to five components", s.Name)
	}
	if len(e.Key) != width(s.Key) {
		return fmt.Errorf("set %s: key of %d bytes, want %d", s.Name, len(e.Key), width(s.Key))
	}
	if len(e.Value) != width(s.Value) {
		return fmt.Errorf("set %s: value of %d bytes, want %d", s.Name, len(e.Value), width(s.Value))
	}
	return nil
}
