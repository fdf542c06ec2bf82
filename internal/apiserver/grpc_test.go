package apiserver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/testkit"
)

// dial serves the cluster over gRPC on the loopback, with gRPC's own limits.
func (c *cluster) dial(user func(context.Context) (api.User, error)) wherryv1.ResourcesClient {
	t := c.t
	t.Helper()
	conn := testkit.GRPC(t, func(srv *grpc.Server) { wherryv1.RegisterResourcesServer(srv, apiserver.NewService(c.api, user)) })
	return wherryv1.NewResourcesClient(conn)
}

func asAdmin(context.Context) (api.User, error) { return admin, nil }

func maps(name string) *wherryv1.Target {
	return &wherryv1.Target{Version: "v1", Resource: "configmaps", Namespace: "demo", Name: name}
}

// TestGRPCListFitsMessages lists more than one message holds.
func TestGRPCListFitsMessages(t *testing.T) {
	c := local(t)
	r := c.dial(asAdmin)
	value := strings.Repeat("x", 200<<10)
	const n = 40 // 8 MiB
	for i := range n {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m%02d", i)}, Data: map[string]string{"k": value}}
		c.must(c.api.Create(t.Context(), admin, c.at("configmaps", "demo", "", ""), m, api.WriteOptions{}))
	}
	for _, limit := range []int64{0, 25} {
		got, pages := 0, 0
		req := &wherryv1.ListRequest{Target: maps(""), Limit: limit}
		for {
			p, err := r.List(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if size := proto.Size(p); size > 4<<20 {
				t.Errorf("a page of %d bytes", size)
			}
			got, pages = got+len(p.GetItems()), pages+1
			if req.ContinueToken = p.GetContinueToken(); req.ContinueToken == "" {
				break
			}
			if p.GetRemainingItems() != int64(n-got) {
				t.Errorf("remaining %d after %d", p.GetRemainingItems(), got)
			}
		}
		if got != n || pages < 3 || pages > 6 {
			t.Errorf("limit %d: %d objects in %d pages", limit, got, pages)
		}
	}
}

// TestGRPCDeleteCollection deletes more than one message can give back: at once
// without the objects, page by page with them.
func TestGRPCDeleteCollection(t *testing.T) {
	c := local(t)
	r := c.dial(asAdmin)
	value := strings.Repeat("x", 200<<10)
	const n = 30 // 6 MiB
	for _, give := range []bool{false, true} {
		for i := range n {
			m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m%02d", i)}, Data: map[string]string{"k": value}}
			c.must(c.api.Create(t.Context(), admin, c.at("configmaps", "demo", "", ""), m, api.WriteOptions{}))
		}
		req := &wherryv1.DeleteCollectionRequest{Target: maps(""), Limit: 3, ReturnItems: give}
		one, err := r.DeleteCollection(t.Context(), req)
		if err != nil || one.GetDeleted() != 3 || one.GetRemainingItems() != n-3 || one.GetContinueToken() == "" || one.GetResourceVersion() == "" {
			t.Errorf("a page of three: %d deleted, %d remaining, %v", one.GetDeleted(), one.GetRemainingItems(), err)
		}
		req.Limit, req.ContinueToken = 0, one.GetContinueToken()
		items, calls := len(one.GetItems()), 1
		for req.ContinueToken != "" {
			p, err := r.DeleteCollection(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			items, calls = items+len(p.GetItems()), calls+1
			req.ContinueToken = p.GetContinueToken()
		}
		if left := c.snapshot().Count("configmaps", "demo"); left != 0 {
			t.Errorf("%d left", left)
		}
		if !give && (items != 0 || calls != 2) || give && (items != n || calls < 3) {
			t.Errorf("giving back %v: %d objects in %d calls", give, items, calls)
		}
	}
}

func TestGRPCWatch(t *testing.T) {
	c := local(t)
	r := c.dial(asAdmin)
	c.put("a", "x", "1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	open := func(seconds int64) grpc.ServerStreamingClient[wherryv1.WatchResponse] {
		t.Helper()
		w, err := r.Watch(ctx, &wherryv1.WatchRequest{Target: maps(""), SendInitialEvents: true, ResourceVersionMatch: "NotOlderThan", Bookmarks: true, TimeoutSeconds: seconds})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	brief := open(1)
	for err := error(nil); err == nil; {
		if _, err = brief.Recv(); err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("a watch whose time is over ended with %v", err)
		}
	}
	w := open(0)
	var got []string
	for len(got) < 4 {
		e, err := w.Recv()
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		m := &corev1.ConfigMap{}
		if err := api.FromAny(e.GetObject(), m); err != nil {
			t.Error(err)
		}
		got = append(got, fmt.Sprint(e.GetType(), " ", m.Name, " ", m.Annotations[metav1.InitialEventsAnnotationKey], m.ResourceVersion != ""))
		if len(got) == 2 {
			c.put("a", "x", "2")
			if _, err := c.delete("configmaps", "demo", "a", metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		}
	}
	want := "EVENT_TYPE_ADDED a true, EVENT_TYPE_BOOKMARK  truetrue, EVENT_TYPE_MODIFIED a true, EVENT_TYPE_DELETED a true"
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("told %s, want %s", text, want)
	}
}

func TestGRPCRefuses(t *testing.T) {
	c := local(t)
	r := c.dial(asAdmin)
	nobody := c.dial(func(context.Context) (api.User, error) { return api.User{}, apierr.Unauthorized("") })
	ctx := t.Context()
	pod, err := api.ToAny(c.read("pods", aPod).(*corev1.Pod))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		f    func() error
		kind error
		text string
	}{
		{"nothing", func() error { _, err := r.Create(ctx, &wherryv1.CreateRequest{Target: maps("")}); return err }, apierr.ErrBadRequest, `object: "" is not a kind that is served`},
		{"another message", func() error {
			_, err := r.Create(ctx, &wherryv1.CreateRequest{Target: maps(""), Object: &anypb.Any{TypeUrl: "type.googleapis.com/google.protobuf.Empty"}})
			return err
		}, apierr.ErrBadRequest, `object: "type.googleapis.com/google.protobuf.Empty" is not a kind that is served`},
		{"no message", func() error {
			_, err := r.Create(ctx, &wherryv1.CreateRequest{Target: maps(""), Object: &anypb.Any{TypeUrl: pod.TypeUrl, Value: []byte{0xff}}})
			return err
		}, apierr.ErrBadRequest, `object: decode type.googleapis.com/k8s.io.api.core.v1.Pod: `},
		{"another kind", func() error {
			_, err := r.Create(ctx, &wherryv1.CreateRequest{Target: maps(""), Object: pod})
			return err
		}, apierr.ErrBadRequest, `Pod in version "v1" cannot be handled as a ConfigMap`},
		{"no patch type", func() error { _, err := r.Patch(ctx, &wherryv1.PatchRequest{Target: maps("a")}); return err }, apierr.ErrBadRequest, `type: PATCH_TYPE_UNSPECIFIED is not a patch type; use JSON, MERGE, STRATEGIC or APPLY`},
		{"no target", func() error { _, err := r.Get(ctx, &wherryv1.GetRequest{}); return err }, apierr.ErrNotFound, `the server could not find the requested resource`},
		{"bad labels", func() error {
			_, err := r.List(ctx, &wherryv1.ListRequest{Target: maps(""), Selection: &wherryv1.Selection{Labels: "a b"}})
			return err
		}, apierr.ErrBadRequest, ``},
		{"bad fields", func() error {
			_, err := r.DeleteCollection(ctx, &wherryv1.DeleteCollectionRequest{Target: maps(""), Selection: &wherryv1.Selection{Fields: "a"}})
			return err
		}, apierr.ErrBadRequest, ``},
		{"a log", func() error {
			_, err := r.Get(ctx, &wherryv1.GetRequest{Target: &wherryv1.Target{Version: "v1", Resource: "pods", Namespace: "demo", Name: "p", Subresource: "log"}})
			return err
		}, apierr.ErrBadRequest, `pods/log is a stream and has no object: open it by its own path, or by the gRPC service wherry.v1.Pods`},
		{"nobody gets", func() error { _, err := nobody.Get(ctx, &wherryv1.GetRequest{Target: maps("a")}); return err }, apierr.ErrUnauthorized, ""},
		{"nobody lists", func() error { _, err := nobody.List(ctx, &wherryv1.ListRequest{Target: maps("")}); return err }, apierr.ErrUnauthorized, ""},
		{"nobody creates", func() error { _, err := nobody.Create(ctx, &wherryv1.CreateRequest{Target: maps("")}); return err }, apierr.ErrUnauthorized, ""},
		{"nobody updates", func() error { _, err := nobody.Update(ctx, &wherryv1.UpdateRequest{Target: maps("")}); return err }, apierr.ErrUnauthorized, ""},
		{"nobody patches", func() error { _, err := nobody.Patch(ctx, &wherryv1.PatchRequest{Target: maps("")}); return err }, apierr.ErrUnauthorized, ""},
		{"nobody deletes", func() error { _, err := nobody.Delete(ctx, &wherryv1.DeleteRequest{Target: maps("")}); return err }, apierr.ErrUnauthorized, ""},
		{"nobody deletes all", func() error {
			_, err := nobody.DeleteCollection(ctx, &wherryv1.DeleteCollectionRequest{Target: maps("")})
			return err
		}, apierr.ErrUnauthorized, ""},
		{"nobody watches", func() error {
			w, err := nobody.Watch(ctx, &wherryv1.WatchRequest{Target: maps("")})
			if err == nil {
				_, err = w.Recv()
			}
			return err
		}, apierr.ErrUnauthorized, ""},
	} {
		t.Run(tt.name, func(t *testing.T) { wants(t, tt.f(), tt.kind, tt.text) })
	}
}

func TestGRPCKinds(t *testing.T) {
	c := local(t)
	k, err := c.dial(asAdmin).Kinds(t.Context(), &wherryv1.KindsRequest{})
	if err != nil || len(k.GetKinds()) != len(c.codec.Kinds().All()) {
		t.Fatalf("%v, %v", k, err)
	}
	for _, kind := range k.GetKinds() {
		if kind.GetResource() == "deployments" {
			if kind.GetGroup() != "apps" || !kind.GetNamespaced() || kind.GetShortNames()[0] != "deploy" || len(kind.GetSubresources()) != 2 {
				t.Errorf("kind %v", kind)
			}
			return
		}
	}
	t.Error("no deployments")
}
