package openapi

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// The protobuf forms are gnostic's messages, openapi.v2 and openapi.v3. They
// are written here field by field, as far as our documents use them: gnostic
// itself would parse the whole JSON as YAML first, which takes a hundred times
// the document's size.

// wire is a message that is being written. Fields are written in the order of
// the calls; absent values are left out.
type wire []byte

func (w *wire) text(num protowire.Number, v any) {
	if s, ok := v.(string); ok && s != "" {
		*w = protowire.AppendString(protowire.AppendTag(*w, num, protowire.BytesType), s)
	}
}

func (w *wire) texts(num protowire.Number, v any) {
	list, _ := v.([]any)
	for _, s := range list {
		w.text(num, s)
	}
}

func (w *wire) flag(num protowire.Number, v any) {
	if b, ok := v.(bool); ok && b {
		*w = protowire.AppendVarint(protowire.AppendTag(*w, num, protowire.VarintType), 1)
	}
}

// message writes a message, also an empty one.
func (w *wire) message(num protowire.Number, m []byte) {
	*w = protowire.AppendBytes(protowire.AppendTag(*w, num, protowire.BytesType), m)
}

// sub writes the message of a node that may be absent.
func (w *wire) sub(num protowire.Number, v any, encode func(node) []byte) {
	if n, ok := v.(node); ok {
		w.message(num, encode(n))
	}
}

// each writes a message for every node of a list.
func (w *wire) each(num protowire.Number, v any, encode func(node) []byte) {
	list, _ := v.([]any)
	for _, e := range list {
		w.sub(num, e, encode)
	}
}

// entries writes a name and a message for every entry of a node, sorted.
func (w *wire) entries(num protowire.Number, v any, encode func(node) []byte) {
	n, _ := v.(node)
	for _, name := range slices.Sorted(maps.Keys(n)) {
		child, ok := n[name].(node)
		if !ok {
			continue
		}
		var e wire
		e.text(1, name)
		e.message(2, encode(child))
		w.message(num, e)
	}
}

// extensions writes the entries that begin with x-; their values are YAML, of
// which JSON is a part.
func (w *wire) extensions(num protowire.Number, n node) {
	for _, name := range slices.Sorted(maps.Keys(n)) {
		if !strings.HasPrefix(name, "x-") {
			continue
		}
		text, err := json.Marshal(n[name])
		if err != nil {
			continue // cannot be: n came out of JSON
		}
		var value, e wire
		value.text(2, string(text))
		e.text(1, name)
		e.message(2, value)
		w.message(num, e)
	}
}

// wrapped is a message of which encode gives field num.
func wrapped(num protowire.Number, encode func(node) []byte) func(node) []byte {
	return func(n node) []byte {
		var w wire
		w.message(num, encode(n))
		return w
	}
}

// map1 is a message with entries in field 1.
func map1(encode func(node) []byte) func(node) []byte {
	return func(n node) []byte {
		var w wire
		w.entries(1, n, encode)
		return w
	}
}
