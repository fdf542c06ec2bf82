package apiserver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// maxPageBytes ends a page that asked for no limit before a gRPC message does.
const maxPageBytes = 64 << 20

// Get implements api.Resources.
func (s *Server) Get(ctx context.Context, u api.User, t api.Target, o api.GetOptions) (api.Value, error) {
	k, err := s.enter(u, t, "get")
	if err != nil {
		return api.Value{}, err
	}
	at, err := readAt(o.ResourceVersion, "", 0)
	if err != nil {
		return api.Value{}, err
	}
	snap, err := s.snapshot(ctx, at)
	if err != nil {
		return api.Value{}, err
	}
	r, ok := snap.Get(k.Key(t.Namespace, t.Name))
	if !ok {
		return api.Value{}, apierr.NotFound(k.KeyResource(), t.Name)
	}
	if t.Subresource == "scale" {
		obj, err := s.codec.Decode(r)
		if err != nil {
			return api.Value{}, err
		}
		return api.Value{Object: scaleOf(k, obj)}, nil
	}
	return api.Value{Record: r}, nil
}

// readAt turns the resourceVersion of a get or list into a level.
func readAt(rv string, match metav1.ResourceVersionMatch, limit int64) (store.At, error) {
	if rv == "" {
		return store.At{Level: store.Linearizable}, nil
	}
	n, err := strconv.ParseUint(rv, 10, 64)
	if err != nil {
		return store.At{}, apierr.BadRequest("invalid resource version %q: want a decimal number", rv)
	}
	switch {
	case n == 0:
		return store.At{Level: store.Any}, nil
	case match == metav1.ResourceVersionMatchExact, match == "" && limit > 0:
		return store.At{Level: store.Exactly, Revision: n}, nil
	}
	return store.At{Level: store.AtLeast, Revision: n}, nil
}

// snapshot reads; a revision from the future is waited for a short time only.
func (s *Server) snapshot(ctx context.Context, at store.At) (*store.Snapshot, error) {
	if at.Level != store.AtLeast && at.Level != store.Exactly {
		return s.store.Snapshot(ctx, at)
	}
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	snap, err := s.store.Snapshot(short, at)
	if err != nil && ctx.Err() == nil && short.Err() != nil {
		now, err := s.store.Snapshot(ctx, store.At{Level: store.Any})
		if err != nil {
			return nil, err
		}
		st := apierr.StatusOf(apierr.Timeout(fmt.Sprintf("Too large resource version: %d, current: %d", at.Revision, now.Revision()), time.Second))
		st.Details.Causes = append(st.Details.Causes, metav1.StatusCause{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"})
		return nil, apierr.FromStatus(st)
	}
	return snap, err
}

// token is where a list goes on. It holds all that another replica needs.
type token struct {
	Version  string `json:"v"`
	Revision uint64 `json:"rv"`
	Start    string `json:"start"`
}

const tokenVersion = "meta.wherry/v1"

func (c token) encode() string {
	b, err := json.Marshal(c)
	if err != nil { // strings and numbers always encode
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeToken(text string) (token, error) {
	var c token
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || c.Version != tokenVersion || c.Revision == 0 {
		return c, apierr.BadRequest("continue key is not valid: %s", "take the token from the list before, unchanged")
	}
	return c, nil
}

// List implements api.Resources.
func (s *Server) List(ctx context.Context, u api.User, t api.Target, o api.ListOptions) (*api.Page, error) {
	k, err := s.enter(u, t, "list")
	if err != nil {
		return nil, err
	}
	return s.list(ctx, k, t, o)
}

func (s *Server) list(ctx context.Context, k *api.Kind, t api.Target, o api.ListOptions) (*api.Page, error) {
	sel, err := selection(k, t, o.Selection)
	if err != nil {
		return nil, err
	}
	at, err := readAt(o.ResourceVersion, o.ResourceVersionMatch, o.Limit)
	if err != nil {
		return nil, err
	}
	var after api.Key
	if o.Continue != "" {
		c, err := decodeToken(o.Continue)
		if err != nil {
			return nil, err
		}
		if o.ResourceVersion != "" && o.ResourceVersion != "0" {
			return nil, apierr.BadRequest("specifying resource version is not allowed when using continue")
		}
		at = store.At{Level: store.Exactly, Revision: c.Revision}
		after.Resource = k.KeyResource()
		after.Namespace, after.Name, _ = strings.Cut(c.Start, "/")
	}
	snap, err := s.snapshot(ctx, at)
	if err != nil {
		return nil, s.expired(ctx, err, o, after)
	}
	return page(k, t, sel, snap, after, o.Limit), nil
}

// expired adds to a 410 of a page the token with which the list may go on from
// the same place in the newest state.
func (s *Server) expired(ctx context.Context, err error, o api.ListOptions, after api.Key) error {
	if o.Continue == "" || apierr.KindOf(err) != apierr.ErrExpired {
		return err
	}
	now, serr := s.store.Snapshot(ctx, store.At{Level: store.Linearizable})
	if serr != nil {
		return err
	}
	st := apierr.StatusOf(apierr.Expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."))
	st.ListMeta.Continue = token{tokenVersion, now.Revision(), after.Namespace + "/" + after.Name}.encode()
	return apierr.FromStatus(st)
}

func page(k *api.Kind, t api.Target, sel matcher, snap *store.Snapshot, after api.Key, limit int64) *api.Page {
	p := &api.Page{Kind: k, Revision: snap.Revision()}
	size := 0
	records := snap.Scan(k.KeyResource(), t.Namespace, after)
	if node, ok := sel.exact("spec.nodeName"); ok && k.KeyResource() == "pods" && limit == 0 && after.Name == "" {
		records = snap.ByField("pods", "spec.nodeName", node)
	}
	seen := int64(0)
	for r := range records {
		if t.Namespace != "" && r.Namespace != t.Namespace || !sel.matches(r) {
			continue
		}
		if limit > 0 && seen == limit || size > maxPageBytes {
			last := p.Records[len(p.Records)-1]
			p.Continue = token{tokenVersion, p.Revision, last.Namespace + "/" + last.Name}.encode()
			if sel.everything() {
				left := int64(snap.Count(k.KeyResource(), t.Namespace)) - seen - int64(before(snap, k, t, after))
				p.Remaining = &left
			}
			break
		}
		p.Records = append(p.Records, r)
		size += len(r.Bytes)
		seen++
	}
	return p
}

// before counts what earlier pages held.
func before(snap *store.Snapshot, k *api.Kind, t api.Target, after api.Key) int {
	if after.Name == "" {
		return 0
	}
	n := snap.Count(k.KeyResource(), t.Namespace)
	for range snap.Scan(k.KeyResource(), t.Namespace, after) {
		n--
	}
	return n
}

// matcher is a checked selection.
type matcher struct {
	labels labels.Selector
	fields fields.Selector
	name   string
}

// selection checks that the kind knows the fields.
func selection(k *api.Kind, t api.Target, sel api.Selection) (matcher, error) {
	m := matcher{labels: sel.Labels, fields: sel.Fields, name: t.Name}
	if m.fields == nil {
		return m, nil
	}
	for _, r := range m.fields.Requirements() {
		if !knownField(k, r.Field) {
			if len(k.FieldNames) > 0 {
				return m, apierr.BadRequest("field label not supported: %s", r.Field)
			}
			return m, apierr.BadRequest("%q is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", r.Field)
		}
	}
	return m, nil
}

func knownField(k *api.Kind, name string) bool {
	if name == "metadata.name" || name == "metadata.namespace" {
		return true
	}
	for _, f := range k.FieldNames {
		if f == name {
			return true
		}
	}
	return false
}

func (m matcher) everything() bool {
	return m.name == "" && (m.labels == nil || m.labels.Empty()) && (m.fields == nil || m.fields.Empty())
}

// exact gives the value a field must have, if it must have one.
func (m matcher) exact(name string) (string, bool) {
	if m.fields == nil {
		return "", false
	}
	return m.fields.RequiresExactMatch(name)
}

func (m matcher) matches(r *api.Record) bool {
	return (m.name == "" || r.Name == m.name) &&
		(m.labels == nil || m.labels.Matches(labels.Set(r.Index.Labels))) &&
		(m.fields == nil || m.fields.Matches(recordFields{r}))
}

// recordFields lets a field selector read a record.
type recordFields struct{ r *api.Record }

// Has implements fields.Fields.
func (f recordFields) Has(name string) bool {
	_, ok := f.r.Index.Fields[name]
	return ok || name == "metadata.name" || name == "metadata.namespace"
}

// Get implements fields.Fields.
func (f recordFields) Get(name string) string {
	switch name {
	case "metadata.name":
		return f.r.Name
	case "metadata.namespace":
		return f.r.Namespace
	}
	return f.r.Index.Fields[name]
}
