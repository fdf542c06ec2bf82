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
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// idleAfter is how long documents are kept that nobody asks for.
const idleAfter = 5 * time.Minute

// Documents gives the OpenAPI documents. It may be used by many goroutines.
// Documents are built when one is first asked for, and kept compressed for as
// long as they are asked for: they are megabytes that most clients read once.
// Only their hashes stay.
type Documents struct {
	groups map[string][]*api.Kind // by path, such as apis/apps/v1
	all    []*api.Kind

	mu     sync.Mutex
	hashes map[string]string // of the JSON, by path, v2 under ""; nil until all v3 were built
	hash2  string
	packed map[packedKey][]byte
	idle   *time.Timer
}

// packedKey names a compressed document: v3 by path, v2 under "".
type packedKey struct {
	path  string
	proto bool
}

// New prepares the documents of kinds. It fails if a kind's Go type cannot be
// described.
func New(kinds *api.Kinds) (*Documents, error) {
	d := &Documents{all: kinds.All(), groups: map[string][]*api.Kind{}, packed: map[packedKey][]byte{}}
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
	if err := d.indexLocked(); err != nil {
		return nil, err
	}
	return maps.Clone(d.hashes), nil
}

// V3 gives the v3 document of a path of Index as JSON.
func (d *Documents) V3(path string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.knownLocked(path); err != nil {
		return nil, err
	}
	return d.jsonLocked(path)
}

// V3Proto gives the v3 document of a path of Index in gnostic's protobuf form,
// application/com.github.proto-openapi.spec.v3.v1.0+protobuf.
func (d *Documents) V3Proto(path string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.knownLocked(path); err != nil {
		return nil, err
	}
	return d.protoLocked(path, encodeV3)
}

// V2 gives the v2 document as JSON, and its hash.
func (d *Documents) V2() (doc []byte, hash string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	doc, err = d.jsonLocked("")
	return doc, d.hash2, err
}

// V2Proto gives the v2 document in gnostic's protobuf form,
// application/com.github.proto-openapi.spec.v2.v1.0+protobuf, and the hash of
// the JSON.
func (d *Documents) V2Proto() (doc []byte, hash string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	doc, err = d.protoLocked("", encodeV2)
	return doc, d.hash2, err
}

func (d *Documents) knownLocked(path string) error {
	if _, ok := d.groups[path]; !ok {
		return apierr.New(apierr.ErrNotFound, "the server has no OpenAPI document for %s", path)
	}
	return nil
}

// indexLocked builds all v3 documents once, for their hashes.
func (d *Documents) indexLocked() error {
	if d.hashes != nil {
		return nil
	}
	hashes := map[string]string{}
	for _, path := range slices.Sorted(maps.Keys(d.groups)) {
		text, err := d.jsonLocked(path)
		if err != nil {
			return err
		}
		hashes[path] = hashOf(text)
	}
	d.hashes = hashes
	debug.FreeOSMemory() // what was built is many times what is kept
	return nil
}

// jsonLocked gives a document as JSON.
func (d *Documents) jsonLocked(path string) ([]byte, error) {
	d.usedLocked()
	key := packedKey{path: path}
	if packed, ok := d.packed[key]; ok {
		return unpack(packed)
	}
	tree := node(nil)
	if path == "" {
		tree = tree2(d.all)
	} else {
		tree = tree3(d.groups[path])
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("build OpenAPI document %q: %w", path, err)
	}
	if d.packed[key], err = compress(text); err != nil {
		return nil, err
	}
	if path == "" {
		d.hash2 = hashOf(text)
		debug.FreeOSMemory()
	}
	return text, nil
}

// protoLocked gives a document as protobuf.
func (d *Documents) protoLocked(path string, encode func(node) []byte) ([]byte, error) {
	d.usedLocked()
	key := packedKey{path: path, proto: true}
	if packed, ok := d.packed[key]; ok {
		return unpack(packed)
	}
	text, err := d.jsonLocked(path)
	if err != nil {
		return nil, err
	}
	var tree node
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("read OpenAPI document: %w", err)
	}
	out := encode(tree)
	if d.packed[key], err = compress(out); err != nil {
		return nil, err
	}
	return out, nil
}

// usedLocked puts off the time at which the documents are dropped.
func (d *Documents) usedLocked() {
	if d.idle == nil {
		d.idle = time.AfterFunc(idleAfter, d.drop)
		return
	}
	d.idle.Reset(idleAfter)
}

// drop forgets all documents but their hashes. Those that are asked for again
// are built again, and are the same.
func (d *Documents) drop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.packed)
	debug.FreeOSMemory()
}

// node is a piece of a document.
type node = map[string]any

func hashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
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
