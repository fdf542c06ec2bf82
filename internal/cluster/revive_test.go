package cluster_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/backup"
	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/seal"
	"github.com/wherry-project/wherry/internal/store"
)

// TestRevivedClusterHasAnotherKey brings a cluster back from a backup: who was a
// member before knows the keys of then, and reads nothing that is written later,
// nor for long what was there.
func TestRevivedClusterHasAnotherKey(t *testing.T) {
	b := newBed(t)
	key := b.secret("a", "value-1")
	token := b.token(control, 0)
	lost := newJoiner(token, control, "c2")
	if _, err := b.join(token, lost); err != nil {
		t.Fatal(err)
	}
	theirs := keyringOf(t, lost)
	theirs.Use(b.store)
	if theirs.Lacks() {
		t.Fatal("the member of before lacks the key of before")
	}
	file := filepath.Join(t.TempDir(), "backup")
	if _, err := backup.Fetch(t.Context(), b.admin(), file, []byte("word")); err != nil {
		t.Fatal(err)
	}
	codec := api.NewCodec(kinds.Table(), 0)
	got, err := backup.ReadFile(file, []byte("word"), codec)
	if err != nil {
		t.Fatal(err)
	}
	own := joiner{key: must(pki.NewKey())}
	founder := cluster.Founder{Name: "new", Member: "new-1", Key: must(pki.KeyHash(own.key.Public())), Public: must(x509.MarshalPKIXPublicKey(own.key.Public()))}
	keyring := cluster.OpenKeyring(got.Keys)
	got.State.Use(keyring)
	alone, _, err := cluster.Alone(got.State.Snapshot(), keyring, founder)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.State.Apply(alone); err != nil {
		t.Fatal(err)
	}
	var image bytes.Buffer
	if err := got.State.Snapshot().Persist(&image); err != nil {
		t.Fatal(err)
	}
	b.keyring = keyringOf(t, own)
	revived := store.NewLocalSealed(codec, b.keyring)
	if err := revived.Mem().Restore(&image); err != nil {
		t.Fatal(err)
	}
	b.keyring.Use(revived)
	theirs.Use(revived)
	b.store = revived
	if w := b.wraps(); len(w) != 2 || len(w[1]) != 1 || len(w[2]) != 1 || w[2][0] != founder.Key {
		t.Errorf("wrapped to %v", w)
	}
	b.server = cluster.New(cluster.Config{Store: revived, Keyring: b.keyring, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	b.keep(func() bool { return b.sealedBy(key) == 2 && b.sealedBy(caRecord) == 2 })
	snap := must(revived.Snapshot(t.Context(), store.At{}))
	if open, ok := snap.Get(key); !ok || !bytes.Contains(open.Bytes, []byte("value-1")) {
		t.Errorf("the revived cluster reads %v", open)
	}
	raw, _ := snap.Raw().Get(key)
	if open, err := theirs.Open(raw); !errors.Is(err, seal.ErrNoKey) {
		t.Errorf("the member of before reads %q, %v", open, err)
	}
}
