// Package storetest is the conformance suite of store.Store. Every
// implementation runs it, with as many replicas as it has.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/store"
)

// Open makes a new empty store with the limits given and gives its replicas;
// it cleans up by t.Cleanup.
type Open func(t testing.TB, limits store.Limits) []store.Store

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Open)
	}{
		{"Conditions", testConditions},
		{"AllOrNothing", testAllOrNothing},
		{"CheckTakesNoRevision", testCheckTakesNoRevision},
		{"Refusals", testRefusals},
		{"KeepsNothingOfTheCallers", testKeepsNothing},
		{"ReadYourWrites", testReadYourWrites},
		{"AtLeastWaits", testAtLeastWaits},
		{"ExactlyIsThePast", testExactly},
		{"ExactlyExpires", testExactlyExpires},
		{"Scan", testScan},
		{"Indexes", testIndexes},
		{"Objects", testObjects},
		{"CountersAreExact", testCounters},
		{"WatchFromAnyRevision", testWatchFromAny},
		{"WatchUnderWrites", testWatchUnderWrites},
		{"WatchWakes", testWatchWakes},
		{"WatchFilters", testWatchFilters},
		{"WatchProgress", testWatchProgress},
		{"WatchExpires", testWatchExpires},
		{"WatchStops", testWatchStops},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, open)
		})
	}
}

// Codec decodes pods and config maps.
func Codec() *api.Codec {
	return api.NewCodec(api.NewKinds(
		&api.Kind{Version: "v1", Kind: "Pod", Resource: "pods", Namespaced: true,
			New: func() api.Object { return &corev1.Pod{} }},
		&api.Kind{Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespaced: true,
			New: func() api.Object { return &corev1.ConfigMap{} }},
	), 1<<20)
}

// Key names a config map.
func Key(name string) api.Key {
	return api.Key{Resource: "configmaps", Namespace: "default", Name: name}
}

// Record is a config map that holds a value; its uid is "u-" and the name.
func Record(key api.Key, value string) *api.Record {
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Data:       map[string]string{"value": value},
	}
	b, err := cm.Marshal()
	if err != nil {
		panic(err) // cannot be: the message is ours
	}
	return &api.Record{Key: key, UID: "u-" + key.Name, Bytes: b}
}

// Set is a command that writes a value under a condition.
func Set(key api.Key, value string, cond store.Cond) store.Command {
	return store.Command{Changes: []store.Change{{Op: store.Put, Key: key, If: cond, Record: Record(key, value)}}}
}

// Del is a command that deletes under a condition.
func Del(key api.Key, cond store.Cond) store.Command {
	return store.Command{Changes: []store.Change{{Op: store.Delete, Key: key, If: cond}}}
}

// Value reads what Set wrote: "" if there is nothing.
func Value(s *store.Snapshot, key api.Key) (value string, revision uint64) {
	r, ok := s.Get(key)
	if !ok {
		return "", 0
	}
	return Text(r), r.Revision
}

// Text gives the value of a record that Set wrote.
func Text(r *api.Record) string {
	var cm corev1.ConfigMap
	if err := cm.Unmarshal(r.Bytes); err != nil {
		return "garbled: " + err.Error()
	}
	return cm.Data["value"]
}

// patience bounds everything that a test waits for.
const patience = time.Minute

func timeout(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func commit(t testing.TB, s store.Store, c store.Command) uint64 {
	t.Helper()
	revision, err := s.Commit(timeout(t), c)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return revision
}

func snapshot(t testing.TB, s store.Store, at store.At) *store.Snapshot {
	t.Helper()
	snap, err := s.Snapshot(timeout(t), at)
	if err != nil {
		t.Fatalf("snapshot %+v: %v", at, err)
	}
	return snap
}

func wantKind(t testing.TB, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error %v, want kind %v", err, kind)
	}
}

// collect reads a watch until it has reached a revision.
func collect(t testing.TB, w *store.Watch, until uint64) []string {
	t.Helper()
	ctx := timeout(t)
	var got []string
	for {
		events, upTo, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("watch, after %d events, waiting for revision %d: %v", len(got), until, err)
		}
		for _, e := range events {
			got = append(got, describe(e))
		}
		if upTo >= until {
			return got
		}
	}
}

func describe(e store.Event) string {
	switch {
	case e.New == nil:
		return fmt.Sprintf("%d delete %s %s@%d", e.Revision, e.Key().Name, Text(e.Old), e.Old.Revision)
	case e.Old == nil:
		return fmt.Sprintf("%d create %s %s", e.Revision, e.Key().Name, Text(e.New))
	}
	return fmt.Sprintf("%d update %s %s was %s@%d", e.Revision, e.Key().Name, Text(e.New), Text(e.Old), e.Old.Revision)
}
