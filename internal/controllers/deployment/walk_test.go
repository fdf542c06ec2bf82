package deployment

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// world is a deployment with a ReplicaSet controller that works in small steps,
// as the real one does: it reads a ReplicaSet, makes or deletes pods one by
// one, and then writes the status of what it read.
type world struct {
	t    *testing.T
	rand *rand.Rand
	d    *appsv1.Deployment
	sets []*appsv1.ReplicaSet
	pods map[types.UID]*crowdOf
	uid  int
	// scaled is set when the size changed, until all has followed.
	scaled bool
}

// crowdOf is the pods of one ReplicaSet, and what its worker is about.
type crowdOf struct {
	// fresh pods became available since a size was last obeyed: plans did not
	// know of them, and the worker deletes the youngest first.
	waiting, fresh, available, terminating int
	busy                                   bool
	target                                 int
	generation                             int64
}

func (c *crowdOf) total() int { return c.waiting + c.fresh + c.available }

func (w *world) total() (total, available int) {
	for _, c := range w.pods {
		total, available = total+c.total(), available+c.available
	}
	return total, available
}

// reconcile is one look of the controller, written at once: a compare-and-set.
func (w *world) reconcile() {
	do, err := plan(state{deployment: w.d, sets: w.sets, now: time.Now(), pods: func(rs *appsv1.ReplicaSet) ([]*corev1.Pod, error) {
		c := w.pods[rs.UID]
		return make([]*corev1.Pod, 0, 1)[:min(1, c.total()+c.terminating)], nil
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	if do.create != nil {
		w.uid++
		rs := do.create.DeepCopy()
		rs.UID, rs.Generation = types.UID(fmt.Sprint(w.uid)), 1
		rs.CreationTimestamp = metav1.Now()
		for _, other := range w.sets {
			if other.Name == rs.Name {
				w.t.Fatalf("%s is made twice", rs.Name)
			}
		}
		w.sets = append(w.sets, rs)
		w.pods[rs.UID] = &crowdOf{}
	}
	for _, rs := range do.update {
		for i, was := range w.sets {
			if was.UID == rs.UID {
				if *was.Spec.Replicas != *rs.Spec.Replicas {
					rs.Generation++
				}
				w.sets[i] = rs
			}
		}
	}
	for _, rs := range do.remove {
		for i, was := range w.sets {
			if was.UID == rs.UID {
				if c := w.pods[rs.UID]; c.total() > 0 {
					w.t.Fatalf("%s is removed with %d pods", rs.Name, c.total())
				}
				w.sets = append(w.sets[:i:i], w.sets[i+1:]...)
				delete(w.pods, rs.UID)
				break
			}
		}
	}
	if do.annotations != nil {
		w.d.Annotations = do.annotations
	}
	w.d.Status = do.status
}

// work is one step of a ReplicaSet's worker.
func (w *world) work(i int) {
	rs := w.sets[i].DeepCopy()
	c := w.pods[rs.UID]
	switch {
	case !c.busy:
		c.busy, c.target, c.generation = true, int(*rs.Spec.Replicas), rs.Generation
	case c.total() < c.target:
		c.waiting++
	case c.total() > c.target && c.waiting > 0:
		c.waiting--
		c.terminating++
	case c.total() > c.target && c.fresh > 0:
		c.fresh--
		c.terminating++
	case c.total() > c.target:
		c.available--
		c.terminating++
	default:
		c.busy = false
		ready := int32(c.available + c.fresh)
		if c.generation == rs.Generation {
			c.available, c.fresh = int(ready), 0
		} // else the plan that made the newer size could not know of them
		rs.Status.ObservedGeneration = c.generation
		rs.Status.Replicas, rs.Status.ReadyReplicas, rs.Status.AvailableReplicas = int32(c.total()), ready, ready
		w.sets[i] = rs
	}
}

// live lets one pod move on by itself.
func (w *world) live(i int) {
	switch c := w.pods[w.sets[i].UID]; {
	case c.waiting > 0 && w.rand.IntN(2) == 0:
		c.waiting--
		c.fresh++
	case c.terminating > 0:
		c.terminating--
	}
}

// step does one random thing, and then looks at the promises.
func (w *world) step(scales bool) {
	total, available := w.total()
	surge, unavailable := limits(w.d)
	want := number(w.d.Spec.Replicas)
	what := "nothing"
	switch n := w.rand.IntN(100); {
	case n < 40:
		what = "reconcile"
		w.reconcile()
	case len(w.sets) == 0:
	case n < 75:
		what = "work"
		w.work(w.rand.IntN(len(w.sets)))
	case n < 95:
		what = "live"
		w.live(w.rand.IntN(len(w.sets)))
	case n < 98:
		what = "template"
		w.d.Generation++
		w.d.Spec.Template.Spec.Containers[0].Image = fmt.Sprint("v", w.rand.IntN(4))
	case n < 99:
		what = "pause"
		w.d.Generation++
		w.d.Spec.Paused = !w.d.Spec.Paused
	case scales:
		what = "scale"
		w.d.Generation++
		n := int32(w.rand.IntN(15))
		w.d.Spec.Replicas, w.scaled = &n, true
	}
	nowTotal, nowAvailable := w.total()
	if most := int(want + surge); !w.scaled && nowTotal > max(most, total) {
		w.t.Fatalf("after %s: %d pods, at most %d allowed: %s", what, nowTotal, most, w)
	}
	if least := int(want - unavailable); !w.scaled && nowAvailable < min(least, available) {
		w.t.Fatalf("after %s: %d available, at least %d wanted: %s", what, nowAvailable, least, w)
	}
	time.Sleep(time.Second)
}

func (w *world) String() string {
	text := ""
	for _, rs := range w.sets {
		text += fmt.Sprintf(" [%s %s wants %d (generation %d) status %d/%d (%d) has %+v]", rs.Name, rs.Spec.Template.Spec.Containers[0].Image,
			*rs.Spec.Replicas, rs.Generation, rs.Status.AvailableReplicas, rs.Status.Replicas, rs.Status.ObservedGeneration, *w.pods[rs.UID])
	}
	return text
}

// finish lets all work be done, and looks whether the rollout completes.
func (w *world) finish() {
	w.d.Generation++
	w.d.Spec.Paused = false
	p := &planner{d: w.d}
	for n := 0; n < 3 || n < 200 && !p.complete(&w.d.Status); n++ {
		w.reconcile()
		for i := range w.sets {
			c := w.pods[w.sets[i].UID]
			for again := true; again; again = c.busy {
				w.live(i)
				w.work(i)
			}
		}
	}
	w.reconcile()
	if !p.complete(&w.d.Status) {
		w.t.Fatalf("does not complete: %+v %s", w.d.Status, w)
	}
	if c := progressing(&w.d.Status); c == nil || c.Reason != reasonDone {
		w.t.Fatalf("complete, and Progressing is %+v", c)
	}
	if n := len(w.sets); n > 1+int(*w.d.Spec.RevisionHistoryLimit) {
		w.t.Fatalf("%d ReplicaSets are kept", n)
	}
	w.scaled = false
}

// TestWalk lets a deployment be changed at random moments, with the ReplicaSet
// controller at any point of its work: the bounds of the strategy hold at every
// step, and when the changes end every rollout completes.
func TestWalk(t *testing.T) {
	for _, tt := range []struct {
		replicas           int32
		surge, unavailable string
		scales             bool
	}{
		{10, "25%", "25%", false}, {1, "25%", "25%", false}, {4, "0", "1", false}, {5, "5", "0", false}, {10, "25%", "25%", true}, {7, "1", "50%", true},
	} {
		t.Run(fmt.Sprintf("%d pods, %s, %s, %v", tt.replicas, tt.surge, tt.unavailable, tt.scales), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for seed := range uint64(8) {
					w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), d: deploy(tt.replicas, tt.surge, tt.unavailable, "v0"), pods: map[types.UID]*crowdOf{}}
					for range 3 {
						for range 400 {
							w.step(tt.scales)
						}
						w.finish()
					}
				}
			})
		})
	}
}
