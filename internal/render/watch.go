package render

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/wherry-project/wherry/internal/api"
)

// maxFrames bounds the bytes of recent frames that are kept, so that an event
// is encoded once for all its watchers.
const maxFrames = 1 << 20

// Frame gives a watch event as it goes over the wire. The bytes are shared and
// must not be modified. In a table only the first event of a watch has columns.
func (r *Renderer) Frame(f Form, k *api.Kind, e api.WatchEvent) ([]byte, error) {
	if e.Type == api.Bookmark {
		return r.bookmark(f, k, e)
	}
	id := frameID{e.Record.Key, e.Revision, e.Type, f}
	if b := r.frames.get(id); b != nil {
		return b, nil
	}
	var doc bytes.Buffer
	if err := r.Value(&doc, f, k, api.Value{Record: e.Record}); err != nil {
		return nil, err
	}
	b := frame(f, e.Type, doc.Bytes())
	if f.As != Table { // cells hold ages
		r.frames.put(id, b)
	}
	return b, nil
}

// bookmark gives an object of the kind that holds a resourceVersion only.
func (r *Renderer) bookmark(f Form, k *api.Kind, e api.WatchEvent) ([]byte, error) {
	meta := metav1.ObjectMeta{ResourceVersion: strconv.FormatUint(e.Revision, 10)}
	if e.InitialEnd {
		meta.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	part := &metav1.PartialObjectMetadata{TypeMeta: f.meta(Partial), ObjectMeta: meta}
	var obj runtime.Object = part
	switch f.As {
	case Table:
		t := f.table(columns(k), meta.ResourceVersion)
		row := metav1.TableRow{Cells: make([]any, len(columns(k)))}
		if f.Include != string(metav1.IncludeNone) {
			row.Object.Object = part
		}
		t.Rows = append(t.Rows, row)
		obj = t
	case Whole:
		o := k.New()
		o.SetResourceVersion(meta.ResourceVersion)
		o.SetAnnotations(meta.Annotations)
		o.GetObjectKind().SetGroupVersionKind(k.GVK())
		obj = o
	}
	var doc bytes.Buffer
	if err := Object(&doc, f, obj); err != nil {
		return nil, err
	}
	return frame(f, e.Type, doc.Bytes()), nil
}

// ErrorFrame gives the event with which a watch ends in an error.
func ErrorFrame(f Form, s *metav1.Status) ([]byte, error) {
	var doc bytes.Buffer
	if err := Object(&doc, f, s); err != nil {
		return nil, err
	}
	return frame(f, "ERROR", doc.Bytes()), nil
}

// frame wraps a document: a line of JSON, or a length and a WatchEvent message.
func frame(f Form, typ api.EventType, doc []byte) []byte {
	if f.Media != api.MediaProtobuf {
		out := make([]byte, 0, len(doc)+32)
		out = append(out, `{"type":"`+string(typ)+`","object":`...)
		out = append(out, bytes.TrimRight(doc, "\n")...)
		return append(out, "}\n"...)
	}
	raw := protowire.AppendTag(nil, 1, protowire.BytesType)
	raw = protowire.AppendBytes(raw, doc)
	out := make([]byte, 4, len(raw)+32)
	out = protowire.AppendTag(out, 1, protowire.BytesType)
	out = protowire.AppendString(out, string(typ))
	out = protowire.AppendTag(out, 2, protowire.BytesType)
	out = protowire.AppendBytes(out, raw)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}

// frameID is all that the bytes of a frame depend on, but the time.
type frameID struct {
	key      api.Key
	revision uint64
	typ      api.EventType
	form     Form
}

// frames keeps the newest frames, bounded in bytes.
type frames struct {
	mu    sync.Mutex
	byID  map[frameID][]byte
	order []frameID // oldest first
	used  int
}

func (c *frames) get(id frameID) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

func (c *frames) put(id frameID, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(b) > maxFrames/4 || c.byID[id] != nil {
		return
	}
	if c.byID == nil {
		c.byID = map[frameID][]byte{}
	}
	c.byID[id] = b
	c.order = append(c.order, id)
	for c.used += len(b); c.used > maxFrames; {
		old := c.order[0]
		c.order = c.order[1:]
		c.used -= len(c.byID[old])
		delete(c.byID, old)
	}
}
