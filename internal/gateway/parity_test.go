package gateway_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/testkit"
)

// step is one call of the API, however it is made.
type step struct {
	name string
	verb string // as the API calls it
	user string // empty is the administrator
	// at is group/version/resource/namespace/name/subresource.
	at     string
	object string // a manifest with apiVersion and kind
	patch  types.PatchType
	body   string
	write  api.WriteOptions
	delete metav1.DeleteOptions
	list   metav1.ListOptions
	get    string // resourceVersion
	// reason is what the answer must be; empty is success.
	reason metav1.StatusReason
}

func (s step) target() api.Target {
	p := append(strings.Split(s.at, "/"), "", "", "", "", "", "")
	return api.Target{Group: p[0], Version: p[1], Resource: p[2], Namespace: p[3], Name: p[4], Subresource: p[5]}
}

// outcome is what a client of either front learns.
type outcome struct {
	object   string // JSON
	items    []string
	list     metav1.ListMeta
	status   metav1.Status // of a failure
	warnings []string
	created  bool
	deleted  bool // an answer of success without an object
}

// front is a way to make a call.
type front interface {
	do(t *testing.T, s step) outcome
	// watch gives the first n events.
	watch(t *testing.T, s step, n int) []string
}

// Inside a message that quotes an object the quotes are escaped.
var volatile = regexp.MustCompile(`\\*"(uid|creationTimestamp|deletionTimestamp|time|last(?:Phase)?TransitionTime|clusterIP|nodePort)\\*":(\\*"[^"\\]*\\*"|\d+)|"clusterIPs":\["[^"]*"\]|(gen|kube-api-access)-[a-z0-9]{5}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// settled hides what differs between two clusters.
func settled(text string) string {
	// Whoever changes a phase sets this too, but in the second it was set in.
	text = strings.ReplaceAll(text, `"f:lastPhaseTransitionTime":{},`, "")
	return volatile.ReplaceAllStringFunc(text, func(m string) string {
		head, _, ok := strings.Cut(m, ":")
		if !ok { // a name or a uid
			return "…"
		}
		return head + ":…"
	})
}

func (o outcome) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "object %s\n", settled(o.object))
	for _, i := range o.items {
		fmt.Fprintf(&out, "item %s\n", settled(i))
	}
	list, _ := json.Marshal(o.list)
	if token, err := base64.RawURLEncoding.DecodeString(o.list.Continue); err == nil { // it may hold a generated name
		list = bytes.ReplaceAll(list, []byte(o.list.Continue), []byte(settled(string(token))))
	}
	status, _ := json.Marshal(o.status)
	for i, w := range o.warnings { // a header is one line
		o.warnings[i] = strings.Join(strings.Fields(w), " ")
	}
	fmt.Fprintf(&out, "list %s\nstatus %s\nwarnings %q\ncreated %v deleted %v", list, settled(string(status)), o.warnings, o.created, o.deleted)
	return out.String()
}

// plain writes what either front gave in the same way: without its kind, which
// only HTTP sends, and with the managed fields in an order that does not hang
// on the clock (entries are kept by their times, which are whole seconds).
func plain(t *testing.T, obj api.Object) string {
	t.Helper()
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	fields := slices.SortedFunc(slices.Values(obj.GetManagedFields()), func(a, b metav1.ManagedFieldsEntry) int {
		return cmp.Or(cmp.Compare(a.Manager, b.Manager), cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Subresource, b.Subresource))
	})
	obj.SetManagedFields(fields)
	if set, ok := obj.(*appsv1.StatefulSet); ok {
		for i := range set.Spec.VolumeClaimTemplates { // as above
			set.Spec.VolumeClaimTemplates[i].TypeMeta = metav1.TypeMeta{}
		}
	}
	return asJSON(t, obj)
}

// asJSON is an object as both fronts' tests write it.
func asJSON(t *testing.T, obj any) string {
	t.Helper()
	b, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func manifest(t *testing.T, kinds *api.Kinds, text string) api.Object {
	t.Helper()
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(text), &meta); err != nil {
		t.Fatal(err)
	}
	obj, ok := kinds.NewBody(schema.FromAPIVersionAndKind(meta.APIVersion, meta.Kind))
	if !ok {
		t.Fatalf("no kind %s %s", meta.APIVersion, meta.Kind)
	}
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

// overHTTP is the gateway.
type overHTTP struct {
	c     *cluster
	users map[string]*http.Client
}

func (h *overHTTP) client(t *testing.T, user string) *http.Client {
	if h.users == nil {
		h.users = map[string]*http.Client{"": h.c.http(t, h.c.admin)}
	}
	if h.users[user] == nil {
		h.users[user] = h.c.http(t, h.c.certificate(t, pki.Request{User: user, Life: time.Hour}))
	}
	return h.users[user]
}

func (h *overHTTP) request(t *testing.T, s step) *http.Request {
	t.Helper()
	a := s.target()
	path := "/api/" + a.Version
	if a.Group != "" {
		path = "/apis/" + a.Group + "/" + a.Version
	}
	if a.Namespace != "" {
		path += "/namespaces/" + a.Namespace
	}
	for _, part := range []string{a.Resource, a.Name, a.Subresource} {
		if part != "" {
			path += "/" + part
		}
	}
	method := map[string]string{"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETE"}[s.verb]
	q, body, content := url.Values{}, s.body, ""
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	if s.write.DryRun {
		q.Set("dryRun", "All")
	}
	if s.write.Force {
		q.Set("force", "true")
	}
	set("fieldManager", s.write.FieldManager)
	set("fieldValidation", s.write.FieldValidation)
	set("resourceVersion", s.get)
	set("resourceVersion", s.list.ResourceVersion)
	set("resourceVersionMatch", string(s.list.ResourceVersionMatch))
	set("labelSelector", s.list.LabelSelector)
	set("fieldSelector", s.list.FieldSelector)
	set("continue", s.list.Continue)
	if s.list.Limit != 0 {
		q.Set("limit", strconv.FormatInt(s.list.Limit, 10))
	}
	if s.list.SendInitialEvents != nil {
		q.Set("sendInitialEvents", strconv.FormatBool(*s.list.SendInitialEvents))
	}
	if s.list.AllowWatchBookmarks {
		q.Set("allowWatchBookmarks", "true")
	}
	if s.verb == "watch" {
		q.Set("watch", "true")
	}
	switch {
	case s.object != "":
		body, content = asJSON(t, manifest(t, h.c.api.Kinds(), s.object)), "application/json"
	case s.verb == "patch":
		content = string(s.patch)
	case method == "DELETE":
		body, content = asJSON(t, s.delete), "application/json"
	}
	req, err := http.NewRequestWithContext(t.Context(), method, h.c.url+path+"?"+q.Encode(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", "kubernetes-admin/1")
	if content != "" {
		req.Header.Set("Content-Type", content)
	}
	return req
}

func (h *overHTTP) do(t *testing.T, s step) (o outcome) {
	t.Helper()
	resp, err := h.client(t, s.user).Do(h.request(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range resp.Header.Values("Warning") {
		parsed, _ := utilnet.ParseWarningHeaders([]string{w})
		for _, p := range parsed {
			o.warnings = append(o.warnings, p.Text)
		}
	}
	if resp.StatusCode == http.StatusNotFound && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		// What clients make of a path that leads nowhere.
		o.status = apierr.StatusOf(apierr.New(apierr.ErrNotFound, "the server could not find the requested resource"))
		return o
	}
	if resp.StatusCode >= 300 {
		if err := json.Unmarshal(b, &o.status); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		return o
	}
	o.created = resp.StatusCode == http.StatusCreated && s.verb == "patch"
	if s.verb == "list" || s.verb == "deletecollection" {
		var list struct {
			Metadata metav1.ListMeta
			Items    []json.RawMessage
		}
		if err := json.Unmarshal(b, &list); err != nil {
			t.Fatal(err)
		}
		o.list = list.Metadata
		for _, i := range list.Items {
			o.items = append(o.items, h.typed(t, s, i))
		}
		return o
	}
	var meta metav1.TypeMeta
	if err := json.Unmarshal(b, &meta); err != nil {
		t.Fatal(err)
	}
	if meta.Kind == "Status" {
		st := metav1.Status{}
		if err := json.Unmarshal(b, &st); err != nil {
			t.Fatal(err)
		}
		o.deleted = st.Status == metav1.StatusSuccess
		o.object = asJSON(t, st)
		return o
	}
	o.object = h.typed(t, s, b)
	return o
}

// typed decodes and encodes an object, so that both fronts' are written alike.
func (h *overHTTP) typed(t *testing.T, s step, b []byte) string {
	t.Helper()
	a := s.target()
	k, _ := h.c.api.Kinds().Resource(a.Group, a.Version, a.Resource)
	gvk := k.GVK()
	if sub, ok := k.Subresource(a.Subresource); ok {
		gvk = k.Body(sub)
	}
	obj, ok := h.c.api.Kinds().NewBody(gvk)
	if !ok {
		t.Fatalf("no body %s", gvk)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(obj); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return plain(t, obj)
}

func (h *overHTTP) watch(t *testing.T, s step, n int) (out []string) {
	t.Helper()
	resp, err := h.client(t, s.user).Do(h.request(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer time.AfterFunc(time.Minute, func() { _ = resp.Body.Close() }).Stop() // it tells what there was
	d := json.NewDecoder(resp.Body)
	for len(out) < n {
		var e metav1.WatchEvent
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e.Type+" "+settled(h.typed(t, s, e.Object.Raw)))
	}
	return out
}

// overGRPC is wherry.v1.Resources.
type overGRPC struct {
	c *cluster
	r wherryv1.ResourcesClient
}

// dialGRPC serves a cluster's API over gRPC. Who calls is in the metadata.
func dialGRPC(t *testing.T, c *cluster) *overGRPC {
	t.Helper()
	user := func(ctx context.Context) (api.User, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if who := md.Get("user"); len(who) > 0 && who[0] != "" {
			return api.User{Name: who[0], Groups: []string{"system:authenticated"}}, nil
		}
		return api.User{Name: "kubernetes-admin", Groups: []string{"system:masters", "system:authenticated"}}, nil
	}
	conn := testkit.GRPC(t, func(srv *grpc.Server) { wherryv1.RegisterResourcesServer(srv, apiserver.NewService(c.api, user)) })
	return &overGRPC{c, wherryv1.NewResourcesClient(conn)}
}

func (g *overGRPC) do(t *testing.T, s step) (o outcome) {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "user", s.user)
	a := s.target()
	at := &wherryv1.Target{Group: a.Group, Version: a.Version, Resource: a.Resource, Namespace: a.Namespace, Name: a.Name, Subresource: a.Subresource}
	write := &wherryv1.WriteOptions{DryRun: s.write.DryRun, FieldManager: s.write.FieldManager, FieldValidation: s.write.FieldValidation}
	if s.write.Force {
		write.Force = &s.write.Force
	}
	sel := &wherryv1.Selection{Labels: s.list.LabelSelector, Fields: s.list.FieldSelector}
	var object *anypb.Any
	var err error
	if s.object != "" {
		if object, err = api.ToAny(manifest(t, g.c.api.Kinds(), s.object)); err != nil {
			t.Fatal(err)
		}
	}
	var answer *anypb.Any
	switch s.verb {
	case "get":
		var r *wherryv1.GetResponse
		r, err = g.r.Get(ctx, &wherryv1.GetRequest{Target: at, ResourceVersion: s.get})
		answer, o.warnings = r.GetObject(), r.GetWarnings()
	case "create":
		var r *wherryv1.CreateResponse
		r, err = g.r.Create(ctx, &wherryv1.CreateRequest{Target: at, Object: object, Options: write})
		answer, o.warnings = r.GetObject(), r.GetWarnings()
	case "update":
		var r *wherryv1.UpdateResponse
		r, err = g.r.Update(ctx, &wherryv1.UpdateRequest{Target: at, Object: object, Options: write})
		answer, o.warnings, o.created = r.GetObject(), r.GetWarnings(), r.GetCreated()
	case "patch":
		var r *wherryv1.PatchResponse
		r, err = g.r.Patch(ctx, &wherryv1.PatchRequest{Target: at, Type: patchTypes()[s.patch], Patch: []byte(s.body), Options: write})
		answer, o.warnings, o.created = r.GetObject(), r.GetWarnings(), r.GetCreated()
	case "delete":
		var r *wherryv1.DeleteResponse
		r, err = g.r.Delete(ctx, &wherryv1.DeleteRequest{Target: at, Options: s.deleteOptions()})
		answer, o.warnings = r.GetObject(), r.GetWarnings()
	case "deletecollection":
		var r *wherryv1.DeleteCollectionResponse
		r, err = g.r.DeleteCollection(ctx, &wherryv1.DeleteCollectionRequest{
			Target: at, Selection: sel, Options: s.deleteOptions(), Limit: s.list.Limit, ContinueToken: s.list.Continue,
			ResourceVersion: s.list.ResourceVersion, ResourceVersionMatch: string(s.list.ResourceVersionMatch), ReturnItems: true,
		})
		if err == nil {
			o.list = metav1.ListMeta{ResourceVersion: r.GetResourceVersion(), Continue: r.GetContinueToken(), RemainingItemCount: r.RemainingItems}
			o.warnings = r.GetWarnings()
		}
		for _, i := range r.GetItems() {
			o.items = append(o.items, g.typed(t, i))
		}
	case "list":
		var r *wherryv1.ListResponse
		r, err = g.r.List(ctx, &wherryv1.ListRequest{
			Target: at, Selection: sel, Limit: s.list.Limit, ContinueToken: s.list.Continue,
			ResourceVersion: s.list.ResourceVersion, ResourceVersionMatch: string(s.list.ResourceVersionMatch),
		})
		o.warnings = r.GetWarnings()
		if err == nil {
			o.list = metav1.ListMeta{ResourceVersion: r.GetResourceVersion(), Continue: r.GetContinueToken(), RemainingItemCount: r.RemainingItems}
			o.warnings = r.GetWarnings()
		}
		for _, i := range r.GetItems() {
			o.items = append(o.items, g.typed(t, i))
		}
	case "watch": // only how it is refused
		_, err = g.open(ctx, s, at, sel)
	}
	if err != nil {
		return outcome{status: apierr.StatusOf(err)}
	}
	if answer == nil {
		return o
	}
	st := &metav1.Status{}
	if api.FromAny(answer, st) != nil {
		o.object = g.typed(t, answer)
		return o
	}
	st.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	o.deleted, o.object = st.Status == metav1.StatusSuccess, asJSON(t, st)
	return o
}

func patchTypes() map[types.PatchType]wherryv1.PatchType {
	return map[types.PatchType]wherryv1.PatchType{
		types.JSONPatchType: wherryv1.PatchType_PATCH_TYPE_JSON, types.MergePatchType: wherryv1.PatchType_PATCH_TYPE_MERGE,
		types.StrategicMergePatchType: wherryv1.PatchType_PATCH_TYPE_STRATEGIC, types.ApplyPatchType: wherryv1.PatchType_PATCH_TYPE_APPLY,
	}
}

func (s step) deleteOptions() *wherryv1.DeleteOptions {
	o := &wherryv1.DeleteOptions{GracePeriodSeconds: s.delete.GracePeriodSeconds, DryRun: len(s.delete.DryRun) > 0, OrphanDependents: s.delete.OrphanDependents}
	if p := s.delete.PropagationPolicy; p != nil {
		o.PropagationPolicy = string(*p)
	}
	if p := s.delete.Preconditions; p != nil && p.UID != nil {
		o.Uid = string(*p.UID)
	}
	if p := s.delete.Preconditions; p != nil && p.ResourceVersion != nil {
		o.ResourceVersion = *p.ResourceVersion
	}
	return o
}

func (g *overGRPC) typed(t *testing.T, a *anypb.Any) string {
	t.Helper()
	obj, err := g.c.api.Kinds().ObjectOf(a)
	if err != nil {
		t.Fatal(err)
	}
	return plain(t, obj)
}

// open begins a watch and waits for its first event or refusal.
func (g *overGRPC) open(ctx context.Context, s step, at *wherryv1.Target, sel *wherryv1.Selection) (*wherryv1.WatchResponse, error) {
	w, err := g.r.Watch(ctx, &wherryv1.WatchRequest{
		Target: at, Selection: sel, ResourceVersion: s.list.ResourceVersion, ResourceVersionMatch: string(s.list.ResourceVersionMatch),
		Bookmarks: s.list.AllowWatchBookmarks, InitialEvents: s.list.SendInitialEvents,
	})
	if err != nil {
		return nil, err
	}
	return w.Recv()
}

func (g *overGRPC) watch(t *testing.T, s step, n int) (out []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a := s.target()
	w, err := g.r.Watch(ctx, &wherryv1.WatchRequest{
		Target:    &wherryv1.Target{Group: a.Group, Version: a.Version, Resource: a.Resource, Namespace: a.Namespace, Name: a.Name},
		Selection: &wherryv1.Selection{Labels: s.list.LabelSelector, Fields: s.list.FieldSelector}, ResourceVersion: s.list.ResourceVersion,
		ResourceVersionMatch: string(s.list.ResourceVersionMatch), Bookmarks: s.list.AllowWatchBookmarks,
		InitialEvents: s.list.SendInitialEvents,
	})
	if err != nil {
		t.Fatal(err)
	}
	for len(out) < n {
		e, err := w.Recv()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.TrimPrefix(e.GetType().String(), "EVENT_TYPE_")+" "+settled(g.typed(t, e.GetObject())))
	}
	return out
}
