package store

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// commandFormat is the first byte of an encoded command. Whatever changes in
// the encoding takes a new number, and old ones stay readable.
const commandFormat = 1

// Bits of the byte that says which conditions of a change are set.
const (
	condAbsent = 1 << iota
	condRevision
	condUID
)

// Encode writes a command as it stands in the log. A command that is malformed
// or larger than the limits allow is refused.
func (c Command) Encode(l Limits) ([]byte, error) {
	if err := c.valid(); err != nil {
		return nil, err
	}
	limit := l.WithDefaults().CommandBytes
	size := 0
	for _, change := range c.Changes {
		if size += 64; change.Record != nil {
			size += change.Record.Len() + 256
		}
	}
	if size > 2*limit {
		return nil, tooLarge(size, limit)
	}
	b := make([]byte, 0, size)
	b = append(b, commandFormat)
	b = binary.AppendUvarint(b, uint64(len(c.Changes)))
	for _, change := range c.Changes {
		b = appendChange(b, change)
	}
	if len(b) > limit {
		return nil, tooLarge(len(b), limit)
	}
	return b, nil
}

func tooLarge(size, limit int) error {
	return apierr.TooLarge("a write of %d bytes is over the limit of %d", size, limit)
}

func appendChange(b []byte, c Change) []byte {
	var cond byte
	if c.If.Absent {
		cond |= condAbsent
	}
	if c.If.Revision != 0 {
		cond |= condRevision
	}
	if c.If.UID != "" {
		cond |= condUID
	}
	b = append(b, byte(c.Op), cond)
	if cond&condRevision != 0 {
		b = binary.AppendUvarint(b, c.If.Revision)
	}
	if cond&condUID != 0 {
		b = appendString(b, c.If.UID)
	}
	if c.Op == Put {
		return appendRecord(b, c.Record)
	}
	return appendKey(b, c.Key)
}

func appendKey(b []byte, k api.Key) []byte {
	b = appendString(b, k.Resource)
	b = appendString(b, k.Namespace)
	return appendString(b, k.Name)
}

// appendRecord writes all of a record but its revision.
func appendRecord(b []byte, r *api.Record) []byte {
	b = appendKey(b, r.Key)
	b = appendString(b, r.UID)
	var flags byte
	if r.Index.Deleting {
		flags = 1
	}
	b = append(b, flags)
	b = appendBlock(b, func(b []byte) []byte { return appendMap(b, r.Index.Labels) })
	b = appendBlock(b, func(b []byte) []byte { return appendMap(b, r.Index.Fields) })
	b = appendBlock(b, func(b []byte) []byte {
		for _, uid := range r.Index.Owners {
			b = appendString(b, uid)
		}
		return b
	})
	b = binary.AppendUvarint(b, uint64(r.Len()))
	return r.AppendTo(b)
}

// appendBlock writes what f appends behind its length, so that a reader can
// recognise a block that it has seen before.
func appendBlock(b []byte, f func([]byte) []byte) []byte {
	const room = 2
	at := len(b)
	b = f(append(b, 0, 0))
	n := len(b) - at - room
	if n < 1<<14 { // the usual case: a varint stretched to two bytes
		b[at], b[at+1] = byte(n)|0x80, byte(n>>7)
		return b
	}
	block := slices.Clone(b[at+room:])
	b = binary.AppendUvarint(b[:at], uint64(n))
	return append(b, block...)
}

func appendMap(b []byte, m map[string]string) []byte {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b = appendString(b, k)
		b = appendString(b, m[k])
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// DecodeCommand reads an encoded command. The bytes may be reused afterwards.
func (m *Mem) DecodeCommand(b []byte) (Command, error) {
	d := decoder{rest: b, words: m.words}
	if format := d.byte(); !d.bad && format != commandFormat {
		return Command{}, fmt.Errorf("store command of format %d; this version knows %d: it was written by a newer version", format, commandFormat)
	}
	n := d.uvarint()
	if n > uint64(len(b)) {
		d.bad = true
	}
	if d.bad {
		return Command{}, errGarbled("command")
	}
	c := Command{Changes: make([]Change, n)}
	for i := range c.Changes {
		d.change(&c.Changes[i])
	}
	if d.bad || len(d.rest) != 0 {
		return Command{}, errGarbled("command")
	}
	return c, nil
}

func errGarbled(what string) error { return fmt.Errorf("store %s is garbled", what) }

// decoder reads what the append functions wrote. A reader looks at bad when it
// is done.
type decoder struct {
	rest  []byte
	words *words
	bad   bool
}

func (d *decoder) change(c *Change) {
	c.Op = Op(d.byte())
	cond := d.byte()
	c.If.Absent = cond&condAbsent != 0
	if cond&condRevision != 0 {
		c.If.Revision = d.uvarint()
	}
	if cond&condUID != 0 {
		c.If.UID = string(d.bytes())
	}
	if c.Op == Put {
		c.Record = d.record()
		c.Key = c.Record.Key
		return
	}
	c.Key = api.Key{Resource: d.word(), Namespace: d.word(), Name: string(d.bytes())}
}

func (d *decoder) record() *api.Record {
	r := &api.Record{}
	r.Resource, r.Namespace = d.word(), d.word()
	// Name and uid share one allocation.
	name, uid := d.bytes(), d.bytes()
	both := string(append(append(make([]byte, 0, len(name)+len(uid)), name...), uid...))
	r.Name, r.UID = both[:len(name)], both[len(name):]
	r.Index.Deleting = d.byte() == 1
	r.Index.Labels = d.stringMap()
	r.Index.Fields = d.stringMap()
	r.Index.Owners = d.words.list(d.bytes(), d)
	r.SetBytes(d.bytes())
	return r
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.bad = true
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.bad = true
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) word() string                 { return d.words.word(d.bytes()) }
func (d *decoder) stringMap() map[string]string { return d.words.stringMap(d.bytes(), d) }
