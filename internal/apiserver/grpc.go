package apiserver

import (
	"context"
	"errors"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// Service serves wherry.v1.Resources in front of a Server.
type Service struct {
	wherryv1.UnimplementedResourcesServer
	s *Server
	// user tells who calls.
	user func(context.Context) (api.User, error)
}

// NewService makes the gRPC service; user finds the caller's identity.
func NewService(s *Server, user func(context.Context) (api.User, error)) *Service {
	return &Service{s: s, user: user}
}

func target(t *wherryv1.Target) api.Target {
	return api.Target{Group: t.GetGroup(), Version: t.GetVersion(), Resource: t.GetResource(), Namespace: t.GetNamespace(), Name: t.GetName(), Subresource: t.GetSubresource()}
}

func selectionOf(sel *wherryv1.Selection) (out api.Selection, err error) {
	if sel.GetLabels() != "" {
		if out.Labels, err = labels.Parse(sel.GetLabels()); err != nil {
			return out, apierr.BadRequest("%w", err)
		}
	}
	if sel.GetFields() != "" {
		if out.Fields, err = fields.ParseSelector(sel.GetFields()); err != nil {
			return out, apierr.BadRequest("%w", err)
		}
	}
	return out, nil
}

func writeOptions(o *wherryv1.WriteOptions) api.WriteOptions {
	return api.WriteOptions{DryRun: o.GetDryRun(), FieldManager: o.GetFieldManager(), FieldValidation: o.GetFieldValidation(), Force: o.GetForce()}
}

func deleteOptions(o *wherryv1.DeleteOptions) metav1.DeleteOptions {
	var out metav1.DeleteOptions
	if o != nil {
		out.GracePeriodSeconds = o.GracePeriodSeconds
		out.OrphanDependents = o.OrphanDependents //nolint:staticcheck // old clients send it
	}
	if p := metav1.DeletionPropagation(o.GetPropagationPolicy()); p != "" {
		out.PropagationPolicy = &p
	}
	if o.GetUid() != "" || o.GetResourceVersion() != "" {
		out.Preconditions = &metav1.Preconditions{}
		if uid := types.UID(o.GetUid()); uid != "" {
			out.Preconditions.UID = &uid
		}
		if rv := o.GetResourceVersion(); rv != "" {
			out.Preconditions.ResourceVersion = &rv
		}
	}
	if o.GetDryRun() {
		out.DryRun = []string{metav1.DryRunAll}
	}
	return out
}

// Kinds implements wherryv1.ResourcesServer.
func (g *Service) Kinds(context.Context, *wherryv1.KindsRequest) (*wherryv1.KindsResponse, error) {
	out := &wherryv1.KindsResponse{}
	for _, k := range g.s.Kinds().All() {
		kind := &wherryv1.Kind{
			Group: k.Group, Version: k.Version, Kind: k.Kind, Resource: k.Resource, Singular: k.Singular,
			Namespaced: k.Namespaced, Verbs: k.Verbs, ShortNames: k.ShortNames, Categories: k.Categories,
		}
		for _, sub := range k.Subresources {
			kind.Subresources = append(kind.Subresources, &wherryv1.Subresource{Name: sub.Name, Group: sub.Group, Version: sub.Version, Kind: sub.Kind, Verbs: sub.Verbs})
		}
		out.Kinds = append(out.Kinds, kind)
	}
	return out, nil
}

// Get implements wherryv1.ResourcesServer.
func (g *Service) Get(ctx context.Context, r *wherryv1.GetRequest) (*wherryv1.GetResponse, error) {
	u, err := g.user(ctx)
	if err != nil {
		return nil, err
	}
	v, err := g.s.Get(ctx, u, target(r.GetTarget()), api.GetOptions{ResourceVersion: r.GetResourceVersion()})
	if err != nil {
		return nil, err
	}
	a, err := g.s.Kinds().ValueAny(v)
	return &wherryv1.GetResponse{Object: a, Warnings: v.Warnings}, err
}

// listBytes ends a page before gRPC's default limit of 4 MiB does.
const listBytes = 3 << 20

// List implements wherryv1.ResourcesServer.
func (g *Service) List(ctx context.Context, r *wherryv1.ListRequest) (*wherryv1.ListResponse, error) {
	u, err := g.user(ctx)
	if err != nil {
		return nil, err
	}
	sel, err := selectionOf(r.GetSelection())
	if err != nil {
		return nil, err
	}
	p, err := g.s.listWithin(ctx, u, target(r.GetTarget()), api.ListOptions{
		Selection: sel, Limit: r.GetLimit(), Continue: r.GetContinueToken(), ResourceVersion: r.GetResourceVersion(),
		ResourceVersionMatch: metav1.ResourceVersionMatch(r.GetResourceVersionMatch()),
	}, listBytes)
	if err != nil {
		return nil, err
	}
	return &wherryv1.ListResponse{
		ResourceVersion: strconv.FormatUint(p.Revision, 10), ContinueToken: p.Continue, RemainingItems: p.Remaining, Items: items(p), Warnings: p.Warnings,
	}, nil
}

// items are the objects of a page.
func items(p *api.Page) []*anypb.Any {
	out := make([]*anypb.Any, len(p.Records))
	for i, r := range p.Records {
		out[i] = p.Kind.RecordAny(r)
	}
	return out
}

// Watch implements wherryv1.ResourcesServer.
func (g *Service) Watch(r *wherryv1.WatchRequest, out grpc.ServerStreamingServer[wherryv1.WatchResponse]) error {
	ctx := out.Context()
	u, err := g.user(ctx)
	if err != nil {
		return err
	}
	sel, err := selectionOf(r.GetSelection())
	if err != nil {
		return err
	}
	o := api.WatchOptions{
		Selection: sel, ResourceVersion: r.GetResourceVersion(), Bookmarks: r.GetBookmarks(),
		ResourceVersionMatch: metav1.ResourceVersionMatch(r.GetResourceVersionMatch()),
	}
	if o.SendInitialEvents = r.InitialEvents; o.SendInitialEvents == nil && r.GetSendInitialEvents() {
		o.SendInitialEvents = &r.SendInitialEvents
	}
	t := target(r.GetTarget())
	st, err := g.s.Watch(ctx, u, t, o)
	if err != nil {
		return err
	}
	defer st.Stop()
	if s := r.GetTimeoutSeconds(); s > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(s)*time.Second)
		defer cancel()
	}
	k, _ := g.s.Kinds().Resource(t.Group, t.Version, t.Resource)
	for {
		events, err := st.Next(ctx)
		if err != nil && out.Context().Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return nil // the time that the client asked for is over
		}
		if err != nil {
			return err
		}
		for _, e := range events {
			m, err := watchMessage(k, e)
			if err != nil {
				return err
			}
			if err := out.Send(m); err != nil {
				return err
			}
		}
	}
}

func eventType(t api.EventType) wherryv1.EventType {
	switch t {
	case api.Added:
		return wherryv1.EventType_EVENT_TYPE_ADDED
	case api.Modified:
		return wherryv1.EventType_EVENT_TYPE_MODIFIED
	case api.Deleted:
		return wherryv1.EventType_EVENT_TYPE_DELETED
	case api.Bookmark:
		return wherryv1.EventType_EVENT_TYPE_BOOKMARK
	}
	return wherryv1.EventType_EVENT_TYPE_UNSPECIFIED
}

func watchMessage(k *api.Kind, e api.WatchEvent) (*wherryv1.WatchResponse, error) {
	m := &wherryv1.WatchResponse{Type: eventType(e.Type)}
	if e.Type != api.Bookmark {
		m.Object = k.RecordAny(e.Record)
		return m, nil
	}
	mark := k.New()
	mark.SetResourceVersion(strconv.FormatUint(e.Revision, 10))
	if e.InitialEnd {
		mark.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	var err error
	m.Object, err = api.ToAny(mark)
	return m, err
}

// body unwraps an object.
func (g *Service) body(a *anypb.Any) (api.Object, error) {
	obj, err := g.s.Kinds().ObjectOf(a)
	if err != nil {
		return nil, apierr.BadRequest("object: %v", err)
	}
	return obj, nil
}

// Create implements wherryv1.ResourcesServer.
func (g *Service) Create(ctx context.Context, r *wherryv1.CreateRequest) (*wherryv1.CreateResponse, error) {
	u, err := g.user(ctx)
	if err != nil {
		return nil, err
	}
	obj, err := g.body(r.GetObject())
	if err != nil {
		return nil, err
	}
	v, err := g.s.Create(ctx, u, target(r.GetTarget()), obj, writeOptions(r.GetOptions()))
	if err != nil {
		return nil, err
	}
	a, err := g.s.Kinds().ValueAny(v)
	return &wherryv1.CreateResponse{Object: a, Warnings: v.Warnings}, err
}

// Update implements wherryv1.ResourcesServer.
func (g *Service) Update(ctx context.Context, r *wherryv1.UpdateRequest) (*wherryv1.UpdateResponse, error) {
	u, err := g.user(ctx)
	if err != nil {
		return nil, err
	}
	obj, err := g.body(r.GetObject())
	if err != nil {
		return nil, err
	}
	v, err := g.s.Update(ctx, u, target(r.GetTarget()), obj, writeOptions(r.GetOptions()))
	if err != nil {
		return nil, err
	}
	a, err := g.s.Kinds().ValueAny(v)
	return &wherryv1.UpdateResponse{Object: a, Warnings: v.Warnings, Created: v.Created}, err
}

// Patch implements wherryv1.ResourcesServer.
func (g *Service) Patch(ctx context.Context, r *wherryv1.PatchRequest) (*wherryv1.PatchResponse, error) {
	u, err := g.user(ctx)
	if err != nil {
		return nil, err
	}
	pt, ok := map[wherryv1.PatchType]types.PatchType{
		wherryv1.PatchType_PATCH_TYPE_JSON: types.JSONPatchType, wherryv1.PatchType_PATCH_TYPE_MERGE: types.MergePatchType,
		wherryv1.PatchType_PATCH_TYPE_STRATEGIC: types.StrategicMergePatchType, wherryv1.PatchType_PATCH_TYPE_APPLY: types.ApplyPatchType,
	}[r.GetType()]
	if !ok {
		return nil, apierr.BadRequest("type: %s is not a patch type; use JSON, MERGE, STRATEGIC or APPLY", r.GetType())
	}
	v, err := g.s.Patch(ctx, u, target(r.GetTarget()), pt, r.GetPatch(), writeOptions(r.GetOptions()))
	if err != nil {
		return nil, err
	}
	a, err := g.s.Kinds().ValueAny(v)
	return &wherryv1.PatchResponse{Object: a, Warnings: v.Warnings, Created: v.Created}, err
}

// Delete implements wherryv1.ResourcesServer.
func (g *Service) Delete(ctx context.Context, r *wherryv1.DeleteRequest) (*wherryv1.DeleteResponse, error) {
	u, err := g.user(ctx)
	if err != nil {
		return nil, err
	}
	d, err := g.s.Delete(ctx, u, target(r.GetTarget()), deleteOptions(r.GetOptions()))
	if err != nil {
		return nil, err
	}
	out := &wherryv1.DeleteResponse{Gone: d.Gone, Warnings: d.Warnings}
	if !d.Gone || d.Kind.DeleteAnswersObject {
		out.Object, err = g.s.Kinds().ValueAny(d.Value)
		return out, err
	}
	out.Object, err = api.ToAny(&metav1.Status{
		Status: metav1.StatusSuccess, Details: &metav1.StatusDetails{Name: r.GetTarget().GetName(), Group: d.Kind.Group, Kind: d.Kind.Resource, UID: d.UID},
	})
	return out, err
}

// DeleteCollection implements wherryv1.ResourcesServer.
func (g *Service) DeleteCollection(ctx context.Context, r *wherryv1.DeleteCollectionRequest) (*wherryv1.DeleteCollectionResponse, error) {
	u, err := g.user(ctx)
	if err != nil {
		return nil, err
	}
	sel, err := selectionOf(r.GetSelection())
	if err != nil {
		return nil, err
	}
	within := 0
	if r.GetReturnItems() {
		within = listBytes
	}
	p, err := g.s.deleteCollectionWithin(ctx, u, target(r.GetTarget()), api.ListOptions{
		Selection: sel, Limit: r.GetLimit(), Continue: r.GetContinueToken(), ResourceVersion: r.GetResourceVersion(),
		ResourceVersionMatch: metav1.ResourceVersionMatch(r.GetResourceVersionMatch()),
	}, deleteOptions(r.GetOptions()), within)
	if err != nil {
		return nil, err
	}
	out := &wherryv1.DeleteCollectionResponse{
		Deleted: int64(len(p.Records)), ResourceVersion: strconv.FormatUint(p.Revision, 10),
		ContinueToken: p.Continue, RemainingItems: p.Remaining, Warnings: p.Warnings,
	}
	if r.GetReturnItems() {
		out.Items = items(p)
	}
	return out, nil
}
