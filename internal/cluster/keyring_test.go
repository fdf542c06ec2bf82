package cluster_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/seal"
	"github.com/wherry-project/wherry/internal/store"
)

// TestNothingIsWrittenOpen has a keyring without a key refuse what is to be
// sealed: before the state has arrived it cannot know that there is none.
func TestNothingIsWrittenOpen(t *testing.T) {
	own := joiner{key: must(pki.NewKey())}
	codec := api.NewCodec(kinds.Table(), 0)
	secret := &api.Record{Key: api.Key{Resource: "secrets", Namespace: "default", Name: "a"}, Bytes: []byte("value-1")}
	plain := &api.Record{Key: api.Key{Resource: "configmaps", Namespace: "default", Name: "a"}, Bytes: []byte("value-1")}
	sealed := func(k *cluster.Keyring) error {
		_, err := k.Seal(secret)
		return err
	}
	k := keyringOf(t, own)
	if err := sealed(k); !errors.Is(err, apierr.ErrUnavailable) {
		t.Errorf("without a state: %v", err)
	}
	state := store.NewLocal(codec)
	k.Use(state)
	if err := sealed(k); !errors.Is(err, apierr.ErrUnavailable) {
		t.Errorf("with an empty state: %v", err)
	}
	if got, err := k.Seal(plain); err != nil || !bytes.Equal(got, plain.Bytes) {
		t.Errorf("what is not sealed: %q, %v", got, err)
	}
	b := newBed(t)
	b.token(control, 0) // it serves
	stranger := keyringOf(t, own)
	stranger.Use(b.store)
	if err := sealed(stranger); !errors.Is(err, apierr.ErrUnavailable) {
		t.Errorf("with a state whose keys it does not have: %v", err)
	}
	if got, err := b.keyring.Seal(secret); err != nil || !seal.Is(got) {
		t.Errorf("with a key: %q, %v", got, err)
	}
}
