package api_test

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/seal"
)

// TestSealedIsNotHandedOut reads a record that this member cannot open.
func TestSealedIsNotHandedOut(t *testing.T) {
	key, err := seal.NewKey(1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := key.Seal("x", []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	k := &api.Kind{Version: "v1", Kind: "Secret", Resource: "secrets", Namespaced: true, New: func() api.Object { return &corev1.Secret{} }}
	codec := api.NewCodec(api.NewKinds(k), 0)
	r := &api.Record{Key: api.Key{Resource: "secrets", Namespace: "a", Name: "b"}, Revision: 3, Bytes: b}
	if _, err := codec.View(k, r); !errors.Is(err, apierr.ErrUnavailable) {
		t.Errorf("shown: %v", err)
	}
	if _, err := codec.Decode(r); !errors.Is(err, apierr.ErrUnavailable) {
		t.Errorf("decoded: %v", err)
	}
}
