package apiserver_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

func names(p *api.Page) []string {
	out := []string{}
	for _, r := range p.Records {
		out = append(out, r.Namespace+"/"+r.Name)
	}
	return out
}

func selects(label, field string) api.Selection {
	var s api.Selection
	if label != "" {
		s.Labels = labels.NewSelector()
		parsed, err := labels.Parse(label)
		if err != nil {
			panic(err)
		}
		s.Labels = parsed
	}
	if field != "" {
		s.Fields = fields.ParseSelectorOrDie(field)
	}
	return s
}

func TestGet(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		m := c.must(c.create("configmaps", "demo", `{metadata: {name: a}, data: {k: v}}`))
		at := c.at("configmaps", "demo", "a", "")
		for _, rv := range []string{"", "0", "1", m.GetResourceVersion()} {
			v, err := c.api.Get(t.Context(), admin, at, api.GetOptions{ResourceVersion: rv})
			if err != nil || v.Record.ResourceVersion() != m.GetResourceVersion() {
				t.Errorf("at %q: %+v, %v", rv, v, err)
			}
		}
		tests := []struct {
			at   api.Target
			rv   string
			user api.User
			kind error
			text string
		}{
			{at, "x", admin, apierr.ErrBadRequest, `invalid resource version "x"`},
			{at, "-1", admin, apierr.ErrBadRequest, `invalid resource version "-1"`},
			{c.at("configmaps", "demo", "b", ""), "", admin, apierr.ErrNotFound, `configmaps "b" not found`},
			{c.at("configmaps", "demo", "b", ""), "0", admin, apierr.ErrNotFound, `configmaps "b" not found`},
			{c.at("configmaps", "demo", "", ""), "", admin, apierr.ErrBadRequest, `resource name may not be empty`},
			{c.at("configmaps", "", "a", ""), "", admin, apierr.ErrNotFound, `the server could not find the requested resource`},
			{at, "", jane, apierr.ErrForbidden, `configmaps "a" is forbidden: User "jane" cannot get resource "configmaps" in API group "" in the namespace "demo"`},
			{api.Target{Version: "v2", Resource: "configmaps", Namespace: "demo", Name: "a"}, "", admin, apierr.ErrNotFound, `the server could not find the requested resource`},
		}
		for _, tt := range tests {
			_, err := c.api.Get(t.Context(), tt.user, tt.at, api.GetOptions{ResourceVersion: tt.rv})
			wants(t, err, tt.kind, tt.text)
		}
		// A target without a version is of the preferred one.
		if _, err := c.api.Get(t.Context(), admin, api.Target{Resource: "configmaps", Namespace: "demo", Name: "a"}, api.GetOptions{}); err != nil {
			t.Error(err)
		}
	})
}

func TestList(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		for _, ns := range []string{"demo", "default"} {
			for i := range 5 {
				c.must(c.create("configmaps", ns, fmt.Sprintf(`metadata: {name: m%d, labels: {num: "%d"}}`, i, i)))
			}
		}
		for i, n := range []string{"n1", "n2", "n1", ""} {
			pod := fmt.Sprintf(`{metadata: {name: p%d}, spec: {nodeName: "%s", containers: [{name: a, image: b}]}}`, i, n)
			c.must(c.create("pods", "demo", pod))
		}
		tests := []struct {
			name string
			at   api.Target
			o    api.ListOptions
			want string
			kind error
			text string
		}{
			{name: "a namespace", at: c.at("configmaps", "demo", "", ""), want: "demo/m0 demo/m1 demo/m2 demo/m3 demo/m4"},
			{name: "all", at: c.at("configmaps", "", "", ""), want: "default/m0 default/m1 default/m2 default/m3 default/m4 demo/m0 demo/m1 demo/m2 demo/m3 demo/m4"},
			{name: "none", at: c.at("configmaps", "gone", "", ""), want: ""},
			{name: "cluster-scoped", at: c.at("namespaces", "", "", ""), want: "/default /demo /kube-node-lease /kube-public /kube-system"},
			{name: "by label", at: c.at("configmaps", "", "", ""), o: api.ListOptions{Selection: selects("num in (1,3)", "")}, want: "default/m1 default/m3 demo/m1 demo/m3"},
			{name: "without a label", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{Selection: selects("!num", "")}, want: ""},
			{name: "by name", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{Selection: selects("", "metadata.name=m2")}, want: "demo/m2"},
			{name: "by name everywhere", at: c.at("configmaps", "", "", ""), o: api.ListOptions{Selection: selects("", "metadata.name=m2")}, want: "default/m2 demo/m2"},
			{name: "by name and label", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{Selection: selects("num=3", "metadata.name=m2")}, want: ""},
			{name: "by other name", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{Selection: selects("", "metadata.name!=m2")}, want: "demo/m0 demo/m1 demo/m3 demo/m4"},
			{name: "by name of none", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{Selection: selects("", "metadata.name=x")}, want: ""},
			{name: "by namespace", at: c.at("configmaps", "", "", ""), o: api.ListOptions{Selection: selects("num=1", "metadata.namespace=demo")}, want: "demo/m1"},
			{name: "by name, cluster-scoped", at: c.at("namespaces", "", "", ""), o: api.ListOptions{Selection: selects("", "metadata.name=demo")}, want: "/demo"},
			{name: "pods of a node", at: c.at("pods", "", "", ""), o: api.ListOptions{Selection: selects("", "spec.nodeName=n1")}, want: "demo/p0 demo/p2"},
			{name: "pods of a node in another namespace", at: c.at("pods", "default", "", ""), o: api.ListOptions{Selection: selects("", "spec.nodeName=n1")}, want: ""},
			{name: "pods of no node", at: c.at("pods", "", "", ""), o: api.ListOptions{Selection: selects("", "spec.nodeName=")}, want: "demo/p3"},
			{name: "pods as describe asks", at: c.at("pods", "", "", ""), o: api.ListOptions{Limit: 500, Selection: selects("", "spec.nodeName=n1,status.phase!=Succeeded,status.phase!=Failed")}, want: "demo/p0 demo/p2"},
			{name: "any", at: c.at("namespaces", "", "", ""), o: api.ListOptions{ResourceVersion: "0", Limit: 1}, want: "/default"},
			{name: "not older", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{ResourceVersion: "1", ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, Limit: 1}, want: "demo/m0"},
			{name: "unknown field", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{Selection: selects("", "spec.x=1")}, kind: apierr.ErrBadRequest, text: `"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"`},
			{name: "unknown field of a kind with some", at: c.at("pods", "demo", "", ""), o: api.ListOptions{Selection: selects("", "spec.x=1")}, kind: apierr.ErrBadRequest, text: `field label not supported: spec.x`},
			{name: "bad revision", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{ResourceVersion: "x"}, kind: apierr.ErrBadRequest, text: `invalid resource version "x"`},
			{name: "match without revision", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{ResourceVersionMatch: "Exact"}, kind: apierr.ErrInvalid, text: `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided`},
			{name: "exactly any", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{ResourceVersion: "0", ResourceVersionMatch: "Exact"}, kind: apierr.ErrInvalid},
			{name: "odd match", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{ResourceVersion: "1", ResourceVersionMatch: "Near"}, kind: apierr.ErrInvalid},
			{name: "match with continue", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{ResourceVersion: "1", Continue: "x", ResourceVersionMatch: "Exact"}, kind: apierr.ErrInvalid},
			{name: "revision with continue", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{ResourceVersion: "1", Continue: "x"}, kind: apierr.ErrBadRequest, text: `specifying resource version is not allowed when using continue`},
			{name: "bad continue", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{Continue: "x"}, kind: apierr.ErrBadRequest, text: `continue key is not valid`},
			{name: "continue of nothing", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{Continue: token(`{"v":"meta.wherry/v1","rv":1,"start":""}`)}, kind: apierr.ErrBadRequest, text: `continue key is not valid`},
			{name: "continue of another version", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{Continue: token(`{"v":"meta.k8s.io/v1","rv":1,"start":"a/b"}`)}, kind: apierr.ErrBadRequest, text: `continue key is not valid`},
			{name: "negative limit", at: c.at("configmaps", "demo", "", ""), o: api.ListOptions{Limit: -1}, kind: apierr.ErrBadRequest, text: `limit must not be negative`},
			{name: "unknown", at: c.at("nothings", "demo", "", ""), kind: apierr.ErrNotFound},
		}
		for _, tt := range tests {
			p, err := c.api.List(t.Context(), admin, tt.at, tt.o)
			if wants(t, err, tt.kind, tt.text); err != nil {
				if tt.kind == nil {
					t.Error(tt.name)
				}
				continue
			}
			if got := strings.Join(names(p), " "); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
			}
			if p.Revision != c.snapshot().Revision() || p.Kind.Resource != tt.at.Resource {
				t.Errorf("%s: at %d, of %s", tt.name, p.Revision, p.Kind.Resource)
			}
		}
		_, err := c.api.List(t.Context(), jane, c.at("configmaps", "", "", ""), api.ListOptions{})
		wants(t, err, apierr.ErrForbidden, `configmaps is forbidden: User "jane" cannot list resource "configmaps" in API group "" at the cluster scope`)
	})
}

func token(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// TestPages walks lists in pages while others write: the pages are of one
// revision, together they are the whole, and what remains is told.
func TestPages(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		for _, ns := range []string{"demo", "default"} {
			for i := range 7 {
				c.must(c.create("configmaps", ns, fmt.Sprintf(`metadata: {name: m%d, labels: {odd: "%v"}}`, i, i%2 == 1)))
			}
		}
		tests := []struct {
			name  string
			at    api.Target
			sel   api.Selection
			limit int64
			told  bool // how many remain
		}{
			{"a namespace", c.at("configmaps", "demo", "", ""), api.Selection{}, 3, true},
			{"everything", c.at("configmaps", "", "", ""), api.Selection{}, 4, true},
			{"one by one", c.at("configmaps", "", "", ""), api.Selection{}, 1, true},
			{"exactly", c.at("configmaps", "demo", "", ""), api.Selection{}, 7, true},
			{"more", c.at("configmaps", "demo", "", ""), api.Selection{}, 100, true},
			{"selected", c.at("configmaps", "", "", ""), selects("odd=true", ""), 2, false},
			{"selected by field", c.at("configmaps", "", "", ""), selects("", "metadata.namespace=demo"), 2, false},
			{"cluster-scoped", c.at("namespaces", "", "", ""), api.Selection{}, 2, true},
			{"pods of a node", c.at("pods", "", "", ""), selects("", "spec.nodeName=n1"), 1, false},
			{"one by name", c.at("configmaps", "demo", "", ""), selects("", "metadata.name=m3"), 1, false},
		}
		for i := range 6 {
			c.must(c.create("pods", []string{"demo", "default"}[i%2], fmt.Sprintf(`{metadata: {name: p%d}, spec: {nodeName: n%d, containers: [{name: a, image: b}]}}`, i, i/3)))
		}
		for i, tt := range tests {
			whole, err := c.api.List(t.Context(), admin, tt.at, api.ListOptions{Selection: tt.sel})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			o := api.ListOptions{Selection: tt.sel, Limit: tt.limit}
			for n := 0; ; n++ {
				p, err := c.api.List(t.Context(), admin, tt.at, o)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, names(p)...)
				if p.Revision != whole.Revision || int64(len(p.Records)) > tt.limit {
					t.Errorf("%s: page at %d of %d records, want %d", tt.name, p.Revision, len(p.Records), whole.Revision)
				}
				if left := int64(len(whole.Records) - len(got)); p.Continue == "" {
					if left != 0 || p.Remaining != nil {
						t.Errorf("%s: ends with %d left, told %v", tt.name, left, p.Remaining)
					}
					break
				} else if tt.told != (p.Remaining != nil) || tt.told && *p.Remaining != left {
					t.Errorf("%s: tells %v of %d", tt.name, p.Remaining, left)
				}
				o.Continue = p.Continue
				// Somebody writes between the pages.
				c.must(c.create("configmaps", "kube-system", fmt.Sprintf(`metadata: {name: x%d-%d}`, i, n)))
			}
			if !slices.Equal(got, names(whole)) {
				t.Errorf("%s: pages %q, whole %q", tt.name, got, names(whole))
			}
		}
		// A token may come back to another namespace than it was made for.
		p, err := c.api.List(t.Context(), admin, c.at("configmaps", "", "", ""), api.ListOptions{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		p, err = c.api.List(t.Context(), admin, c.at("configmaps", "demo", "", ""), api.ListOptions{Continue: p.Continue})
		if err != nil || len(p.Records) != 7 {
			t.Errorf("%q, %v", names(p), err)
		}
	})
}

func TestOldRevisions(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		ctx, at := t.Context(), c.at("configmaps", "demo", "", "")
		c.must(c.create("configmaps", "demo", `metadata: {name: a}`))
		one := c.snapshot().Revision()
		c.must(c.create("configmaps", "demo", `metadata: {name: b}`))
		list := func(o api.ListOptions) string {
			p, err := c.api.List(ctx, admin, at, o)
			if err != nil {
				return err.Error()
			}
			return fmt.Sprint(names(p), p.Revision-one)
		}
		rv := strconv.FormatUint(one, 10)
		for _, tt := range []struct {
			name string
			o    api.ListOptions
			want string
		}{
			{"exactly", api.ListOptions{ResourceVersion: rv, ResourceVersionMatch: "Exact"}, "[demo/a] 0"},
			{"with a limit and no match", api.ListOptions{ResourceVersion: rv, Limit: 5}, "[demo/a] 0"},
			{"without a limit and match", api.ListOptions{ResourceVersion: rv}, "[demo/a demo/b] 1"},
			{"not older", api.ListOptions{ResourceVersion: rv, ResourceVersionMatch: "NotOlderThan", Limit: 5}, "[demo/a demo/b] 1"},
			{"any", api.ListOptions{ResourceVersion: "0", Limit: 5}, "[demo/a demo/b] 1"},
		} {
			if got := list(tt.o); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
			}
		}
		// Each is waited for a while; together they take no longer.
		future := []func() error{
			func() error {
				_, err := c.api.List(ctx, admin, at, api.ListOptions{ResourceVersion: "999999"})
				return err
			},
			func() error {
				_, err := c.api.List(ctx, admin, at, api.ListOptions{ResourceVersion: "999999", ResourceVersionMatch: "Exact"})
				return err
			},
			func() error {
				_, err := c.api.Get(ctx, admin, c.at("configmaps", "demo", "a", ""), api.GetOptions{ResourceVersion: "999999"})
				return err
			},
			func() error {
				_, err := c.api.Watch(ctx, admin, at, api.WatchOptions{ResourceVersion: "999999"})
				return err
			},
		}
		var all sync.WaitGroup
		for _, f := range future {
			all.Go(func() { tooLarge(t, f()) })
		}
		all.Wait()
	})
}

func tooLarge(t *testing.T, err error) {
	t.Helper()
	st := apierr.StatusOf(err)
	if !errors.Is(err, apierr.ErrTimeout) || st.Code != 504 || st.Details == nil || st.Details.RetryAfterSeconds != 1 || len(st.Details.Causes) != 1 ||
		st.Details.Causes[0].Type != metav1.CauseTypeResourceVersionTooLarge || !strings.HasPrefix(st.Message, "Timeout: Too large resource version: 999999, current: ") {
		t.Errorf("answered %+v", st)
	}
}

// TestExpired asks for what the store no longer keeps.
func TestExpired(t *testing.T) {
	codec := api.NewCodec(kinds.Table(), 16<<20)
	c := open(t, codec, store.NewLocalLimits(codec, store.Limits{RingEvents: 8}), apiserver.Config{})
	ctx, at := t.Context(), c.at("configmaps", "demo", "", "")
	for i := range 6 {
		c.must(c.create("configmaps", "demo", fmt.Sprintf(`metadata: {name: m%d}`, i)))
	}
	first, err := c.api.List(ctx, admin, at, api.ListOptions{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		c.must(c.create("configmaps", "demo", fmt.Sprintf(`metadata: {name: z%d}`, i)))
	}
	if _, err := c.delete("configmaps", "demo", "m3", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	old := strconv.FormatUint(first.Revision, 10)
	_, err = c.api.List(ctx, admin, at, api.ListOptions{ResourceVersion: old, ResourceVersionMatch: "Exact"})
	wants(t, err, apierr.ErrExpired, "too old resource version: "+old)
	_, err = c.api.Watch(ctx, admin, at, api.WatchOptions{ResourceVersion: old})
	wants(t, err, apierr.ErrExpired, "too old resource version: "+old)
	_, err = c.api.List(ctx, admin, at, api.ListOptions{Limit: 2, Continue: first.Continue})
	wants(t, err, apierr.ErrExpired, "The provided continue parameter is too old to display a consistent list result.")
	st := apierr.StatusOf(err)
	if st.Code != 410 || st.Continue == "" || st.Continue == first.Continue {
		t.Fatalf("status %+v", st)
	}
	// The rest can be had, as it is now.
	rest, err := c.api.List(ctx, admin, at, api.ListOptions{Limit: 3, Continue: st.Continue})
	if err != nil || strings.Join(names(rest), " ") != "demo/m2 demo/m4 demo/m5" || *rest.Remaining != 20 {
		t.Errorf("the rest is %q, %v", names(rest), err)
	}
}

// behind is a replica that is behind: what it has may be as old as a test likes.
type behind struct {
	store.Store
	old *store.Snapshot
}

func (b *behind) Snapshot(ctx context.Context, at store.At) (*store.Snapshot, error) {
	if at.Level == store.Any && b.old != nil {
		return b.old, nil
	}
	return b.Store.Snapshot(ctx, at)
}

// TestAnswersOfAReplicaBehind writes through a replica that knows little: what
// it would refuse or leave alone by what it knows is asked again.
func TestAnswersOfAReplicaBehind(t *testing.T) {
	codec := api.NewCodec(kinds.Table(), 16<<20)
	b := &behind{Store: store.NewLocal(codec)}
	c := open(t, codec, b, apiserver.Config{})
	empty := c.snapshot()
	c.must(c.create("configmaps", "demo", `{metadata: {name: a}, data: {k: v}}`))
	c.must(c.create("services", "demo", `{metadata: {name: s}, spec: {clusterIP: 10.96.3.3, ports: [{port: 80}]}}`))
	first := c.snapshot()
	m, err := c.get("configmaps", "demo", "a")
	if err != nil {
		t.Fatal(err)
	}
	next := m.DeepCopyObject().(*corev1.ConfigMap)
	next.Data = map[string]string{"k": "w"}
	now := c.must(c.update("configmaps", next, ""))

	b.old = empty
	_, err = c.create("configmaps", "demo", `metadata: {name: a}`)
	wants(t, err, apierr.ErrAlreadyExists, "")
	_, err = c.create("services", "demo", `{metadata: {name: s2}, spec: {clusterIP: 10.96.3.3, ports: [{port: 80}]}}`)
	wants(t, err, apierr.ErrInvalid, `Service "s2" is invalid: spec.clusterIPs`)
	if _, err := c.api.Patch(t.Context(), admin, c.at("configmaps", "demo", "a", ""), "application/merge-patch+json", []byte(`{"data":{"x":"y"}}`), api.WriteOptions{}); err != nil {
		t.Errorf("a patch of what it does not know: %v", err)
	}
	if _, err := c.api.Get(t.Context(), admin, c.at("configmaps", "demo", "a", ""), api.GetOptions{}); err != nil {
		t.Errorf("a get of what it does not know: %v", err)
	}
	_, err = c.api.Get(t.Context(), admin, c.at("configmaps", "demo", "a", ""), api.GetOptions{ResourceVersion: "0"})
	wants(t, err, apierr.ErrNotFound, "")
	c.must(c.create("namespaces", "", `metadata: {name: unknown}`))
	var events []*corev1.Event
	for _, ns := range []string{"demo", "unknown"} {
		events = append(events, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "e"}, InvolvedObject: corev1.ObjectReference{Namespace: ns}})
	}
	if err := c.api.As(admin).PutEvents(t.Context(), events); err != nil {
		t.Error(err)
	}

	b.old = first
	// It would say that nothing changes: there is something else by now.
	back := m.DeepCopyObject().(*corev1.ConfigMap)
	back.ResourceVersion = ""
	if got := c.must(c.update("configmaps", back, "")).(*corev1.ConfigMap); got.ResourceVersion == m.GetResourceVersion() || got.Data["k"] != "v" {
		t.Errorf("an update back to what it knows: %+v", got)
	}
	// What is stale by what is known elsewhere stays stale.
	_, err = c.update("configmaps", next.DeepCopy(), "")
	wants(t, err, apierr.ErrConflict, "")
	_, err = c.update("configmaps", now.DeepCopyObject().(api.Object), "")
	wants(t, err, apierr.ErrConflict, "")
	// A revision it does not know yet is current.
	b.old = nil
	cur, err := c.get("configmaps", "demo", "a")
	if err != nil {
		t.Fatal(err)
	}
	b.old = first
	last := cur.DeepCopyObject().(*corev1.ConfigMap)
	last.Data = map[string]string{"k": "last"}
	c.must(c.update("configmaps", last, ""))
	uid := cur.GetUID()
	if d, err := c.delete("configmaps", "demo", "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil || !d.Gone {
		t.Errorf("a delete: %+v, %v", d, err)
	}
	_, err = c.delete("configmaps", "demo", "a", metav1.DeleteOptions{})
	wants(t, err, apierr.ErrNotFound, "")
	// The namespace began to end elsewhere.
	if _, err := c.delete("namespaces", "", "demo", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = c.create("configmaps", "demo", `metadata: {name: late}`)
	wants(t, err, apierr.ErrForbidden, "")
	b.old = nil
}
