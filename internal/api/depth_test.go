package api_test

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// nested is a CustomResourceDefinition whose schema says "not" so many times. It
// is made from the inside: each level is in front of what it holds.
func nested(depth int) []byte {
	path := []protowire.Number{2, 7, 4, 1} // spec, versions, schema, openAPIV3Schema
	for range depth {
		path = append(path, 28) // not
	}
	size, heads := 0, make([][]byte, len(path))
	for i := len(path) - 1; i >= 0; i-- {
		heads[i] = protowire.AppendVarint(protowire.AppendTag(nil, path[i], protowire.BytesType), uint64(size))
		size += len(heads[i])
	}
	var out []byte
	for _, h := range heads {
		out = append(out, h...)
	}
	return out
}

// TestNestedTooDeep would end the process by the end of its stack.
func TestNestedTooDeep(t *testing.T) {
	crd := &api.Kind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition", Resource: "customresourcedefinitions", New: func() api.Object { return &apiextensionsv1.CustomResourceDefinition{} }}
	pod := &api.Kind{Version: "v1", Kind: "Pod", Resource: "pods", New: func() api.Object { return &corev1.Pod{} }}
	kinds := api.NewKinds(crd, pod)
	for depth, bad := range map[int]bool{0: false, 100: false, 900: false, 1001: true, 400_000: true} {
		msg := nested(depth)
		err := crd.Shallow(api.MediaProtobuf, api.WrapProtobuf(crd.GVK(), msg))
		if bad != errors.Is(err, apierr.ErrBadRequest) {
			t.Errorf("%d deep (%d bytes): %v", depth, len(msg), err)
		}
		obj, err := kinds.ObjectOf(&anypb.Any{TypeUrl: "type.googleapis.com/" + api.MessageName(crd.New()), Value: msg})
		if bad != errors.Is(err, apierr.ErrBadRequest) || bad == (obj != nil) {
			t.Errorf("%d deep in an Any: %v", depth, err)
		}
	}
	if err := pod.Shallow(api.MediaProtobuf, api.WrapProtobuf(pod.GVK(), nested(2000))); err != nil {
		t.Errorf("a pod: %v", err)
	}
}
