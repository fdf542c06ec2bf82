package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// revisionOf is the resourceVersion of a list; one of objects that are not
// stored has none.
func revisionOf(p *api.Page) string {
	if p.Revision == 0 {
		return ""
	}
	return strconv.FormatUint(p.Revision, 10)
}

// Page writes a list. Lists of whole objects go out one object at a time.
func (r *Renderer) Page(w io.Writer, f Form, p *api.Page) error {
	if f.Media == api.MediaYAML || f.Pretty {
		plain := f
		plain.Media, plain.Pretty = api.MediaJSON, false
		return reshape(w, f, func(w io.Writer) error { return r.Page(w, plain, p) })
	}
	switch {
	case f.As == Table:
		t, err := r.listTable(f, p)
		if err != nil {
			return err
		}
		return Object(w, f, t)
	case f.As == Partial:
		return apierr.NotAcceptable("you requested PartialObjectMetadata, but the requested object is a list (%sList)", p.Kind.Kind)
	case f.Media == api.MediaProtobuf:
		return protoList(w, f, p)
	case f.As == PartialList:
		return jsonList(w, f.meta(PartialList), p, func(rec *api.Record) ([]byte, error) {
			item, err := partial(f, rec)
			if err != nil {
				return nil, err
			}
			return json.Marshal(item)
		})
	}
	kind := metav1.TypeMeta{APIVersion: p.Kind.APIVersion(), Kind: p.Kind.Kind + "List"}
	return jsonList(w, kind, p, func(rec *api.Record) ([]byte, error) {
		obj, err := r.decode(rec)
		if err != nil {
			return nil, err
		}
		b, err := json.Marshal(obj)
		return dropKind(b, p.Kind), err
	})
}

// reshape writes what was written as JSON as YAML, or indented.
func reshape(w io.Writer, f Form, write func(io.Writer) error) error {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	shape := indent
	if f.Media == api.MediaYAML {
		shape = toYAML
	}
	out, err := shape(b.Bytes())
	if err != nil {
		return err
	}
	_, err = w.Write(out)
	return err
}

// dropKind removes kind and apiVersion from the front of an object's JSON:
// items of a list do not name theirs.
func dropKind(b []byte, k *api.Kind) []byte {
	head := []byte(`{"kind":` + strconv.Quote(k.Kind) + `,"apiVersion":` + strconv.Quote(k.APIVersion()))
	rest, ok := bytes.CutPrefix(b, head)
	if !ok || len(rest) == 0 {
		return b
	}
	if rest[0] == ',' {
		rest = rest[1:]
	}
	return append([]byte{'{'}, rest...)
}

// jsonList writes a list with the items that item makes.
func jsonList(w io.Writer, kind metav1.TypeMeta, p *api.Page, item func(*api.Record) ([]byte, error)) error {
	meta, err := json.Marshal(metav1.ListMeta{ResourceVersion: revisionOf(p), Continue: p.Continue, RemainingItemCount: p.Remaining})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, `{"kind":%q,"apiVersion":%q,"metadata":%s,"items":[`, kind.Kind, kind.APIVersion, meta); err != nil {
		return err
	}
	for i, rec := range p.Records {
		b, err := item(rec)
		if err != nil {
			return fmt.Errorf("encode %s: %w", rec.Key, err)
		}
		if i > 0 {
			b = append([]byte{','}, b...)
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	_, err = io.WriteString(w, "]}\n")
	return err
}

// protoList writes a list out of the stored bytes. Every list message has its
// ListMeta in field 1 and its items in field 2.
func protoList(w io.Writer, f Form, p *api.Page) error {
	gvk := p.Kind.GVK()
	gvk.Kind += "List"
	if f.As == PartialList {
		kind := f.meta(PartialList)
		gvk = kind.GroupVersionKind()
	}
	meta := metav1.ListMeta{ResourceVersion: revisionOf(p), Continue: p.Continue, RemainingItemCount: p.Remaining}
	head, err := meta.Marshal()
	if err != nil {
		return err
	}
	size := len(head) + 16
	for _, rec := range p.Records {
		size += rec.Len() + 40
	}
	out := make([]byte, 0, size)
	out = protowire.AppendTag(out, 1, protowire.BytesType)
	out = protowire.AppendBytes(out, head)
	for _, rec := range p.Records {
		msg := rec.Full()
		if f.As == PartialList {
			if msg, err = metadata(rec); err != nil {
				return err
			}
		}
		out = protowire.AppendTag(out, 2, protowire.BytesType)
		out = protowire.AppendBytes(out, api.AppendRevision(msg, rec.Revision))
	}
	_, err = w.Write(api.WrapProtobuf(gvk, out))
	return err
}
