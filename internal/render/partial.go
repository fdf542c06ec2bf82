package render

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// partial gives the metadata of a record without decoding the rest of it.
func partial(f Form, rec *api.Record) (*metav1.PartialObjectMetadata, error) {
	msg, err := metadata(rec)
	if err != nil {
		return nil, err
	}
	p := &metav1.PartialObjectMetadata{}
	if err := p.Unmarshal(msg); err != nil {
		return nil, fmt.Errorf("decode metadata of %s: %w", rec.Key, err)
	}
	p.TypeMeta = f.meta(Partial)
	p.ResourceVersion = rec.ResourceVersion()
	return p, nil
}

// metadata gives the part of a record's message that is its metadata, which is
// field 1 of every kind and of PartialObjectMetadata.
func metadata(rec *api.Record) ([]byte, error) {
	var out []byte
	for b := rec.Full(); len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, fmt.Errorf("read %s: %w", rec.Key, protowire.ParseError(n))
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			return nil, fmt.Errorf("read %s: %w", rec.Key, protowire.ParseError(m))
		}
		if num == 1 {
			out = append(out, b[:n+m]...)
		}
		b = b[n+m:]
	}
	return out, nil
}
