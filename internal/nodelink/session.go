package nodelink

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

const (
	// heartbeatEvery is how often a member that has no wish hears of the node, and silentFor
	// how long a member may be silent before the session is given up.
	heartbeatEvery = 4 * time.Second
	silentFor      = 12 * time.Second
	firstPause     = 100 * time.Millisecond
	lastPause      = 3 * time.Second
	// repeatAfter is when a status that was sent and not acknowledged is sent
	// again.
	repeatAfter = 5 * time.Second
)

// session is one stream to one member.
type session struct {
	l      *Link
	addr   string
	conn   *grpc.ClientConn
	stream grpc.BidiStreamingClient[wherryv1.SessionRequest, wherryv1.SessionResponse]
	send   sync.Mutex
	// whole gathers the messages of one delta.
	whole *Update
	spare chan struct{} // bounds the streams of one session
	every time.Duration // between heartbeats, as the member wants
}

// maxStreams bounds what members may ask of a node at once, per session.
const maxStreams = 256

// keep runs sessions to one member, one after the other, until ctx ends. Only
// the first of failures in a row is a warning.
func (l *Link) keep(ctx, whole context.Context, addr string) {
	level := slog.LevelWarn
	for pause := firstPause; ctx.Err() == nil; {
		began := time.Now()
		err := l.session(ctx, whole, addr)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > 10*time.Second {
			pause, level = firstPause, slog.LevelWarn
		}
		l.cfg.Log.Log(ctx, level, "session to a control plane member ended", "control", addr, "retry", pause, "err", err)
		level = slog.LevelDebug
		t := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		pause = min(pause*2, lastPause)
	}
}

// session is one session, from hello to its end.
func (l *Link) session(ctx, whole context.Context, addr string) error {
	conn, err := l.cfg.Dial(addr)
	if err != nil {
		return fmt.Errorf("dial %s: %w", addr, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(silentFor, func() { cancel(fmt.Errorf("%s said nothing for %s", addr, silentFor)) })
	defer silent.Stop()
	stream, err := wherryv1.NewNodesClient(conn).Session(ctx)
	if err != nil {
		return err
	}
	se := &session{l: l, addr: addr, conn: conn, stream: stream, spare: make(chan struct{}, maxStreams)}
	if err := se.hello(); err != nil {
		return err
	}
	defer l.leave(se)
	var writer sync.WaitGroup
	defer writer.Wait()
	defer cancel(nil)
	for started := false; ; started = true {
		m, err := stream.Recv()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return err
		}
		silent.Reset(silentFor)
		if err := se.handle(ctx, whole, m); err != nil {
			return err
		}
		if !started {
			writer.Go(func() { cancel(se.write(ctx)) })
		}
	}
}

func (se *session) hello() error {
	l := se.l
	reg, err := anyOf(l.cfg.Describe())
	if err != nil {
		return err
	}
	l.order.Lock()
	h := &wherryv1.Hello{Format: Format, Node: l.cfg.Node, BootId: l.cfg.BootID, Revision: l.revision, Registration: reg}
	l.order.Unlock()
	return se.push(&wherryv1.SessionRequest{Message: &wherryv1.SessionRequest_Hello{Hello: h}})
}

func (se *session) push(m *wherryv1.SessionRequest) error {
	se.send.Lock()
	defer se.send.Unlock()
	return se.stream.Send(m)
}

func (se *session) handle(ctx, whole context.Context, m *wherryv1.SessionResponse) error {
	switch m := m.GetMessage().(type) {
	case *wherryv1.SessionResponse_Welcome:
		w := m.Welcome
		if w.GetFormat() != Format {
			return fmt.Errorf("%s speaks session format %d, this node %d; upgrade the older side", se.addr, w.GetFormat(), Format)
		}
		se.every = time.Duration(w.GetHeartbeatMillis()) * time.Millisecond
		se.l.cfg.Handler.Joined(Cluster{NodeUID: w.GetNodeUid(), Domain: w.GetClusterDomain(), DNS: w.GetClusterDns(), PodCIDR: w.GetPodCidr(), ServiceCIDR: w.GetServiceCidr()})
		if se.l.enter(se, w.GetLeader()) {
			se.l.update(whole, w.GetControls(), w.GetLeader())
		}
	case *wherryv1.SessionResponse_HeartbeatAck:
		if se.l.lead(se, m.HeartbeatAck.GetLeader()) {
			se.l.update(whole, m.HeartbeatAck.GetControls(), m.HeartbeatAck.GetLeader())
		}
	case *wherryv1.SessionResponse_Delta:
		return se.delta(m.Delta)
	case *wherryv1.SessionResponse_StatusAck:
		se.l.acknowledged(m.StatusAck)
	case *wherryv1.SessionResponse_OpenStream:
		se.serve(ctx, func(ctx context.Context) { se.open(ctx, m.OpenStream) })
	case *wherryv1.SessionResponse_ImagesCall:
		se.serve(ctx, func(ctx context.Context) { se.answer(ctx, m.ImagesCall) })
	default:
		return fmt.Errorf("%s sent a message of a kind that is not known here: %T", se.addr, m)
	}
	return nil
}

// serve runs a request of the member beside the session. Beyond the limit it is
// not answered, and the member's own deadline ends it.
func (se *session) serve(ctx context.Context, do func(context.Context)) {
	select {
	case se.spare <- struct{}{}:
	default:
		se.l.cfg.Log.Warn("too many streams at once", "control", se.addr, "limit", maxStreams)
		return
	}
	se.l.group.Go(func() { // the next session does not wait for it
		defer func() { <-se.spare }()
		do(ctx)
	})
}

// Decode gives what one delta says.
func Decode(d *wherryv1.Delta) (*Update, error) {
	u := &Update{Revision: d.GetRevision(), Full: d.GetFull(), Remove: d.GetRemove()}
	for _, p := range d.GetPut() {
		obj, err := decode(p.GetObject())
		if err != nil {
			return nil, err
		}
		u.Put = append(u.Put, obj)
	}
	return u, nil
}

func (se *session) delta(d *wherryv1.Delta) error {
	part, err := Decode(d)
	if err != nil {
		return err
	}
	if se.whole == nil {
		se.whole = part
	} else {
		se.whole.Put = append(se.whole.Put, part.Put...)
		se.whole.Remove = append(se.whole.Remove, part.Remove...)
	}
	if d.GetMore() {
		return nil
	}
	u := *se.whole
	se.whole = nil
	se.l.apply(u)
	return nil
}

// write sends what is new, and heartbeats, until ctx ends. Status and events go
// up the primary session only.
func (se *session) write(ctx context.Context) error {
	beat := time.NewTicker(cmp.Or(se.every, heartbeatEvery))
	defer beat.Stop()
	sent := map[string]sending{}
	var node *wherryv1.NodeStatus
	for n := uint64(1); ; {
		batch, wake := se.l.news(se, sent, &node)
		for i, m := range batch {
			if err := se.push(m); err != nil {
				se.l.unsent(batch[i:])
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-beat.C:
			m := &wherryv1.SessionRequest{Message: &wherryv1.SessionRequest_Heartbeat{Heartbeat: &wherryv1.Heartbeat{Sequence: n}}}
			if err := se.push(m); err != nil {
				return err
			}
			n++
		}
	}
}

// sending is what a session last sent of a pod.
type sending struct {
	sequence uint64
	at       time.Time
}

// news gives what the session has yet to send and how to wait for more.
func (l *Link) news(se *session, sent map[string]sending, node **wherryv1.NodeStatus) ([]*wherryv1.SessionRequest, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.primary != se {
		clear(sent)
		*node = nil
		return nil, l.wake
	}
	var out []*wherryv1.SessionRequest
	if l.node != nil && l.node != *node {
		*node = l.node
		out = append(out, &wherryv1.SessionRequest{Message: &wherryv1.SessionRequest_NodeStatus{NodeStatus: l.node}})
	}
	now := time.Now()
	for uid, s := range l.statuses {
		if was := sent[uid]; was.sequence == s.GetSequence() && now.Sub(was.at) < repeatAfter {
			continue
		}
		sent[uid] = sending{s.GetSequence(), now}
		out = append(out, &wherryv1.SessionRequest{Message: &wherryv1.SessionRequest_PodStatus{PodStatus: s}})
	}
	for uid := range sent {
		if l.statuses[uid] == nil {
			delete(sent, uid)
		}
	}
	for _, e := range l.events {
		out = append(out, &wherryv1.SessionRequest{Message: &wherryv1.SessionRequest_Event{Event: e}})
	}
	l.events = nil
	if l.dropped > 0 {
		l.cfg.Log.Warn("events dropped while no control plane member could be reached", "count", l.dropped)
		l.dropped = 0
	}
	return out, l.wake
}

// unsent keeps the events among messages that could not be sent.
func (l *Link) unsent(batch []*wherryv1.SessionRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var back []*wherryv1.NodeEvent
	for _, m := range batch {
		if e := m.GetEvent(); e != nil {
			back = append(back, e)
		}
	}
	l.events = append(back, l.events...)
}

// enter takes a session in. It reports whether what the member says of the
// cluster counts.
func (l *Link) enter(se *session, leader bool) bool {
	l.mu.Lock()
	l.live[se.addr] = se
	if l.primary == nil {
		l.primary, l.led = se, false
	}
	l.newsLocked()
	l.mu.Unlock()
	return l.lead(se, leader)
}

// lead makes the leader's session the primary one. It reports whether what the
// member says of the cluster counts: the leader's word does, and another's only
// while no leader can be reached.
func (l *Link) lead(se *session, leader bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case leader && (l.primary != se || !l.led):
		l.primary, l.led = se, true
		l.newsLocked()
	case !leader && l.primary == se:
		l.led = false
	}
	return leader || !l.led
}

func (l *Link) leave(se *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live[se.addr] == se {
		delete(l.live, se.addr)
	}
	if l.primary == se {
		l.primary, l.led = nil, false
		for _, other := range l.live {
			l.primary = other
			break
		}
		l.newsLocked()
	}
}

// decode unwraps an object of the node's share.
func decode(a *anypb.Any) (metav1.Object, error) {
	for _, obj := range []api.Object{
		&corev1.Pod{}, &discoveryv1.EndpointSlice{}, &corev1.Service{}, &corev1.Node{}, &corev1.Namespace{}, &corev1.ConfigMap{}, &corev1.Secret{},
	} {
		if a.GetTypeUrl() == "type.googleapis.com/"+api.MessageName(obj) {
			return obj, api.FromAny(a, obj)
		}
	}
	return nil, fmt.Errorf("object of a kind that this node does not know: %q", a.GetTypeUrl())
}

func anyOf(m interface{ Marshal() ([]byte, error) }) (*anypb.Any, error) { return api.ToAny(m) }
