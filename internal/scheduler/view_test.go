package scheduler

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

// A view that followed every change is the view of the last snapshot.
func TestViewFollows(t *testing.T) {
	codec := api.NewCodec(kinds.Table(), 1<<20)
	st := store.NewLocal(codec)
	r := rand.New(rand.NewPCG(1, 2))
	v := NewView()
	for step := range 3000 {
		w, err := st.Watch(t.Context(), store.Filter{}, st.Mem().Revision())
		if err != nil {
			t.Fatal(err)
		}
		before := st.Mem().Revision()
		randomChange(t, st, codec.Kinds(), r)
		if st.Mem().Revision() == before {
			w.Stop()
			continue
		}
		events, _, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if _, err := v.Apply(codec, e); err != nil {
				t.Fatal(err)
			}
		}
		w.Stop()
		if step%50 != 0 {
			continue
		}
		fresh, err := ViewOf(st.Mem().Snapshot())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := tell(v), tell(fresh); got != want {
			t.Fatalf("after %d changes\n%s\nwant\n%s", step, got, want)
		}
	}
}

// randomChange writes or deletes a node or a pod.
func randomChange(t *testing.T, st *store.Local, all *api.Kinds, r *rand.Rand) {
	t.Helper()
	var obj api.Object
	if name := fmt.Sprintf("n%d", r.IntN(4)); r.IntN(6) == 0 {
		obj = node(t, name, fmt.Sprintf(`{metadata: {uid: %s, labels: {zone: z%d}}, status: {allocatable: {cpu: %d, pods: 10}}}`, name, r.IntN(2), 1+r.IntN(8)))
	} else {
		text := fmt.Sprintf(`{metadata: {labels: {v: "%d"}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: r%d, controller: true}]}, spec: {containers: [{name: c, image: i, resources: {requests: {cpu: %dm, example.com/x: 1}}}]}}`, r.IntN(2), r.IntN(2), r.IntN(1000))
		if r.IntN(4) == 0 {
			text = `{spec: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {v: "1"}}}]}}}}`
		}
		p := pod(t, fmt.Sprintf("p%d", r.IntN(12)), text)
		if r.IntN(5) > 0 {
			p.Spec.NodeName = name
		}
		p.Status.Phase = []corev1.PodPhase{"Pending", "Running", "Running", "Succeeded"}[r.IntN(4)]
		obj = p
	}
	k, _ := all.Of(obj)
	rec, err := k.Record(obj)
	if err != nil {
		t.Fatal(err)
	}
	c := store.Change{Op: store.Put, Key: rec.Key, Record: rec}
	old, there := st.Mem().Snapshot().Get(rec.Key)
	switch {
	case there && r.IntN(4) == 0:
		c = store.Change{Op: store.Delete, Key: rec.Key}
	case there && rec.Resource == "pods":
		// A pod keeps its spec, and a node once it has one; another may take
		// its name.
		o, e := st.Mem().Snapshot().Codec().Decode(old)
		if e != nil {
			t.Fatal(e)
		}
		next := o.DeepCopyObject().(*corev1.Pod)
		next.ResourceVersion = ""
		next.Labels, next.Status.Phase = obj.GetLabels(), obj.(*corev1.Pod).Status.Phase
		if next.Spec.NodeName == "" {
			next.Spec.NodeName = obj.(*corev1.Pod).Spec.NodeName
		}
		if r.IntN(6) == 0 {
			next = obj.(*corev1.Pod)
			next.UID = types.UID(fmt.Sprintf("%s-%d", next.UID, st.Mem().Revision()))
		}
		if c.Record, e = k.Record(next); e != nil {
			t.Fatal(e)
		}
	}
	if _, err := st.Commit(context.Background(), store.Command{Changes: []store.Change{c}}); err != nil {
		t.Fatal(err)
	}
}

// tell writes all that decisions rest on.
func tell(v *View) string {
	var out []string
	for name, n := range v.nodes {
		var pods []string
		for _, p := range n.pods {
			pods = append(pods, fmt.Sprintf("%s %v %v", p.uid, p.labels, len(p.terms)))
		}
		slices.Sort(pods)
		used := n.used
		for k, x := range used.other {
			if x == 0 {
				delete(used.other, k)
			}
		}
		if len(used.other) == 0 {
			used.other = nil
		}
		out = append(out, fmt.Sprintf("%s exists %v has %v used %v weigh %d/%d pods %v owners %v", name, n.node != nil, n.has, used, n.weigh.cpu, n.weigh.memory, pods, n.owners))
	}
	slices.Sort(out)
	var order []string
	for _, n := range v.order {
		order = append(order, n.name)
	}
	var ruled []string
	for uid := range v.ruled {
		ruled = append(ruled, uid)
	}
	slices.Sort(ruled)
	return strings.Join(out, "\n") + fmt.Sprint("\n", order, ruled, len(v.pods))
}

func TestQueue(t *testing.T) {
	q := newQueue()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	if q.take(start) != nil {
		t.Error("an empty queue gives something")
	}
	rec := func(uid string) *api.Record { return &api.Record{UID: uid} }
	q.put(rec("a"), 0, false, start)
	q.put(rec("b"), 0, false, start)
	q.put(rec("urgent"), 10, false, start)
	var got []string
	var taken []*waiting
	for w := q.take(start); w != nil; w = q.take(start) {
		got, taken = append(got, w.record.UID), append(taken, w)
	}
	if strings.Join(got, " ") != "urgent a b" {
		t.Errorf("order is %v", got)
	}
	for _, w := range taken {
		q.move(w, parked, start)
	}
	taken[0].neighbourly = true
	q.helped(helpsNeighbours, start)
	if taken[0].state != paused || taken[1].state != parked {
		t.Errorf("states are %v %v", taken[0].state, taken[1].state)
	}
	if next := q.due(start); next.Sub(start) != firstPause {
		t.Errorf("looks again after %v", next.Sub(start))
	}
	q.due(start.Add(firstPause))
	if w := q.take(start.Add(firstPause)); w != taken[0] || w.over().Sub(start) != 3*firstPause {
		t.Errorf("took %v", w)
	}
	q.due(start.Add(flushAfter))
	if q.take(start) == nil || q.take(start) == nil {
		t.Error("nothing is tried again after a while")
	}
	q.drop("a")
	q.drop("nobody")
	if len(q.pods) != 2 || q.idle != 0 {
		t.Errorf("%d pods, %d idle", len(q.pods), q.idle)
	}
}
