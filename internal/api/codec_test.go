package api_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
)

func pods() *api.Kind {
	return &api.Kind{Version: "v1", Kind: "Pod", Resource: "pods", Namespaced: true, New: func() api.Object { return &corev1.Pod{} }}
}

// podRecord is a pod at a revision, with a label.
func podRecord(t testing.TB, k *api.Kind, name, label string, revision uint64) *api.Record {
	t.Helper()
	limit := resource.MustParse("64Mi")
	r, err := k.Record(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name, Labels: map[string]string{"is": label, "app.kubernetes.io/name": "web"}, UID: "1c7a5f1a-7b9d-4d5c-8a57-1f2f0f3b9a10"},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "web", Image: "registry.example/web:1.2.3", Command: []string{"/bin/web", "--port=8080"},
				Env:       []corev1.EnvVar{{Name: "A", Value: "b"}, {Name: "C", Value: "d"}},
				Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": limit}}}},
			Volumes: []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Revision = revision
	return r
}

// A watcher whose selection an object leaves is given its former state under
// the new revision: whoever asks for the present state must not be given that.
func TestCodecTellsContentsApart(t *testing.T) {
	k := pods()
	codec := api.NewCodec(api.NewKinds(k), 1<<20)
	old, now := podRecord(t, k, "p", "old", 7), podRecord(t, k, "p", "new", 7)
	for _, r := range []*api.Record{old, now, old, now} {
		want := "old"
		if r == now {
			want = "new"
		}
		obj, err := codec.Decode(r)
		if err != nil || obj.GetLabels()["is"] != want || obj.GetResourceVersion() != "7" {
			t.Errorf("decoded %v %s, %v, want %s at 7", obj.GetLabels(), obj.GetResourceVersion(), err, want)
		}
	}
}

func TestCodecShares(t *testing.T) {
	k := pods()
	one := podRecord(t, k, "p", "x", 7)
	same := *one
	same.Bytes = append([]byte(nil), one.Bytes...) // as after a trip through Raft
	for _, tt := range []struct {
		name  string
		limit int
		want  bool
	}{{"kept", 1 << 20, true}, {"too large for the cache", 100, false}, {"no cache", 0, false}} {
		codec := api.NewCodec(api.NewKinds(k), tt.limit)
		a, err := codec.Decode(one)
		if err != nil {
			t.Fatal(err)
		}
		b, err := codec.Decode(&same)
		if err != nil {
			t.Fatal(err)
		}
		if (a == b) != tt.want {
			t.Errorf("%s: shared is %v", tt.name, a == b)
		}
	}
	if _, err := api.NewCodec(api.NewKinds(), 1<<20).Decode(one); err == nil {
		t.Error("a kind that is not served was decoded")
	}
	broken := *one
	broken.Bytes = []byte{0xff}
	if _, err := api.NewCodec(api.NewKinds(k), 1<<20).Decode(&broken); err == nil {
		t.Error("bytes that are no message were decoded")
	}
}

// TestCodecCost measures what full caches of pods take of memory.
func TestCodecCost(t *testing.T) {
	const limit = 8 << 20
	k := pods()
	codec := api.NewCodec(api.NewKinds(k), limit)
	records := make([]*api.Record, 6000) // far more than there is room for
	for i := range records {
		records[i] = podRecord(t, k, fmt.Sprintf("p%d", i), "x", uint64(i+1))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, r := range records {
		if _, err := codec.Decode(r); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := float64(after.HeapAlloc) - float64(before.HeapAlloc)
	if used > 1.3*limit || used < 0.6*limit {
		t.Errorf("a cache of %d bytes takes %.0f", limit, used)
	}
	t.Logf("%.1f MiB for a limit of %d MiB, messages of %d bytes", used/(1<<20), limit>>20, len(records[0].Bytes))
	runtime.KeepAlive(codec)
	runtime.KeepAlive(records)
}

// TestCodecIsReadOnly lets many read one decoded object at a time, and encode
// it: under the race detector nothing may write.
func TestCodecIsReadOnly(t *testing.T) {
	k := pods()
	codec := api.NewCodec(api.NewKinds(k), 1<<20)
	r := podRecord(t, k, "p", "x", 7)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			obj, err := codec.Decode(r)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := obj.Marshal(); err != nil {
				t.Error(err)
			}
			if got := obj.(*corev1.Pod).Spec.Volumes[0].EmptyDir.SizeLimit.String(); got != "64Mi" {
				t.Errorf("limit %s", got)
			}
			_ = obj.DeepCopyObject()
		})
	}
	all.Wait()
}
