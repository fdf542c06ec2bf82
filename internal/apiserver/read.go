package apiserver

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// Get implements api.Resources.
func (s *Server) Get(ctx context.Context, u api.User, t api.Target, o api.GetOptions) (api.Value, error) {
	k, err := s.enter(u, t, "get")
	if err != nil {
		return api.Value{}, err
	}
	v, err := s.get(ctx, u, k, t, o)
	if err == nil && k.Deprecated != "" {
		v.Warnings = append(v.Warnings, k.Deprecated)
	}
	return v, err
}

func (s *Server) get(ctx context.Context, u api.User, k *api.Kind, t api.Target, o api.GetOptions) (api.Value, error) {
	if k.Virtual {
		return s.getVirtual(ctx, u, k, t)
	}
	switch t.Subresource {
	case "", "status", "scale":
	default: // what changes a part of the object reads as the object
		if sub, ok := k.Subresource(t.Subresource); !ok || sub.OnUpdate == nil {
			return api.Value{}, errStream(k, t)
		}
	}
	at, err := readAt(o.ResourceVersion, "", 0)
	if err != nil {
		return api.Value{}, err
	}
	snap, err := s.snapshot(ctx, at)
	if err != nil {
		return api.Value{}, err
	}
	st := k.Stored()
	r, ok := snap.Get(st.Key(t.Namespace, t.Name))
	if !ok {
		return api.Value{}, apierr.NotFound(st.KeyResource(), t.Name)
	}
	if t.Subresource == "scale" {
		obj, err := s.codec.Decode(r)
		if err != nil {
			return api.Value{}, err
		}
		return api.Value{Object: scaleOf(k, obj)}, nil
	}
	return s.shown(k, api.Value{Record: s.live(r)}, nil)
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

// tooNewAfter is how long a revision from the future is waited for.
const tooNewAfter = 3 * time.Second

// snapshot reads; a revision from the future is waited for a short time only.
func (s *Server) snapshot(ctx context.Context, at store.At) (*store.Snapshot, error) {
	if at.Level != store.AtLeast && at.Level != store.Exactly {
		return s.store.Snapshot(ctx, at)
	}
	short, cancel := context.WithTimeout(ctx, tooNewAfter)
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

// List implements api.Resources.
func (s *Server) List(ctx context.Context, u api.User, t api.Target, o api.ListOptions) (*api.Page, error) {
	return s.listWithin(ctx, u, t, o, 0)
}

// listWithin lists; with a limit of bytes a page ends before its records are
// larger, though not before the first.
func (s *Server) listWithin(ctx context.Context, u api.User, t api.Target, o api.ListOptions, limit int) (*api.Page, error) {
	k, err := s.enterMany(u, t, o.Selection, "list")
	if err != nil {
		return nil, err
	}
	var p *api.Page
	if k.Virtual {
		p, err = s.listVirtual(ctx, u, k, t, o)
	} else if p, err = s.list(ctx, k, t, o, limit); err == nil {
		p, err = s.shownPage(k, p)
	}
	if err == nil && k.Deprecated != "" {
		p.Warnings = append(p.Warnings, k.Deprecated)
	}
	return p, err
}

// shownPage gives a page in the version of the request.
func (s *Server) shownPage(k *api.Kind, p *api.Page) (_ *api.Page, err error) {
	for i, r := range p.Records {
		if p.Records[i], err = s.codec.View(k, s.live(r)); err != nil {
			return nil, err
		}
	}
	p.Kind = k
	return p, nil
}

func (s *Server) list(ctx context.Context, k *api.Kind, t api.Target, o api.ListOptions, limit int) (*api.Page, error) {
	if err := checkList(o); err != nil {
		return nil, err
	}
	sel, err := selection(k, t, o.Selection)
	if err != nil {
		return nil, err
	}
	k = k.Stored()
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
		at = store.At{Level: store.Exactly, Revision: c.Revision}
		after = c.after(k)
	}
	snap, err := s.snapshot(ctx, at)
	if err != nil {
		return nil, s.expired(ctx, err, o, after)
	}
	return page(k, sel, snap, after, o.Limit, limit), nil
}

// page gives the records after a key: all of them, or up to a limit of records
// or bytes that is not 0.
func page(k *api.Kind, sel matcher, snap *store.Snapshot, after api.Key, limit int64, maxBytes int) *api.Page {
	p := &api.Page{Kind: k, Revision: snap.Revision()}
	size := 0
	for r := range sel.scan(k, snap, after) {
		seen := int64(len(p.Records))
		size += r.Len() + recordOverhead
		if limit > 0 && seen == limit || maxBytes > 0 && seen > 0 && size > maxBytes {
			p.Continue = tokenAfter(p.Revision, p.Records[seen-1]).encode()
			if sel.everything() {
				left := int64(snap.Count(k.KeyResource(), sel.namespace)-before(k, sel, snap, after)) - seen
				p.Remaining = &left
			}
			break
		}
		p.Records = append(p.Records, r)
	}
	return p
}

// recordOverhead is what a record takes on its way besides its bytes.
const recordOverhead = 96

// before counts what earlier pages held.
func before(k *api.Kind, sel matcher, snap *store.Snapshot, after api.Key) int {
	if after.Name == "" {
		return 0
	}
	n := snap.Count(k.KeyResource(), sel.namespace)
	for range snap.Scan(k.KeyResource(), sel.namespace, after) {
		n--
	}
	return n
}

// scan gives the records that match, in order, after a key: one that must have
// a certain name is looked up, and pods of one node have an index.
func (m matcher) scan(k *api.Kind, snap *store.Snapshot, after api.Key) iter.Seq[*api.Record] {
	return func(yield func(*api.Record) bool) {
		if name, ok := m.exactName(); ok && (m.namespace != "" || !k.Namespaced) {
			if r, ok := snap.Get(k.Key(m.namespace, name)); ok && m.matches(r) && later(r, after) {
				yield(r)
			}
			return
		}
		records := snap.Scan(k.KeyResource(), m.namespace, after)
		if node, ok := m.exact("spec.nodeName"); ok && k.KeyResource() == "pods" && node != "" {
			records = snap.ByField("pods", "spec.nodeName", node)
		}
		for r := range records {
			if m.matches(r) && later(r, after) && !yield(r) {
				return
			}
		}
	}
}

// later reports whether a record comes after a key of its resource.
func later(r *api.Record, after api.Key) bool {
	if after.Name == "" || r.Namespace != after.Namespace {
		return after.Name == "" || r.Namespace > after.Namespace
	}
	return r.Name > after.Name
}
