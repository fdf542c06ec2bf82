package store_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/kinds/core"
	"github.com/wherry-project/wherry/internal/seal"
	"github.com/wherry-project/wherry/internal/store"
)

// oneKey seals with a key that it may lose.
type oneKey struct {
	key  seal.Key
	lost bool
}

func (o *oneKey) Seal(r *api.Record) ([]byte, error) {
	if !seal.Covers(r.Resource) {
		return r.Bytes, nil
	}
	return o.key.Seal(r.String(), r.Bytes)
}

func (o *oneKey) Open(r *api.Record) ([]byte, error) {
	if o.lost {
		return nil, seal.ErrNoKey
	}
	return o.key.Open(r.String(), r.Bytes)
}

const hidden = "hidden-value"

func sealedRecord(t *testing.T, name, value string) *api.Record {
	t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, StringData: nil, Data: map[string][]byte{"k": []byte(value)}}
	b, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	key := api.Key{Resource: "secrets", Namespace: "ns", Name: name}
	return &api.Record{Key: key, UID: name, Bytes: b, Index: api.Index{Owners: []string{"owner"}, Fields: map[string]string{"type": "Opaque"}}}
}

func put(t *testing.T, s store.Store, r *api.Record) uint64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), store.Command{Changes: []store.Change{{Op: store.Put, Key: r.Key, Record: r}}})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func isOpen(t *testing.T, how string, r *api.Record) {
	t.Helper()
	if r == nil || !bytes.Contains(r.Bytes, []byte(hidden)) {
		t.Errorf("%s gives a record that is not open: %v", how, r)
	}
}

func TestSealed(t *testing.T) {
	key, err := seal.NewKey(1)
	if err != nil {
		t.Fatal(err)
	}
	sealer := &oneKey{key: key}
	codec := api.NewCodec(api.NewKinds(core.Secret()), 1<<20)
	s := store.NewLocalSealed(codec, sealer)
	w, err := s.Watch(t.Context(), store.Filter{Resource: "secrets"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := sealedRecord(t, "a", hidden+"-1")
	before := bytes.Clone(r.Bytes)
	first := put(t, s, r)
	if !bytes.Equal(before, r.Bytes) {
		t.Error("the caller's record was changed")
	}
	put(t, s, sealedRecord(t, "a", hidden+"-2"))

	snap, err := s.Snapshot(t.Context(), store.At{})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := snap.Get(r.Key)
	isOpen(t, "Get", got)
	for one := range snap.Scan("secrets", "", api.Key{}) {
		isOpen(t, "Scan", one)
		if one != got {
			t.Error("readers do not share what was opened")
		}
	}
	for one := range snap.OwnedBy("owner", "") {
		isOpen(t, "OwnedBy", one)
	}
	for one := range snap.ByField("secrets", "type", "Opaque") {
		isOpen(t, "ByField", one)
	}
	secret, err := store.Get[*corev1.Secret](snap, r.Key)
	if err != nil || string(secret.Data["k"]) != hidden+"-2" {
		t.Errorf("decoded to %v, %v", secret, err)
	}
	old, err := s.Snapshot(t.Context(), store.At{Level: store.Exactly, Revision: first})
	if err != nil {
		t.Fatal(err)
	}
	was, _ := old.Get(r.Key)
	isOpen(t, "a former revision", was)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	events, _, err := w.Next(ctx)
	if err != nil || len(events) != 2 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	isOpen(t, "Watch", events[0].New)
	isOpen(t, "Watch", events[1].New)
	isOpen(t, "Watch, before", events[1].Old)

	raw, _ := snap.Raw().Get(r.Key)
	if !seal.Is(raw.Bytes) {
		t.Error("Raw gives an open record")
	}
	for name, persist := range map[string]func(*bytes.Buffer) error{
		"snapshot": func(b *bytes.Buffer) error { return snap.Persist(b) },
		"image":    func(b *bytes.Buffer) error { return s.Mem().Image().Persist(b) },
	} {
		var b bytes.Buffer
		if err := persist(&b); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b.Bytes(), []byte(hidden)) {
			t.Errorf("the secret is in the %s", name)
		}
		m := store.NewMem(codec, store.Limits{})
		m.Use(sealer)
		if err := m.Restore(&b); err != nil {
			t.Fatal(err)
		}
		back, _ := m.Snapshot().Get(r.Key)
		isOpen(t, "restored "+name, back)
	}

	sealer.lost = true
	late := store.NewMem(api.NewCodec(api.NewKinds(core.Secret()), 0), store.Limits{})
	late.Use(sealer)
	var b bytes.Buffer
	if err := snap.Persist(&b); err != nil {
		t.Fatal(err)
	}
	if err := late.Restore(&b); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get[*corev1.Secret](late.Snapshot(), r.Key); !errors.Is(err, apierr.ErrUnavailable) || !strings.Contains(err.Error(), "sealed") {
		t.Errorf("without the key: %v", err)
	}
}

func TestJump(t *testing.T) {
	s := store.NewLocal(api.NewCodec(api.NewKinds(core.Secret()), 0))
	for range 3 {
		put(t, s, sealedRecord(t, "a", "x"))
	}
	w, err := s.Watch(t.Context(), store.Filter{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	s.Mem().Jump(1000)
	if rev := s.Mem().Revision(); rev != 1000 {
		t.Errorf("at revision %d", rev)
	}
	s.Mem().Jump(10) // never back
	if rev := s.Mem().Revision(); rev != 1000 {
		t.Errorf("went back to revision %d", rev)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, _, err := w.Next(ctx); !errors.Is(err, apierr.ErrExpired) {
		t.Errorf("a watch from before: %v", err)
	}
	if _, err := s.Watch(t.Context(), store.Filter{}, 500); !errors.Is(err, apierr.ErrExpired) {
		t.Errorf("a watch from what never was: %v", err)
	}
	if rev := put(t, s, sealedRecord(t, "a", "y")); rev != 1001 {
		t.Errorf("the next revision is %d", rev)
	}
}
