package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authz"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/store"
)

const (
	// helloWithin bounds how long a connection may stay silent at first, and
	// silentFor how long later.
	helloWithin = 10 * time.Second
	silentFor   = time.Minute
	// downQueue bounds the messages that wait for a slow node; beyond it the
	// session ends and the node starts over with a full set.
	downQueue = 256
)

// session is one node's stream to this controld.
type session struct {
	s      *Server
	node   string
	user   api.User
	door   Door
	stream grpc.BidiStreamingServer[wherryv1.SessionRequest, wherryv1.SessionResponse]
	cancel context.CancelFunc
	down   chan *wherryv1.SessionResponse
	status *reports

	mu    sync.Mutex
	calls map[string]chan *wherryv1.ImagesReply
}

// Session implements wherryv1.NodesServer.
func (s *Server) Session(stream grpc.BidiStreamingServer[wherryv1.SessionRequest, wherryv1.SessionResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	u, err := s.cfg.Identify(ctx)
	if err != nil {
		return err
	}
	node, ok := authz.NodeName(u)
	if !ok {
		return apierr.Forbidden("nodes", "", fmt.Errorf("sessions are for nodes; %q is none", u.Name))
	}
	silent := time.AfterFunc(helloWithin, cancel)
	defer silent.Stop()
	first, err := receive(ctx, stream)
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if err := checkHello(hello, node); err != nil {
		return err
	}
	se := &session{
		s: s, node: node, user: u, door: s.cfg.As(u), stream: stream, cancel: cancel,
		down: make(chan *wherryv1.SessionResponse, downQueue), calls: map[string]chan *wherryv1.ImagesReply{},
	}
	se.status = newReports(se)
	return se.run(ctx, hello, silent)
}

func checkHello(h *wherryv1.Hello, node string) error {
	switch {
	case h == nil:
		return apierr.BadRequest("the first message of a session must be hello")
	case h.GetFormat() != Format:
		return apierr.BadRequest("hello.format %d is not spoken here, only %d; upgrade the older side", h.GetFormat(), Format)
	case h.GetNode() != node:
		return apierr.BadRequest("hello.node %q is not the node of the certificate, %q", h.GetNode(), node)
	}
	return nil
}

// receive waits for a message, but not longer than ctx: Recv itself ends with
// the stream only.
func receive(ctx context.Context, stream grpc.BidiStreamingServer[wherryv1.SessionRequest, wherryv1.SessionResponse]) (*wherryv1.SessionRequest, error) {
	type result struct {
		m   *wherryv1.SessionRequest
		err error
	}
	got := make(chan result, 1)
	go func() { // ends with the stream, which ends when the handler returns
		m, err := stream.Recv()
		got <- result{m, err}
	}()
	select {
	case <-ctx.Done():
		return nil, apierr.New(apierr.ErrTimeout, "the node said nothing for %s", helloWithin)
	case r := <-got:
		return r.m, r.err
	}
}

// run is the session's life: register, welcome, and then three loops until one
// of them ends.
func (se *session) run(ctx context.Context, hello *wherryv1.Hello, silent *time.Timer) error {
	node, err := se.register(ctx, hello)
	if err != nil {
		return err
	}
	se.down <- &wherryv1.SessionResponse{Message: &wherryv1.SessionResponse_Welcome{Welcome: se.welcome(node)}}
	se.s.enter(se)
	defer se.s.leave(se)
	se.s.beat(se.node)
	se.s.cfg.Log.Info("node connected", "node", se.node)
	defer se.s.cfg.Log.Info("node disconnected", "node", se.node)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// These two may hang in the stream: it ends when the handler returns, and
	// they with it.
	go func() { cancel(se.send(ctx)) }()
	go func() { cancel(se.hear(ctx, silent)) }()
	cancel(se.tell(ctx))
	se.status.wait()
	if err := context.Cause(ctx); !errors.Is(err, io.EOF) && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (se *session) register(ctx context.Context, hello *wherryv1.Hello) (*corev1.Node, error) {
	want := &corev1.Node{}
	if err := api.FromAny(hello.GetRegistration(), want); err != nil {
		return nil, apierr.BadRequest("hello.registration: %v", err)
	}
	want.Name = se.node
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	obj, err := se.door.RegisterNode(ctx, want)
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Node), nil
}

func (se *session) welcome(n *corev1.Node) *wherryv1.Welcome {
	c := se.s.cfg.Cluster
	return &wherryv1.Welcome{
		Format: Format, NodeUid: string(n.UID), Leader: se.s.cfg.Leader(), Controls: se.s.cfg.Controls(),
		ClusterDomain: c.Domain, ClusterDns: c.DNS, PodCidr: c.PodCIDR, ServiceCidr: c.ServiceCIDR,
		HeartbeatMillis: se.s.cfg.Heartbeat.Milliseconds(),
	}
}

// push queues a message down. A node that does not read loses its session.
func (se *session) push(ctx context.Context, m *wherryv1.SessionResponse) error {
	t := time.NewTimer(cmp.Or(se.s.cfg.Slow, 30*time.Second))
	defer t.Stop()
	select {
	case se.down <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return apierr.New(apierr.ErrTimeout, "node %q does not read its session", se.node)
	}
}

// send writes what is queued; it is the only sender.
func (se *session) send(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-se.down:
			if err := se.stream.Send(m); err != nil {
				return err
			}
		}
	}
}

// tell sends the node's share: all of it, then what changes.
func (se *session) tell(ctx context.Context) error {
	h := newShare(se.node, se.s.cfg.Codec)
	for {
		snap, err := se.s.cfg.Store.Snapshot(ctx, store.At{Level: store.Any})
		if err != nil {
			return err
		}
		if err := se.deltas(ctx, h.messages(snap.Revision(), true, h.full(snap))); err != nil {
			return err
		}
		err = se.follow(ctx, h, snap.Revision())
		if !errors.Is(err, apierr.ErrExpired) {
			return err
		}
	}
}

func (se *session) follow(ctx context.Context, h *share, from uint64) error {
	w, err := se.s.cfg.Store.Watch(ctx, store.Filter{}, from)
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		events, upTo, err := w.Next(ctx)
		if err != nil {
			return err
		}
		snap, err := se.s.cfg.Store.Snapshot(ctx, store.At{Level: store.Any})
		if err != nil {
			return err
		}
		d := h.delta(snap, events)
		if len(d.put)+len(d.remove) == 0 {
			continue
		}
		if err := se.deltas(ctx, h.messages(upTo, false, d)); err != nil {
			return err
		}
	}
}

func (se *session) deltas(ctx context.Context, list []*wherryv1.Delta) error {
	for _, d := range list {
		if err := se.push(ctx, &wherryv1.SessionResponse{Message: &wherryv1.SessionResponse_Delta{Delta: d}}); err != nil {
			return err
		}
	}
	return nil
}

// hear takes what the node says.
func (se *session) hear(ctx context.Context, silent *time.Timer) error {
	for {
		silent.Reset(silentFor)
		m, err := se.stream.Recv()
		if err != nil {
			return err
		}
		if err := se.handle(ctx, m); err != nil {
			return err
		}
	}
}

func (se *session) handle(ctx context.Context, m *wherryv1.SessionRequest) error {
	switch m := m.GetMessage().(type) {
	case *wherryv1.SessionRequest_Heartbeat:
		se.s.beat(se.node)
		return se.push(ctx, &wherryv1.SessionResponse{Message: &wherryv1.SessionResponse_HeartbeatAck{HeartbeatAck: &wherryv1.HeartbeatAck{
			Sequence: m.Heartbeat.GetSequence(), Leader: se.s.cfg.Leader(), Controls: se.s.cfg.Controls(),
		}}})
	case *wherryv1.SessionRequest_PodStatus:
		se.status.put(ctx, m.PodStatus)
	case *wherryv1.SessionRequest_NodeStatus:
		st := &corev1.NodeStatus{}
		if err := api.FromAny(m.NodeStatus.GetStatus(), st); err != nil {
			return apierr.BadRequest("node_status: %v", err)
		}
		se.status.putNode(ctx, st)
	case *wherryv1.SessionRequest_Event:
		e := &corev1.Event{}
		if err := api.FromAny(m.Event.GetEvent(), e); err != nil {
			return apierr.BadRequest("event: %v", err)
		}
		se.status.putEvent(ctx, e)
	case *wherryv1.SessionRequest_ImagesReply:
		se.reply(m.ImagesReply)
	case *wherryv1.SessionRequest_RulesApplied:
	default:
		return apierr.BadRequest("a session message of a kind that is not spoken here: %T", m)
	}
	return nil
}
