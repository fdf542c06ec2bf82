package dispatch

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/store"
)

// Images serves wherry.v1.Images by asking the nodes.
type Images struct {
	wherryv1.UnimplementedImagesServer
	s *Server
}

// Images gives the service over the server's sessions.
func (s *Server) Images() *Images { return &Images{s: s} }

// pullWithin bounds a pull that a client asked for.
const pullWithin = 10 * time.Minute

func (g *Images) allowed(ctx context.Context, verb string) error {
	u, err := g.s.cfg.Identify(ctx)
	if err != nil {
		return err
	}
	return g.s.cfg.Authorize(u, api.Target{Group: "wherry.internal", Version: "v1", Resource: "images"}, verb)
}

// nodes are those asked for, or all that the cluster has.
func (g *Images) nodes(ctx context.Context, asked []string) ([]string, error) {
	if len(asked) > 0 {
		return asked, nil
	}
	snap, err := g.s.cfg.Store.Snapshot(ctx, store.At{Level: store.Any})
	if err != nil {
		return nil, err
	}
	var all []string
	for r := range snap.Scan("nodes", "", api.Key{}) {
		all = append(all, r.Name)
	}
	if len(all) == 0 {
		return nil, apierr.Unavailable("the cluster has no node yet")
	}
	return all, nil
}

// ask sends a request to every node and gives the answers in order.
func ask[T proto.Message](ctx context.Context, g *Images, nodes []string, request proto.Message, fresh func() T) ([]T, error) {
	out := make([]T, len(nodes))
	errs := make([]error, len(nodes))
	var group sync.WaitGroup
	for i, n := range nodes {
		group.Go(func() {
			out[i] = fresh()
			errs[i] = g.s.call(ctx, n, request, out[i])
		})
	}
	group.Wait()
	return out, errors.Join(errs...)
}

// call asks one node.
func (s *Server) call(ctx context.Context, node string, request, answer proto.Message) error {
	se, err := s.await(ctx, node)
	if err != nil {
		return err
	}
	a, err := anypb.New(request)
	if err != nil {
		return err
	}
	id := string(uuid.NewUUID())
	got := make(chan *wherryv1.ImagesReply, 1)
	se.mu.Lock()
	se.calls[id] = got
	se.mu.Unlock()
	defer func() {
		se.mu.Lock()
		delete(se.calls, id)
		se.mu.Unlock()
	}()
	if err := se.push(ctx, &wherryv1.SessionResponse{Message: &wherryv1.SessionResponse_ImagesCall{ImagesCall: &wherryv1.ImagesCall{Id: id, Request: a}}}); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return apierr.New(apierr.ErrTimeout, "node %q did not answer in time", node)
	case <-se.stream.Context().Done():
		return apierr.Unavailable("node %q went away", node)
	case r := <-got:
		if r.GetError() != nil {
			return remoteError(r.GetError())
		}
		return r.GetResponse().UnmarshalTo(answer)
	}
}

// reply hands a node's answer to whoever asked.
func (se *session) reply(m *wherryv1.ImagesReply) {
	se.mu.Lock()
	got := se.calls[m.GetId()]
	delete(se.calls, m.GetId())
	se.mu.Unlock()
	if got != nil {
		got <- m
	}
}

// ListImages implements wherryv1.ImagesServer.
func (g *Images) ListImages(ctx context.Context, r *wherryv1.ListImagesRequest) (*wherryv1.ListImagesResponse, error) {
	if err := g.allowed(ctx, "list"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	nodes, err := g.nodes(ctx, r.GetNodes())
	if err != nil {
		return nil, err
	}
	answers, err := ask(ctx, g, nodes, &wherryv1.ListImagesRequest{}, func() *wherryv1.ListImagesResponse { return &wherryv1.ListImagesResponse{} })
	if err != nil {
		return nil, err
	}
	out := &wherryv1.ListImagesResponse{}
	for i, a := range answers {
		out.Images = append(out.Images, on(nodes[i], a.GetImages())...)
	}
	return out, nil
}

func on(node string, list []*wherryv1.NodeImage) []*wherryv1.NodeImage {
	for _, m := range list {
		m.Node = node
	}
	return list
}

// PullImage implements wherryv1.ImagesServer.
func (g *Images) PullImage(ctx context.Context, r *wherryv1.PullImageRequest) (*wherryv1.PullImageResponse, error) {
	if err := g.allowed(ctx, "create"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, pullWithin)
	defer cancel()
	nodes, err := g.nodes(ctx, r.GetNodes())
	if err != nil {
		return nil, err
	}
	answers, err := ask(ctx, g, nodes, &wherryv1.PullImageRequest{Reference: r.GetReference()}, func() *wherryv1.PullImageResponse { return &wherryv1.PullImageResponse{} })
	if err != nil {
		return nil, err
	}
	out := &wherryv1.PullImageResponse{}
	for i, a := range answers {
		out.Images = append(out.Images, on(nodes[i], a.GetImages())...)
	}
	return out, nil
}

// RemoveImage implements wherryv1.ImagesServer.
func (g *Images) RemoveImage(ctx context.Context, r *wherryv1.RemoveImageRequest) (*wherryv1.RemoveImageResponse, error) {
	if err := g.allowed(ctx, "delete"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	nodes, err := g.nodes(ctx, r.GetNodes())
	if err != nil {
		return nil, err
	}
	answers, err := ask(ctx, g, nodes, &wherryv1.RemoveImageRequest{Reference: r.GetReference()}, func() *wherryv1.RemoveImageResponse { return &wherryv1.RemoveImageResponse{} })
	if err != nil {
		return nil, err
	}
	out := &wherryv1.RemoveImageResponse{}
	for _, a := range answers {
		out.Nodes += a.GetNodes()
	}
	if out.Nodes == 0 {
		return nil, apierr.New(apierr.ErrNotFound, "image %q is on none of the nodes", r.GetReference())
	}
	return out, nil
}

// ImportImages implements wherryv1.ImagesServer: the archive is passed to all
// nodes as it comes, nothing is kept here. The slowest node sets the pace.
func (g *Images) ImportImages(in grpc.ClientStreamingServer[wherryv1.ImportImagesRequest, wherryv1.ImportImagesResponse]) error {
	ctx := in.Context()
	if err := g.allowed(ctx, "create"); err != nil {
		return err
	}
	first, err := in.Recv()
	if err != nil {
		return err
	}
	nodes, err := g.nodes(ctx, first.GetNodes())
	if err != nil {
		return err
	}
	var to []*carrier
	defer func() {
		for _, c := range to {
			c.close()
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, n := range nodes {
		c, err := g.s.open(ctx, n, &wherryv1.OpenStream{Open: &wherryv1.OpenStream_Images{Images: &wherryv1.ImagesOpen{}}})
		if err != nil {
			return err
		}
		to = append(to, c)
		context.AfterFunc(ctx, c.close) // a client that is gone waits for no node
	}
	if err := spread(in, first, to); err != nil {
		return err
	}
	out := &wherryv1.ImportImagesResponse{}
	for i, c := range to {
		m, err := c.read()
		if err != nil {
			return err
		}
		part := &wherryv1.ImportImagesResponse{}
		if err := m.GetResult().UnmarshalTo(part); err != nil {
			return apierr.Internal(err)
		}
		out.Images = append(out.Images, on(nodes[i], part.GetImages())...)
	}
	return in.SendAndClose(out)
}

// spread passes the archive on. A node that has refused it already says why
// when it is read; so a failed write is not the last word.
func spread(in grpc.ClientStreamingServer[wherryv1.ImportImagesRequest, wherryv1.ImportImagesResponse], m *wherryv1.ImportImagesRequest, to []*carrier) error {
	for {
		for _, c := range to {
			if len(m.GetData()) > 0 {
				if err := c.write(&wherryv1.StreamResponse{Data: &wherryv1.StreamResponse_Bytes{Bytes: m.GetData()}}); err != nil {
					return err
				}
			}
		}
		var err error
		if m, err = in.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	for _, c := range to {
		if err := c.write(&wherryv1.StreamResponse{Data: &wherryv1.StreamResponse_End{End: true}}); err != nil {
			return err
		}
	}
	return nil
}

// ExportImage implements wherryv1.ImagesServer.
func (g *Images) ExportImage(r *wherryv1.ExportImageRequest, out grpc.ServerStreamingServer[wherryv1.ExportImageResponse]) error {
	if err := g.allowed(out.Context(), "get"); err != nil {
		return err
	}
	if r.GetNode() == "" || r.GetReference() == "" {
		return apierr.BadRequest("node and reference must be given")
	}
	c, err := g.s.open(out.Context(), r.GetNode(), &wherryv1.OpenStream{Open: &wherryv1.OpenStream_Images{Images: &wherryv1.ImagesOpen{ExportReference: r.GetReference()}}})
	if err != nil {
		return err
	}
	defer c.close()
	for {
		m, err := c.read()
		if err != nil {
			return err
		}
		if m.GetEnd() {
			return nil
		}
		if err := out.Send(&wherryv1.ExportImageResponse{Data: m.GetBytes()}); err != nil {
			return err
		}
	}
}
