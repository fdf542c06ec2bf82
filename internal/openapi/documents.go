// Package openapi makes the OpenAPI documents, v3 for each group and version
// and v2 for all, out of the kinds and the documentation of their Go types.
package openapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// Documents gives the OpenAPI documents. It may be used by many goroutines.
// Documents are built when one is first asked for, and kept compressed: they
// are megabytes that most clients ask for once.
type Documents struct {
	groups map[string][]*api.Kind // by path, such as apis/apps/v1
	all    []*api.Kind

	mu   sync.Mutex
	v3   map[string]*document
	v2   *document
	prot map[string]*document // v3 by path, v2 under ""
}

// document is one document, compressed, and the hash of its JSON.
type document struct {
	packed []byte
	hash   string
}

// New prepares the documents of kinds. It fails if a kind's Go type cannot be
// described.
func New(kinds *api.Kinds) (*Documents, error) {
	d := &Documents{all: kinds.All(), groups: map[string][]*api.Kind{}, prot: map[string]*document{}}
	for _, k := range d.all {
		if modelName(k.New()) == "" {
			return nil, fmt.Errorf("describe %s: %T has no OpenAPI name", k.GVK(), k.New())
		}
		p := groupPath(k)
		d.groups[p] = append(d.groups[p], k)
	}
	return d, nil
}

// groupPath is where a group and version lies below the root.
func groupPath(k *api.Kind) string {
	if k.Group == "" {
		return "api/" + k.Version
	}
	return "apis/" + k.Group + "/" + k.Version
}

// Index gives the hash of each v3 document by its path, such as "api/v1" and
// "apis/apps/v1".
func (d *Documents) Index() (map[string]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.buildLocked(); err != nil {
		return nil, err
	}
	out := make(map[string]string, len(d.v3))
	for path, doc := range d.v3 {
		out[path] = doc.hash
	}
	return out, nil
}

// V3 gives the v3 document of a path of Index as JSON.
func (d *Documents) V3(path string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	doc, err := d.v3Locked(path)
	if err != nil {
		return nil, err
	}
	return unpack(doc.packed)
}

// V3Proto gives the v3 document of a path of Index in gnostic's protobuf form,
// application/com.github.proto-openapi.spec.v3.v1.0+protobuf.
func (d *Documents) V3Proto(path string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	doc, err := d.v3Locked(path)
	if err != nil {
		return nil, err
	}
	return d.protoLocked(path, doc, encodeV3)
}

// V2 gives the v2 document as JSON, and its hash.
func (d *Documents) V2() (doc []byte, hash string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.buildV2Locked(); err != nil {
		return nil, "", err
	}
	doc, err = unpack(d.v2.packed)
	return doc, d.v2.hash, err
}

// V2Proto gives the v2 document in gnostic's protobuf form,
// application/com.github.proto-openapi.spec.v2.v1.0+protobuf, and the hash of
// the JSON.
func (d *Documents) V2Proto() (doc []byte, hash string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.buildV2Locked(); err != nil {
		return nil, "", err
	}
	doc, err = d.protoLocked("", d.v2, encodeV2)
	return doc, d.v2.hash, err
}

func (d *Documents) v3Locked(path string) (*document, error) {
	if err := d.buildLocked(); err != nil {
		return nil, err
	}
	doc, ok := d.v3[path]
	if !ok {
		return nil, apierr.New(apierr.ErrNotFound, "the server has no OpenAPI document for %s", path)
	}
	return doc, nil
}

func (d *Documents) buildLocked() error {
	if d.v3 != nil {
		return nil
	}
	out := map[string]*document{}
	for _, path := range slices.Sorted(maps.Keys(d.groups)) {
		doc, err := pack(tree3(d.groups[path]))
		if err != nil {
			return fmt.Errorf("build OpenAPI document of %s: %w", path, err)
		}
		out[path] = doc
	}
	d.v3 = out
	return nil
}

func (d *Documents) buildV2Locked() error {
	if d.v2 != nil {
		return nil
	}
	doc, err := pack(tree2(d.all))
	if err != nil {
		return fmt.Errorf("build OpenAPI v2 document: %w", err)
	}
	d.v2 = doc
	return nil
}

func (d *Documents) protoLocked(key string, doc *document, encode func(node) []byte) ([]byte, error) {
	if had := d.prot[key]; had != nil {
		return unpack(had.packed)
	}
	text, err := unpack(doc.packed)
	if err != nil {
		return nil, err
	}
	var tree node
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("read OpenAPI document: %w", err)
	}
	out := encode(tree)
	packed, err := compress(out)
	if err != nil {
		return nil, err
	}
	d.prot[key] = &document{packed: packed, hash: doc.hash}
	return out, nil
}

// node is a piece of a document.
type node = map[string]any

func pack(tree node) (*document, error) {
	text, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	sum := sha256.Sum256(text)
	packed, err := compress(text)
	if err != nil {
		return nil, err
	}
	return &document{packed: packed, hash: hex.EncodeToString(sum[:])}, nil
}

func compress(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return bytes.Clone(out.Bytes()), nil
}

func unpack(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("uncompress: %w", err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("uncompress: %w", err)
	}
	return b, nil
}
