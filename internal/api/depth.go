package api

import (
	"reflect"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/wherry-project/wherry/internal/apierr"
)

// maxDepth is how deeply messages may be nested in one that a client sends: as
// JSON may be. Their decoders call themselves, and a stack has an end.
const maxDepth = 1000

// nesting knows the message types that hold others, by their Go types.
type nesting map[reflect.Type]*shape

// shape is the fields of a message that are messages.
type shape struct {
	fields map[protowire.Number]*shape
	// endless says that messages of this type can hold ever more.
	endless bool
}

// endless gives the shape of a message's type if messages of it can hold ever
// more, else nil.
func (n nesting) endless(of any) *shape {
	if s := n.build(reflect.TypeOf(of).Elem(), map[reflect.Type]bool{}); s.endless {
		return s
	}
	return nil
}

func (n nesting) build(t reflect.Type, above map[reflect.Type]bool) *shape {
	if s := n[t]; s != nil {
		return s
	}
	s := &shape{fields: map[protowire.Number]*shape{}}
	n[t] = s
	above[t] = true
	defer delete(above, t)
	for i := range t.NumField() {
		number, of, entry := messageField(t.Field(i))
		if of == nil {
			continue
		}
		endless := above[of]
		inner := n.build(of, above)
		if entry { // a map travels as messages of a key and a value
			inner = &shape{fields: map[protowire.Number]*shape{2: inner}, endless: inner.endless || endless}
		}
		s.fields[number] = inner
		s.endless = s.endless || endless || inner.endless
	}
	return s
}

// messageField gives the number and type of a field that holds messages.
func messageField(f reflect.StructField) (number protowire.Number, of reflect.Type, entry bool) {
	parts := strings.Split(f.Tag.Get("protobuf"), ",")
	if len(parts) < 2 {
		return 0, nil, false
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		return 0, nil, false
	}
	of = f.Type
	for {
		switch of.Kind() {
		case reflect.Pointer, reflect.Slice:
			of = of.Elem()
			continue
		case reflect.Map:
			of, entry = of.Elem(), true
			continue
		case reflect.Struct:
			return protowire.Number(n), of, entry
		}
		return 0, nil, false
	}
}

// Shallow refuses a body of protobuf whose messages are nested too deeply to be
// decoded. Other bodies and what is no such document are for decoding to judge.
func (k *Kind) Shallow(mediaType string, body []byte) error {
	if k.shape == nil || mediaType != MediaProtobuf {
		return nil
	}
	_, raw, err := unwrapProtobuf(body)
	if err != nil {
		return nil
	}
	return k.shape.shallow(raw)
}

// shallow goes down a message by a stack of its own.
func (s *shape) shallow(msg []byte) error {
	if s == nil {
		return nil
	}
	type level struct {
		shape *shape
		rest  []byte
	}
	stack := []level{{s, msg}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if len(top.rest) == 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		num, typ, k := protowire.ConsumeTag(top.rest)
		if k < 0 {
			return nil // decoding says what is wrong
		}
		m := protowire.ConsumeFieldValue(num, typ, top.rest[k:])
		if m < 0 {
			return nil
		}
		value := top.rest[k : k+m]
		top.rest = top.rest[k+m:]
		inner := top.shape.fields[num]
		if inner == nil || typ != protowire.BytesType {
			continue
		}
		if len(stack) > maxDepth {
			return apierr.BadRequest("messages are nested more than %d deep", maxDepth)
		}
		value, _ = protowire.ConsumeBytes(value)
		stack = append(stack, level{inner, value})
	}
	return nil
}
