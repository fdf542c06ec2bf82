package api

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// The media types in which objects travel over HTTP.
const (
	MediaJSON     = "application/json"
	MediaYAML     = "application/yaml"
	MediaProtobuf = "application/vnd.kubernetes.protobuf"
)

// protobufMagic opens every Kubernetes protobuf document; a runtime.Unknown
// with the object's bytes follows.
const protobufMagic = "k8s\x00"

// message is what objects, lists, options and Status have in common.
type message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// EncodeJSON gives an object as one line of JSON.
func EncodeJSON(obj runtime.Object) ([]byte, error) {
	b, err := json.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %T as JSON: %w", obj, err)
	}
	return append(b, '\n'), nil
}

// EncodeYAML gives an object as a YAML document.
func EncodeYAML(obj runtime.Object) ([]byte, error) {
	b, err := yaml.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %T as YAML: %w", obj, err)
	}
	return b, nil
}

// EncodeProtobuf gives an object as a Kubernetes protobuf document, under the
// kind that its TypeMeta names.
func EncodeProtobuf(obj runtime.Object) ([]byte, error) {
	m, ok := obj.(message)
	if !ok {
		return nil, fmt.Errorf("encode %T: it has no protobuf form", obj)
	}
	b, err := m.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode %T as protobuf: %w", obj, err)
	}
	return WrapProtobuf(obj.GetObjectKind().GroupVersionKind(), b), nil
}

// WrapProtobuf makes a Kubernetes protobuf document of an object's message.
func WrapProtobuf(gvk schema.GroupVersionKind, msg []byte) []byte {
	apiVersion, kind := gvk.ToAPIVersionAndKind()
	var meta []byte
	meta = protowire.AppendTag(meta, 1, protowire.BytesType)
	meta = protowire.AppendString(meta, apiVersion)
	meta = protowire.AppendTag(meta, 2, protowire.BytesType)
	meta = protowire.AppendString(meta, kind)

	out := make([]byte, 0, len(protobufMagic)+len(meta)+len(msg)+20)
	out = append(out, protobufMagic...)
	out = protowire.AppendTag(out, 1, protowire.BytesType)
	out = protowire.AppendBytes(out, meta)
	out = protowire.AppendTag(out, 2, protowire.BytesType)
	out = protowire.AppendBytes(out, msg)
	out = protowire.AppendTag(out, 3, protowire.BytesType)
	out = protowire.AppendString(out, "")
	out = protowire.AppendTag(out, 4, protowire.BytesType)
	return protowire.AppendString(out, "")
}

// unwrapProtobuf takes a Kubernetes protobuf document apart.
func unwrapProtobuf(doc []byte) (schema.GroupVersionKind, []byte, error) {
	if !bytes.HasPrefix(doc, []byte(protobufMagic)) {
		return schema.GroupVersionKind{}, nil, fmt.Errorf("provided data does not appear to be a protobuf message, expected prefix %v", []byte(protobufMagic))
	}
	var u runtime.Unknown
	if err := u.Unmarshal(doc[len(protobufMagic):]); err != nil {
		return schema.GroupVersionKind{}, nil, err
	}
	return schema.FromAPIVersionAndKind(u.APIVersion, u.Kind), u.Raw, nil
}
