package apiserver_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

// watcher reads a watch as text: "ADDED a=v", "BOOKMARK", "BOOKMARK end".
type watcher struct {
	c  *cluster
	st api.Stream
}

func (c *cluster) watch(at api.Target, o api.WatchOptions) *watcher {
	c.t.Helper()
	st, err := c.api.Watch(c.t.Context(), admin, at, o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(st.Stop)
	return &watcher{c, st}
}

func (w *watcher) text(e api.WatchEvent) string {
	if e.Type == api.Bookmark {
		if e.InitialEnd {
			return "BOOKMARK end"
		}
		return "BOOKMARK"
	}
	obj, err := w.c.codec.Decode(e.Record)
	if err != nil {
		w.c.t.Error(err)
		return ""
	}
	if e.Record.Revision != e.Revision {
		w.c.t.Errorf("%s of %d holds revision %d", e.Type, e.Revision, e.Record.Revision)
	}
	value := ""
	if m, ok := obj.(*corev1.ConfigMap); ok {
		value = "=" + m.Data["k"]
	}
	return string(e.Type) + " " + obj.GetName() + value
}

// next gives n events, or what there is when nothing comes any more.
func (w *watcher) next(n int) string {
	w.c.t.Helper()
	ctx, cancel := context.WithTimeout(w.c.t.Context(), 30*time.Second)
	defer cancel()
	var out []string
	for len(out) < n {
		events, err := w.st.Next(ctx)
		if err != nil {
			w.c.t.Errorf("after %q: %v", out, err)
			break
		}
		for _, e := range events {
			out = append(out, w.text(e))
		}
	}
	return strings.Join(out, ", ")
}

// quiet checks that nothing is there to read.
func (w *watcher) quiet() {
	w.c.t.Helper()
	ctx, cancel := context.WithTimeout(w.c.t.Context(), 30*time.Millisecond)
	defer cancel()
	events, err := w.st.Next(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		w.c.t.Errorf("there is %+v, %v", events, err)
	}
}

func (c *cluster) put(name, label, value string) {
	c.t.Helper()
	text := fmt.Sprintf(`{metadata: {name: %s, labels: {is: "%s"}}, data: {k: "%s"}}`, name, label, value)
	if _, err := c.get("configmaps", "demo", name); err == nil {
		obj := c.read("configmaps", text)
		obj.SetNamespace("demo")
		c.must(c.update("configmaps", obj, ""))
		return
	}
	c.must(c.create("configmaps", "demo", text))
}

func TestWatchTranslates(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		at := c.at("configmaps", "demo", "", "")
		watchers := map[string]*watcher{
			"all":     c.watch(at, api.WatchOptions{}),
			"new":     c.watch(at, api.WatchOptions{Selection: selects("is=new", "")}),
			"old":     c.watch(at, api.WatchOptions{Selection: selects("is=old", "")}),
			"one":     c.watch(at, api.WatchOptions{Selection: selects("", "metadata.name=a")}),
			"named":   c.watch(c.at("configmaps", "demo", "a", ""), api.WatchOptions{}),
			"not a":   c.watch(at, api.WatchOptions{Selection: selects("", "metadata.name!=a")}),
			"default": c.watch(c.at("configmaps", "default", "", ""), api.WatchOptions{}),
			"cluster": c.watch(c.at("configmaps", "", "", ""), api.WatchOptions{}),
			"pods":    c.watch(c.at("pods", "", "", ""), api.WatchOptions{}),
		}
		c.put("a", "old", "1")
		c.put("a", "old", "2")
		c.put("a", "new", "3") // leaves old, enters new
		c.put("b", "new", "1")
		c.put("a", "new", "4")
		if _, err := c.delete("configmaps", "demo", "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		whole := "ADDED a=1, MODIFIED a=2, MODIFIED a=3, ADDED b=1, MODIFIED a=4, DELETED a=4"
		for name, want := range map[string]string{
			"all": whole, "cluster": whole,
			"new":     "ADDED a=3, ADDED b=1, MODIFIED a=4, DELETED a=4",
			"old":     "ADDED a=1, MODIFIED a=2, DELETED a=2",
			"one":     "ADDED a=1, MODIFIED a=2, MODIFIED a=3, MODIFIED a=4, DELETED a=4",
			"named":   "ADDED a=1, MODIFIED a=2, MODIFIED a=3, MODIFIED a=4, DELETED a=4",
			"not a":   "ADDED b=1",
			"default": "", "pods": "",
		} {
			n := 0
			if want != "" {
				n = strings.Count(want, ",") + 1
			}
			if got := watchers[name].next(n); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
			watchers[name].quiet()
		}
		// The one that left was told at the revision of the change, and nobody
		// else is given that former state for it.
		obj, err := c.get("configmaps", "demo", "b")
		if err != nil || obj.GetLabels()["is"] != "new" {
			t.Errorf("b is %+v, %v", obj, err)
		}
	})
}

// TestLeavingDoesNotSpoilReads reads an object right after watchers were told
// that it left their selection.
func TestLeavingDoesNotSpoilReads(t *testing.T) {
	c := local(t)
	w := c.watch(c.at("configmaps", "demo", "", ""), api.WatchOptions{Selection: selects("is=old", "")})
	c.put("a", "old", "1")
	c.put("a", "new", "2")
	if got := w.next(2); got != "ADDED a=1, DELETED a=1" {
		t.Error(got)
	}
	obj, err := c.get("configmaps", "demo", "a")
	if err != nil || obj.(*corev1.ConfigMap).Data["k"] != "2" {
		t.Errorf("read %+v, %v", obj, err)
	}
	snap := c.snapshot()
	stored, err := store.Get[*corev1.ConfigMap](snap, api.Key{Resource: "configmaps", Namespace: "demo", Name: "a"})
	if err != nil || stored.Data["k"] != "2" {
		t.Errorf("controllers read %+v, %v", stored, err)
	}
}

func TestWatchBegins(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		at := c.at("configmaps", "demo", "", "")
		c.put("a", "x", "1")
		first := strconv.FormatUint(c.snapshot().Revision(), 10)
		c.put("b", "y", "1")
		yes, no := true, false
		const notOlder = metav1.ResourceVersionMatchNotOlderThan
		for _, tt := range []struct {
			name string
			o    api.WatchOptions
			want string
		}{
			{"unset", api.WatchOptions{}, "ADDED a=1, ADDED b=1"},
			{"any", api.WatchOptions{ResourceVersion: "0"}, "ADDED a=1, ADDED b=1"},
			{"after a", api.WatchOptions{ResourceVersion: first}, "ADDED b=1"},
			{"selected", api.WatchOptions{Selection: selects("is=y", "")}, "ADDED b=1"},
			{"list first", api.WatchOptions{SendInitialEvents: &yes, ResourceVersionMatch: notOlder, Bookmarks: true}, "ADDED a=1, ADDED b=1, BOOKMARK end"},
			{"list first, selected", api.WatchOptions{Selection: selects("is=x", ""), SendInitialEvents: &yes, ResourceVersionMatch: notOlder, Bookmarks: true}, "ADDED a=1, BOOKMARK end"},
			{"list first, at a revision", api.WatchOptions{ResourceVersion: first, SendInitialEvents: &yes, ResourceVersionMatch: notOlder, Bookmarks: true}, "ADDED a=1, ADDED b=1, BOOKMARK end"},
			{"list first, without bookmarks", api.WatchOptions{SendInitialEvents: &yes, ResourceVersionMatch: notOlder}, "ADDED a=1, ADDED b=1"},
			{"no list", api.WatchOptions{SendInitialEvents: &no, ResourceVersionMatch: notOlder}, ""},
			{"no list, any", api.WatchOptions{ResourceVersion: "0", SendInitialEvents: &no, ResourceVersionMatch: notOlder}, ""},
			{"no list, after a", api.WatchOptions{ResourceVersion: first, SendInitialEvents: &no, ResourceVersionMatch: notOlder}, "ADDED b=1"},
		} {
			w := c.watch(at, tt.o)
			n := 0
			if tt.want != "" {
				n = strings.Count(tt.want, ",") + 1
			}
			if got := w.next(n); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
			}
			w.quiet()
		}
		for _, tt := range []struct {
			name string
			at   api.Target
			user api.User
			o    api.WatchOptions
			kind error
			text string
		}{
			{"not allowed", at, jane, api.WatchOptions{}, apierr.ErrForbidden, `configmaps is forbidden: User "jane" cannot watch`},
			{"bad revision", at, admin, api.WatchOptions{ResourceVersion: "x"}, apierr.ErrBadRequest, `invalid resource version "x"`},
			{"bad field", at, admin, api.WatchOptions{Selection: selects("", "spec.x=y")}, apierr.ErrBadRequest, `"spec.x" is not a known field selector`},
			{"match", at, admin, api.WatchOptions{ResourceVersionMatch: notOlder}, apierr.ErrInvalid, `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided`},
			{"initial without match", at, admin, api.WatchOptions{SendInitialEvents: &yes}, apierr.ErrInvalid, `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan`},
			{"unknown", c.at("nothings", "", "", ""), admin, api.WatchOptions{}, apierr.ErrNotFound, ""},
		} {
			_, err := c.api.Watch(t.Context(), tt.user, tt.at, tt.o)
			wants(t, err, tt.kind, tt.text)
		}
	})
}

// TestInitialEventsAreWhole begins a watch on more than any page holds.
func TestInitialEventsAreWhole(t *testing.T) {
	codec := api.NewCodec(kinds.Table(), 0)
	c := open(t, codec, store.NewLocal(codec), apiserver.Config{})
	value := strings.Repeat("x", 1<<20)
	const n = 70 // MiB
	for i := range n {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m%d", i)}, Data: map[string]string{"k": value}}
		c.must(c.api.Create(t.Context(), admin, c.at("configmaps", "demo", "", ""), m, api.WriteOptions{}))
	}
	at := c.at("configmaps", "demo", "", "")
	events, err := c.watch(at, api.WatchOptions{}).st.Next(t.Context())
	if err != nil || len(events) != n {
		t.Errorf("%d initial events, %v", len(events), err)
	}
	p, err := c.api.List(t.Context(), admin, at, api.ListOptions{})
	if err != nil || len(p.Records) != n || p.Continue != "" {
		t.Errorf("a list without limit has %d, goes on at %q, %v", len(p.Records), p.Continue, err)
	}
}

func TestBookmarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := local(t)
		at := c.at("configmaps", "demo", "", "")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		st, err := c.api.Watch(ctx, admin, at, api.WatchOptions{Bookmarks: true, ResourceVersion: strconv.FormatUint(c.snapshot().Revision(), 10)})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Stop()
		start := time.Now()
		var got []string
		var marks []uint64
		done := make(chan error)
		go func() {
			w := watcher{c, st}
			for {
				events, err := st.Next(ctx)
				if err != nil {
					done <- err
					return
				}
				for _, e := range events {
					got = append(got, fmt.Sprintf("%s at %s", w.text(e), time.Since(start).Round(time.Second)))
					if e.Type == api.Bookmark {
						marks = append(marks, e.Revision)
					}
				}
			}
		}()
		other := func() { c.must(c.create("secrets", "demo", `metadata: {generateName: s-}`)) }
		time.Sleep(90 * time.Second)
		other() // of no interest, but the revision goes on
		time.Sleep(95 * time.Second)
		synctest.Wait()
		between := c.snapshot().Revision()
		c.put("a", "x", "1")
		time.Sleep(6 * time.Minute)
		other()
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the watch ended with %v", err)
		}
		want := "BOOKMARK at 1m0s, BOOKMARK at 2m0s, ADDED a=1 at 3m5s, BOOKMARK at 4m0s, BOOKMARK at 9m58s"
		if text := strings.Join(got, ", "); !strings.HasPrefix(text, "BOOKMARK at 1m0s, ") || text != want {
			t.Errorf("told %s, want %s", text, want)
		}
		for i := 1; i < len(marks); i++ {
			if marks[i] <= marks[i-1] {
				t.Errorf("bookmarks at %v", marks)
			}
		}
		if len(marks) == 4 && (marks[1] != between || marks[3] != c.snapshot().Revision()) {
			t.Errorf("bookmarks at %v, want %d second and %d last", marks, between, c.snapshot().Revision())
		}
	})
}

// TestWatchExactlyOnce lets many write while watchers begin at various times
// and with various selections: what each sees, put together, is what there is,
// and every change is seen once and in order.
func TestWatchExactlyOnce(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		const writers, writes, objects = 6, 120, 10
		at := c.at("configmaps", "demo", "", "")
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		var writing, reading sync.WaitGroup
		finished := make(chan struct{})
		for w := range writers {
			writing.Go(func() {
				rng := rand.New(rand.NewPCG(7, uint64(w)))
				for i := range writes {
					name := fmt.Sprintf("m%d", rng.IntN(objects))
					if err := c.churn(ctx, rng, name, fmt.Sprintf("%d-%d", w, i)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for i := range 8 {
			label := []string{"", "is=odd", "is=even"}[i%3]
			reading.Go(func() {
				if i > 3 {
					time.Sleep(time.Duration(i) * 5 * time.Millisecond) // begins in the midst of it
				}
				if err := c.follow(ctx, at, label, finished); err != nil {
					t.Errorf("watcher %d of %q: %v", i, label, err)
				}
			})
		}
		writing.Wait()
		close(finished)
		reading.Wait()
	})
}

// churn creates, changes or deletes an object; losing a race is no failure.
func (c *cluster) churn(ctx context.Context, rng *rand.Rand, name, value string) error {
	at := api.Target{Version: "v1", Resource: "configmaps", Namespace: "demo"}
	label := []string{"odd", "even"}[rng.IntN(2)]
	var err error
	switch one := at; rng.IntN(4) {
	case 0:
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"is": label}}, Data: map[string]string{"k": value}}
		_, err = c.api.Create(ctx, admin, at, m, api.WriteOptions{})
	case 1:
		one.Name = name
		_, err = c.api.Delete(ctx, admin, one, metav1.DeleteOptions{})
	default:
		one.Name = name
		patch := fmt.Sprintf(`{"metadata":{"labels":{"is":%q}},"data":{"k":%q}}`, label, value)
		_, err = c.api.Patch(ctx, admin, one, types.MergePatchType, []byte(patch), api.WriteOptions{})
	}
	if errors.Is(err, apierr.ErrNotFound) || errors.Is(err, apierr.ErrAlreadyExists) {
		return nil
	}
	return err
}

// follow watches until the writers have finished, and then compares what it
// has seen with a list.
func (c *cluster) follow(ctx context.Context, at api.Target, label string, finished <-chan struct{}) error {
	st, err := c.api.Watch(ctx, admin, at, api.WatchOptions{Selection: selects(label, "")})
	if err != nil {
		return err
	}
	defer st.Stop()
	type seen struct {
		revision uint64
		value    string
	}
	have := map[string]seen{}
	last, initial := uint64(0), true
	for {
		over := false // before the look: what is written until then is seen by it
		select {
		case <-finished:
			over = true
		default:
		}
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		events, err := st.Next(short)
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			if !over {
				continue
			}
			p, err := c.api.List(ctx, admin, at, api.ListOptions{Selection: selects(label, "")})
			if err != nil {
				return err
			}
			if len(p.Records) != len(have) {
				return fmt.Errorf("%d objects, the list has %d", len(have), len(p.Records))
			}
			for _, r := range p.Records {
				obj, err := c.codec.Decode(r)
				if err != nil {
					return err
				}
				if got, want := have[r.Name], (seen{r.Revision, obj.(*corev1.ConfigMap).Data["k"]}); got != want {
					return fmt.Errorf("%s is %v, want %v", r.Name, got, want)
				}
			}
			return nil
		case err != nil:
			return err
		}
		for _, e := range events {
			obj, err := c.codec.Decode(e.Record)
			if err != nil {
				return err
			}
			if !initial && e.Revision <= last {
				return fmt.Errorf("revision %d after %d", e.Revision, last)
			}
			last = max(last, e.Revision)
			was, known := have[e.Record.Name]
			if known == (e.Type == api.Added) {
				return fmt.Errorf("%s of %s, known %v", e.Type, e.Record.Name, known)
			}
			value := obj.(*corev1.ConfigMap).Data["k"]
			if e.Type == api.Deleted {
				if value != was.value {
					return fmt.Errorf("%s was %s and is deleted as %s", e.Record.Name, was.value, value)
				}
				delete(have, e.Record.Name)
				continue
			}
			have[e.Record.Name] = seen{e.Revision, value}
		}
		initial = false
	}
}
