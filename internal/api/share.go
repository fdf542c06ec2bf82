package api

import (
	"bytes"
	"slices"
	"unique"

	"google.golang.org/protobuf/encoding/protowire"
)

// piece is a part of a record's message that many records have: it belongs in
// front of what stands at a place of the record's own bytes.
type piece struct {
	at   int
	text unique.Handle[string]
}

// leastPiece is how long a part must be for it to be worth sharing.
const leastPiece = 48

// SetBytes gives a record its message, which may be reused afterwards. The sets
// of managed fields, most of a small object, are not copied but shared with all
// records of the process that have the same: the objects of one template do, but
// for a pod's addresses, which are left out. Full gives the message back.
func (r *Record) SetBytes(msg []byte) {
	r.Bytes, r.pieces = nil, nil
	cuts := fieldSets(msg)
	if len(cuts) == 0 {
		r.Bytes = bytes.Clone(msg)
		return
	}
	shared := 0
	for _, c := range cuts {
		shared += c[1] - c[0]
	}
	r.Bytes = make([]byte, 0, len(msg)-shared)
	r.pieces = make([]piece, len(cuts))
	from := 0
	for i, c := range cuts {
		r.Bytes = append(r.Bytes, msg[from:c[0]]...)
		r.pieces[i] = piece{len(r.Bytes), unique.Make(string(msg[c[0]:c[1]]))}
		from = c[1]
	}
	r.Bytes = append(r.Bytes, msg[from:]...)
}

// AppendTo appends the record's message to b.
func (r *Record) AppendTo(b []byte) []byte {
	from := 0
	for _, p := range r.pieces {
		b = append(b, r.Bytes[from:p.at]...)
		b = append(b, p.text.Value()...)
		from = p.at
	}
	return append(b, r.Bytes[from:]...)
}

// Full is the record's message, which must not be modified: Bytes with what is
// shared.
func (r *Record) Full() []byte {
	if len(r.pieces) == 0 {
		return r.Bytes
	}
	return r.AppendTo(make([]byte, 0, r.Len()))
}

// Whole is a record that shares nothing: its Bytes are its message.
func (r *Record) Whole() *Record {
	if len(r.pieces) == 0 {
		return r
	}
	whole := *r
	whole.Bytes, whole.pieces = r.Full(), nil
	return &whole
}

// Len is the length of the record's message.
func (r *Record) Len() int {
	n := len(r.Bytes)
	for _, p := range r.pieces {
		n += len(p.text.Value())
	}
	return n
}

// same reports whether two records have one message, split alike.
func (r *Record) same(o *Record) bool {
	return bytes.Equal(r.Bytes, o.Bytes) && slices.Equal(r.pieces, o.pieces)
}

// Fields of the messages on the way to a set of managed fields.
const (
	metadataField = 1  // of every kind
	managedField  = 17 // of ObjectMeta
	setField      = 7  // of ManagedFieldsEntry: fieldsV1
	rawField      = 1  // of FieldsV1
)

// address opens the key of an item that is named by its address, as pods' are.
const address = `k:{\"ip\":`

// fieldSets finds the parts of a message that are worth sharing. What is no
// message has none.
func fieldSets(msg []byte) (cuts [][2]int) {
	if len(msg) == 0 || msg[0] != metadataField<<3|byte(protowire.BytesType) {
		return nil
	}
	each(msg, 0, metadataField, func(meta []byte, at int) {
		each(meta, at, managedField, func(entry []byte, at int) {
			each(entry, at, setField, func(set []byte, at int) {
				each(set, at, rawField, func(raw []byte, at int) { cuts = append(cuts, split(raw, at)...) })
			})
		})
	})
	return cuts
}

// each calls do for each field of a number; at is where msg stands in the whole.
// Behind something unreadable it stops.
func each(msg []byte, at int, field protowire.Number, do func(value []byte, at int)) {
	for i := 0; i < len(msg); {
		num, typ, n := protowire.ConsumeTag(msg[i:])
		if n < 0 {
			return
		}
		i += n
		m := protowire.ConsumeFieldValue(num, typ, msg[i:])
		if m < 0 {
			return
		}
		if num == field && typ == protowire.BytesType {
			if v, k := protowire.ConsumeBytes(msg[i:]); k > 0 {
				do(v, at+i+k-len(v))
			}
		}
		i += m
	}
}

// split takes the addresses out of a set.
func split(raw []byte, at int) (cuts [][2]int) {
	for len(raw) > 0 {
		part, rest := len(raw), len(raw)
		if i := bytes.Index(raw, []byte(address)); i >= 0 {
			part = i + len(address)
			if rest = bytes.IndexByte(raw[part:], '}') + part; rest < part {
				rest = len(raw)
			}
		}
		if part >= leastPiece {
			cuts = append(cuts, [2]int{at, at + part})
		}
		raw, at = raw[rest:], at+rest
	}
	return cuts
}
