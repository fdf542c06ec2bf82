package cluster_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/backup"
	"github.com/wherry-project/wherry/internal/cluster"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/raftstore"
	"github.com/wherry-project/wherry/internal/seal"
	"github.com/wherry-project/wherry/internal/store"
)

// wraps gives, for each data key, the hashes of the keys that it is wrapped to.
func (b *bed) wraps() map[uint32][]string {
	b.t.Helper()
	snap := must(b.store.Snapshot(b.t.Context(), store.At{}))
	r, ok := snap.Get(api.Key{Resource: "datakeys.internal.wherry", Name: "cluster"})
	if !ok {
		return nil
	}
	var v struct {
		Value struct {
			Keys []struct {
				ID    uint32
				Wraps map[string][]byte
			}
		}
	}
	if err := json.Unmarshal(r.Bytes, &v); err != nil {
		b.t.Fatal(err)
	}
	out := map[uint32][]string{}
	for _, k := range v.Value.Keys {
		out[k.ID] = []string{}
		for hash := range k.Wraps {
			out[k.ID] = append(out[k.ID], hash)
		}
	}
	return out
}

// sealedBy gives the key that a record is sealed with, 0 if none is.
func (b *bed) sealedBy(key api.Key) uint32 {
	b.t.Helper()
	snap := must(b.store.Snapshot(b.t.Context(), store.At{}))
	r, ok := snap.Raw().Get(key)
	if !ok {
		b.t.Fatalf("%s is not there", key)
	}
	if !seal.Is(r.Bytes) {
		return 0
	}
	return must(seal.KeyOf(r.Bytes))
}

var caRecord = api.Key{Resource: "authority.internal.wherry", Name: "cluster"}

func (b *bed) secret(name, value string) api.Key {
	b.t.Helper()
	_, err := b.api.As(api.User{Name: "admin", Groups: []string{pki.MastersGroup}}).Create(b.t.Context(),
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string][]byte{"k": []byte(value)}})
	if err != nil {
		b.t.Fatal(err)
	}
	return api.Key{Resource: "secrets", Namespace: "default", Name: name}
}

// keep runs the leader's sealing until done says so.
func (b *bed) keep(done func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- b.server.KeepSealed(ctx) }()
	for !done() {
		select {
		case <-ctx.Done():
			b.t.Fatal("it is not sealed in time")
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; err != nil {
		b.t.Error(err)
	}
}

// keyringOf is the keyring of a machine with a key.
func keyringOf(t *testing.T, j joiner) *cluster.Keyring {
	t.Helper()
	key, ok := j.key.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("a key of type %T", j.key)
	}
	return cluster.NewKeyring(must(key.ECDH()), must(pki.KeyHash(key.Public())))
}

func memberOf(r *wherryv1.JoinResponse) raftstore.Member {
	return raftstore.Member{ID: r.GetMemberId(), Address: "127.0.0.1:2", Voter: true}
}

// holding reads a state that is in nobody's hands.
type holding struct{ mem *store.Mem }

func (h holding) Snapshot(context.Context, store.At) (*store.Snapshot, error) {
	return h.mem.Snapshot(), nil
}

func TestSealedFromTheBeginning(t *testing.T) {
	b := newBed(t)
	if id := b.sealedBy(caRecord); id != 1 {
		t.Errorf("the CA is sealed by %d", id)
	}
	key := b.secret("a", "value-1")
	if id := b.sealedBy(key); id != 1 {
		t.Errorf("a secret is sealed by %d", id)
	}
	if w := b.wraps(); len(w) != 1 || len(w[1]) != 1 {
		t.Errorf("wrapped to %v", w)
	}
	snap := must(b.store.Snapshot(t.Context(), store.At{}))
	s, err := store.Get[*corev1.Secret](snap, key)
	if err != nil || string(s.Data["k"]) != "value-1" {
		t.Errorf("reads %v, %v", s, err)
	}
}

func TestJoinAndRemovalChangeWhoHasTheKeys(t *testing.T) {
	b := newBed(t)
	key := b.secret("a", "value-1")
	token := b.token(control, 0)
	j := newJoiner(token, control, "c2")
	r, err := b.join(token, j)
	if err != nil {
		t.Fatal(err)
	}
	if w := b.wraps(); len(w[1]) != 2 {
		t.Fatalf("after a join, wrapped to %v", w)
	}
	theirs := keyringOf(t, j)
	if err := theirs.Lacks(); err {
		t.Error("a keyring without a state lacks something")
	}
	theirs.Use(b.store)
	if theirs.Lacks() {
		t.Error("the new member lacks the key")
	}
	raw, _ := must(b.store.Snapshot(t.Context(), store.At{})).Raw().Get(key)
	if open, err := theirs.Open(raw); err != nil || !bytes.Contains(open, []byte("value-1")) {
		t.Errorf("the new member reads %q, %v", open, err)
	}
	// A node is no holder.
	nodes := b.token(node, 0)
	if _, err := b.join(nodes, newJoiner(nodes, node, "n1")); err != nil {
		t.Fatal(err)
	}
	if w := b.wraps(); len(w[1]) != 2 {
		t.Errorf("after a node's join, wrapped to %v", w)
	}

	b.raft.members = append(b.raft.members, memberOf(r))
	if _, err := b.admin().RemoveMember(t.Context(), &wherryv1.RemoveMemberRequest{Id: r.GetMemberId()}); err != nil {
		t.Fatal(err)
	}
	w := b.wraps()
	if len(w) != 2 || len(w[1]) != 1 || len(w[2]) != 1 || w[1][0] != w[2][0] {
		t.Errorf("after the removal, wrapped to %v", w)
	}
	later := b.secret("b", "value-2")
	if id := b.sealedBy(later); id != 2 {
		t.Errorf("after the removal, sealed by %d", id)
	}
	raw, _ = must(b.store.Snapshot(t.Context(), store.At{})).Raw().Get(later)
	if open, err := theirs.Open(raw); !errors.Is(err, seal.ErrNoKey) {
		t.Errorf("the removed member reads %q, %v", open, err)
	}
}

func TestReplacedMemberLosesTheKeys(t *testing.T) {
	b := newBed(t)
	token := b.token(control, 0)
	if _, err := b.join(token, newJoiner(token, control, "c2")); err != nil {
		t.Fatal(err)
	}
	before := b.wraps()[1]
	if _, err := b.join(token, newJoiner(token, control, "c2")); err != nil {
		t.Fatal(err)
	}
	w := b.wraps()
	if len(w) != 2 || len(w[1]) != 2 || len(w[2]) != 2 {
		t.Fatalf("wrapped to %v", w)
	}
	for _, hash := range w[2] {
		if slices.Contains(before, hash) && !slices.Contains(w[1], hash) {
			t.Error("the one that was replaced has the new key")
		}
	}
	if slices.Equal(before, w[1]) {
		t.Error("the one that was replaced keeps its wrapping")
	}
}

func TestRotation(t *testing.T) {
	b := newBed(t)
	key := b.secret("a", "value-1")
	for want := uint32(2); want <= 4; want++ {
		r, err := b.admin().RotateSealingKey(t.Context(), &wherryv1.RotateSealingKeyRequest{})
		if err != nil || r.GetKey() != want {
			t.Fatalf("key %d, %v", r.GetKey(), err)
		}
		b.keep(func() bool {
			return b.sealedBy(key) == want && b.sealedBy(caRecord) == want && len(b.wraps()) == 2
		})
	}
	snap := must(b.store.Snapshot(t.Context(), store.At{}))
	if s, err := store.Get[*corev1.Secret](snap, key); err != nil || string(s.Data["k"]) != "value-1" {
		t.Errorf("reads %v, %v", s, err)
	}
	if _, err := b.as(pki.Request{User: "joe"}).RotateSealingKey(t.Context(), &wherryv1.RotateSealingKeyRequest{}); !errors.Is(err, apierr.ErrForbidden) {
		t.Errorf("joe rotates: %v", err)
	}
}

// TestFromBeforeSealing takes the state of a cluster that has never sealed.
func TestFromBeforeSealing(t *testing.T) {
	b := newBed(t)
	key := b.secret("a", "value-1")
	// Back to how it was written then: open, and without keys.
	snap := must(b.store.Snapshot(t.Context(), store.At{}))
	plain := store.NewLocal(snap.Codec())
	var c store.Command
	for resource := range snap.Resources() {
		if resource == "datakeys.internal.wherry" {
			continue
		}
		for r := range snap.Scan(resource, "", api.Key{}) {
			c.Changes = append(c.Changes, store.Change{Op: store.Put, Key: r.Key, Record: r})
		}
	}
	if _, err := plain.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	var image bytes.Buffer
	if err := plain.Mem().Snapshot().Persist(&image); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(image.Bytes(), []byte("value-1")) {
		t.Fatal("the old state is not open")
	}
	own := must(pki.NewKey())
	b.keyring = keyringOf(t, joiner{key: own})
	old := store.NewLocalSealed(snap.Codec(), b.keyring)
	if err := old.Mem().Restore(&image); err != nil {
		t.Fatal(err)
	}
	b.keyring.Use(old)
	b.store = old
	b.server = cluster.New(cluster.Config{Store: old, Keyring: b.keyring, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if id := b.sealedBy(key); id != 0 {
		t.Fatalf("sealed by %d at first", id)
	}
	b.keep(func() bool { return b.sealedBy(key) == 1 && b.sealedBy(caRecord) == 1 })
	now := must(old.Snapshot(t.Context(), store.At{}))
	if s, err := store.Get[*corev1.Secret](now, key); err != nil || string(s.Data["k"]) != "value-1" {
		t.Errorf("reads %v, %v", s, err)
	}
	if !b.keyring.Lacks() && len(b.wraps()[1]) == 0 {
		t.Error("nobody has the key")
	}
}

func TestBackupStream(t *testing.T) {
	b := newBed(t)
	b.secret("a", "value-1")
	file := filepath.Join(t.TempDir(), "backup")
	m, err := backup.Fetch(t.Context(), b.admin(), file, []byte("word"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := backup.ReadFile(file, []byte("word"), api.NewCodec(kinds.Table(), 0))
	if err != nil || got.Manifest != m || m.Cluster != "test" || m.Version != "v1" {
		t.Fatalf("%+v, %v", m, err)
	}
	keyring := cluster.OpenKeyring(got.Keys)
	got.State.Use(keyring)
	ca, err := cluster.Authority(got.State.Snapshot())
	if err != nil || ca.Hash() != b.ca.Hash() {
		t.Errorf("another CA: %v", err)
	}
	founder := cluster.Founder{Name: "new", Member: "new-1", Key: "hash", Public: must(x509.MarshalPKIXPublicKey(must(pki.NewKey()).Public()))}
	alone, others, err := cluster.Alone(got.State.Snapshot(), keyring, founder)
	if err != nil || !slices.Equal(others, []string{"c1"}) {
		t.Fatalf("%v, %v", others, err)
	}
	if _, err := got.State.Apply(alone); err != nil {
		t.Fatal(err)
	}
	pins := &cluster.Pins{}
	pins.Use(holding{got.State})
	old := b.wraps()[1][0] // the only member's
	if err := pins.Check(pki.Peer{Role: pki.Member, Name: "c1", Key: old}); !errors.Is(err, pki.ErrPinned) || !strings.Contains(err.Error(), "removed") {
		t.Errorf("a member of before passes: %v", err)
	}
	if _, err := backup.Fetch(t.Context(), b.as(pki.Request{User: "joe"}), file+"2", []byte("word")); !errors.Is(err, apierr.ErrForbidden) {
		t.Errorf("joe gets a backup: %v", err)
	}
}

func TestRevivedRevision(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	first, err := cluster.RevivedRevision(1000, now, now.Add(-time.Hour))
	if err != nil || first < uint64(now.Unix())<<20 {
		t.Errorf("%d, %v", first, err)
	}
	// The same backup once more, a second later: above all of the first life.
	second, err := cluster.RevivedRevision(1000, now.Add(time.Second), now.Add(-time.Hour))
	if err != nil || second < first+1<<20 {
		t.Errorf("%d after %d, %v", second, first, err)
	}
	// A backup of a revived cluster.
	third, err := cluster.RevivedRevision(first+5_000_000, now.Add(2*time.Second), now)
	if err != nil || third <= first+5_000_000 {
		t.Errorf("%d after %d, %v", third, first, err)
	}
	if _, err := cluster.RevivedRevision(1000, now.Add(-2*time.Hour), now); err == nil || !strings.Contains(err.Error(), "set the clock first") {
		t.Errorf("with a clock that is behind: %v", err)
	}
}
