package cluster_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/backup"
	"github.com/wherry-project/wherry/internal/cluster"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/store"
)

// said gathers Events.
type said []string

func (s *said) Event(about api.Object, kind, reason, message string) {
	*s = append(*s, about.GetName()+" "+kind+" "+reason+" "+message)
}

func TestReport(t *testing.T) {
	b := newBed(t)
	var events said
	r := &cluster.Report{Store: b.store, Door: b.api.As(api.User{Name: "c1", Groups: []string{pki.MastersGroup}}), Events: &events}
	if s, err := r.Load(t.Context()); err != nil || s != (backup.Status{}) {
		t.Fatalf("at first %+v, %v", s, err)
	}
	first, second := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)
	status := backup.Status{
		Newest: backup.Manifest{Cluster: "test", Revision: 7, Created: first, Objects: 12}, File: "/b/x", Host: "c1",
		Backup: backup.Outcome{Done: first, OK: true, Message: "made"}, Drill: backup.Outcome{Done: first, OK: true, Message: "good"},
	}
	conditions := func() map[string]metav1.Condition {
		t.Helper()
		snap := must(b.store.Snapshot(t.Context(), store.At{}))
		m := must(store.Get[*corev1.ConfigMap](snap, api.Key{Resource: "configmaps", Namespace: "kube-system", Name: "cluster-backup"}))
		var all []metav1.Condition
		if err := json.Unmarshal([]byte(m.Data["conditions"]), &all); err != nil {
			t.Fatal(err)
		}
		if m.Data["newest"] != "/b/x" || m.Data["revision"] != "7" || m.Data["host"] != "c1" || m.Data["made"] != "2030-01-01T00:00:00Z" {
			t.Errorf("data %v", m.Data)
		}
		out := map[string]metav1.Condition{}
		for _, c := range all {
			out[c.Type] = c
		}
		return out
	}
	if err := r.Save(t.Context(), status); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Load(t.Context()); err != nil || got != status {
		t.Errorf("came back as %+v, %v", got, err)
	}
	if c := conditions(); c["BackupSucceeded"].Status != metav1.ConditionTrue || c["RestoreDrillSucceeded"].Status != metav1.ConditionTrue || len(events) != 0 {
		t.Errorf("%+v, events %q", c, events)
	}
	status.Backup.Done, status.Drill = second, backup.Outcome{Done: second, Message: "it is damaged"}
	if err := r.Save(t.Context(), status); err != nil {
		t.Fatal(err)
	}
	c := conditions()
	if d := c["RestoreDrillSucceeded"]; d.Status != metav1.ConditionFalse || !d.LastTransitionTime.Time.Equal(second) || d.Message != "it is damaged" {
		t.Errorf("the drill: %+v", d)
	}
	if m := c["BackupSucceeded"]; m.Status != metav1.ConditionTrue || !m.LastTransitionTime.Time.Equal(first) {
		t.Errorf("the backup: %+v", m)
	}
	if len(events) != 1 || !strings.Contains(events[0], "cluster-backup Warning RestoreDrillFailed it is damaged") {
		t.Errorf("events %q", events)
	}
}

// TestMemberFromBeforeSealingGetsTheKey renews the certificate of a member of
// whom the cluster knows no more than the hash of its key.
func TestMemberFromBeforeSealingGetsTheKey(t *testing.T) {
	b := newBed(t)
	token := b.token(control, 0)
	j := newJoiner(token, control, "c2")
	r, err := b.join(token, j)
	if err != nil {
		t.Fatal(err)
	}
	own := keyringOf(t, j)
	own.Use(b.store)
	// As it was before: neither the key as a whole nor a wrapping.
	snap := must(b.store.Snapshot(t.Context(), store.At{}))
	for _, key := range []api.Key{{Resource: "identities.internal.wherry", Name: "member:c2"}, {Resource: "datakeys.internal.wherry", Name: "cluster"}} {
		rec, ok := snap.Get(key)
		if !ok {
			t.Fatalf("no %s", key)
		}
		var v map[string]any
		if err := json.Unmarshal(rec.Bytes, &v); err != nil {
			t.Fatal(err)
		}
		value := v["value"].(map[string]any)
		delete(value, "public")
		if keys, ok := value["keys"].([]any); ok {
			wraps := keys[0].(map[string]any)["wraps"].(map[string]any)
			delete(wraps, must(pki.KeyHash(j.key.Public())))
		}
		_, err := b.store.Commit(t.Context(), store.Command{Changes: []store.Change{{Op: store.Put, Key: key, Record: &api.Record{Key: key, Bytes: must(json.Marshal(v))}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	late := keyringOf(t, j) // the daemon starts again
	late.Use(b.store)
	if !late.Lacks() {
		t.Fatal("it does not lack the key")
	}
	csr := must(pki.NewCSR(j.key, "c2", nil, nil))
	if _, err := b.with(j.key, r.GetCertificate()).Renew(t.Context(), &wherryv1.RenewRequest{Csr: csr}); err != nil {
		t.Fatal(err)
	}
	if late.Lacks() {
		t.Error("after it has asked, it lacks the key")
	}
}
