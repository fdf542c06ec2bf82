package podgc

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// diary notes what is written.
type diary struct {
	reconcile.Writer
	lines []string
}

func (d *diary) UpdateStatus(_ context.Context, obj api.Object) (api.Object, error) {
	p := obj.(*corev1.Pod)
	d.lines = append(d.lines, fmt.Sprintf("%s is %s %s", p.Name, p.Status.Phase, p.Status.Conditions[0].Reason))
	return obj, nil
}

func (d *diary) Delete(_ context.Context, key api.Key, o metav1.DeleteOptions) error {
	d.lines = append(d.lines, fmt.Sprintf("delete %s %d %s", key.Name, *o.GracePeriodSeconds, *o.Preconditions.UID))
	return nil
}

func TestReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := kinds.Table()
		st := store.NewLocal(api.NewCodec(all, 1<<20))
		put := func(obj api.Object) {
			t.Helper()
			k, _ := all.Of(obj)
			r, err := k.Record(obj)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := st.Commit(t.Context(), store.Command{Changes: []store.Change{{Op: store.Put, Key: r.Key, Record: r}}}); err != nil {
				t.Fatal(err)
			}
		}
		pod := func(name, node string, phase corev1.PodPhase) *corev1.Pod {
			return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("u-" + name)}, Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase}}
		}
		put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
		put(pod("here", "n1", corev1.PodRunning))
		put(pod("waits", "", corev1.PodPending))
		put(pod("lost", "n2", corev1.PodRunning))
		put(pod("lost-done", "n2", corev1.PodSucceeded))
		ending := pod("ending", "", corev1.PodPending)
		ending.DeletionTimestamp, ending.Finalizers = &metav1.Time{Time: time.Now()}, []string{"example.com/f"}
		put(ending)

		d := &diary{}
		c := New(d)
		look := func(want ...string) {
			t.Helper()
			d.lines = nil
			if _, err := c.Reconcile(t.Context(), st.Mem().Snapshot(), reconcile.Key{}); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(d.lines, "; "); got != strings.Join(want, "; ") {
				t.Errorf("%s; want %s", got, strings.Join(want, "; "))
			}
		}
		look("delete ending 0 u-ending")
		time.Sleep(quarantine - time.Second)
		look("delete ending 0 u-ending")
		time.Sleep(time.Second)
		look("delete ending 0 u-ending", "lost is Failed DeletionByPodGC", "delete lost 0 u-lost", "delete lost-done 0 u-lost-done")
		put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}})
		look("delete ending 0 u-ending")
	})
}

func TestOldest(t *testing.T) {
	var list []*corev1.Pod
	for i := range keepFinished + 2 {
		list = append(list, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), CreationTimestamp: metav1.Time{Time: time.Unix(int64(keepFinished+5-i), 0)}}})
	}
	if got := oldest(list); len(got) != 2 || got[0].Name != fmt.Sprint(keepFinished+1) {
		t.Errorf("%d pods, first %v", len(got), got)
	}
	if oldest(list[:10]) != nil {
		t.Error("few finished pods are removed")
	}
}
