package api

import (
	"bytes"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/seal"
)

// Record is one stored object. A record is immutable once it is in a store.
type Record struct {
	Key
	UID string
	// Revision is the object's resourceVersion: the revision of the command
	// that wrote it. The store sets it.
	Revision uint64
	// Bytes are the object's Kubernetes protobuf message, without envelope
	// and without resourceVersion. Of a record in a store they may be what is
	// not shared with others: Full has all.
	Bytes  []byte
	pieces []piece
	// Index is what can be asked without decoding Bytes.
	Index Index
}

// Index is the part of an object that selectors and joins need.
type Index struct {
	Labels map[string]string
	// Fields are the values of the kind's field selectors, but
	// metadata.name and metadata.namespace, which are in the key.
	Fields map[string]string
	// Owners are the uids of the object's owners.
	Owners []string
	// Deleting reports that deletionTimestamp is set.
	Deleting bool
}

// Readable refuses a record that this member could not open: it is sealed, and
// the key has not arrived here yet. Whoever hands out bytes asks first.
func (r *Record) Readable() error {
	if seal.Is(r.Bytes) {
		return apierr.Unavailable("%s is sealed, and this controld has not been given the key yet; try again, or ask another", r.Key)
	}
	return nil
}

// ResourceVersion is the record's revision as Kubernetes writes it.
func (r *Record) ResourceVersion() string { return strconv.FormatUint(r.Revision, 10) }

// Message is the object's protobuf message with its resourceVersion. Protobuf
// merges the appended metadata into the message's own (field 1 of every kind
// is ObjectMeta, field 6 of that is resourceVersion). Without a revision it has
// none, as objects that are not stored.
func (r *Record) Message() []byte {
	return appendRevision(r.AppendTo(make([]byte, 0, r.Len()+revisionRoom)), r.Revision)
}

// AppendRevision returns a copy of message with metadata.resourceVersion set,
// unless the revision is 0.
func AppendRevision(message []byte, revision uint64) []byte {
	if revision == 0 {
		return bytes.Clone(message)
	}
	return appendRevision(append(make([]byte, 0, len(message)+revisionRoom), message...), revision)
}

// revisionRoom is what a resourceVersion takes at most.
const revisionRoom = 26

func appendRevision(out []byte, revision uint64) []byte {
	rv := strconv.FormatUint(revision, 10)
	out = protowire.AppendTag(out, 1, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(2+len(rv)))
	out = protowire.AppendTag(out, 6, protowire.BytesType)
	return protowire.AppendString(out, rv)
}
