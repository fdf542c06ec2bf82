package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// Renderer renders stored objects. It may be used by many goroutines.
type Renderer struct {
	codec  *api.Codec
	now    func() time.Time
	frames frames
}

// New makes a renderer. Ages in tables are measured by now.
func New(codec *api.Codec, now func() time.Time) *Renderer {
	return &Renderer{codec: codec, now: now}
}

// Object writes any object whole: a Status, options, a document.
func Object(w io.Writer, f Form, obj runtime.Object) error {
	var b []byte
	var err error
	switch f.Media {
	case api.MediaProtobuf:
		b, err = api.EncodeProtobuf(obj)
	case api.MediaYAML:
		b, err = api.EncodeYAML(obj)
	default:
		b, err = api.EncodeJSON(obj)
		if err == nil && f.Pretty {
			b, err = indent(b)
		}
	}
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// Value writes one object of a kind: a record or a decoded object.
func (r *Renderer) Value(w io.Writer, f Form, k *api.Kind, v api.Value) error {
	switch f.As {
	case Table:
		t, err := r.valueTable(f, k, v)
		if err != nil {
			return err
		}
		return Object(w, f, t)
	case Partial:
		p, err := r.valuePartial(f, v)
		if err != nil {
			return err
		}
		return Object(w, f, p)
	case PartialList:
		return apierr.NotAcceptable("you requested PartialObjectMetadataList, but the requested object is not a list")
	}
	if f.Media == api.MediaProtobuf && v.Record != nil {
		_, err := w.Write(api.WrapProtobuf(k.GVK(), v.Record.Message()))
		return err
	}
	obj, err := r.objectOf(v)
	if err != nil {
		return err
	}
	return Object(w, f, obj)
}

// objectOf gives the decoded object of a value.
func (r *Renderer) objectOf(v api.Value) (runtime.Object, error) {
	if v.Object != nil {
		return v.Object, nil
	}
	return r.decode(v.Record)
}

func (r *Renderer) decode(rec *api.Record) (api.Object, error) {
	if rec == nil {
		return nil, fmt.Errorf("render: the answer holds no object")
	}
	return r.codec.Decode(rec)
}

// valuePartial gives the metadata of a value.
func (r *Renderer) valuePartial(f Form, v api.Value) (*metav1.PartialObjectMetadata, error) {
	if v.Record != nil {
		return partial(f, v.Record)
	}
	m, ok := v.Object.(metav1.ObjectMetaAccessor)
	if !ok {
		return nil, apierr.NotAcceptable("you requested PartialObjectMetadata, but the requested object is a %T", v.Object)
	}
	o, ok := m.GetObjectMeta().(*metav1.ObjectMeta)
	if !ok {
		return nil, fmt.Errorf("render: the metadata of %T is a %T", v.Object, m.GetObjectMeta())
	}
	return &metav1.PartialObjectMetadata{TypeMeta: f.meta(Partial), ObjectMeta: *o}, nil
}

// meta is the TypeMeta of what objects are turned into.
func (f Form) meta(as As) metav1.TypeMeta {
	version := f.Version
	if version == "" {
		version = "v1"
	}
	return metav1.TypeMeta{APIVersion: "meta.k8s.io/" + version, Kind: string(as)}
}

func indent(b []byte) ([]byte, error) {
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func toYAML(b []byte) ([]byte, error) { return yaml.JSONToYAML(b) }
