package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/dispatch"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/testkit"
)

// noDoor lets a node register and refuses the rest.
type noDoor struct{ dispatch.Door }

func (noDoor) RegisterNode(_ context.Context, n *corev1.Node) (api.Object, error) { return n, nil }

// member is a controld that a test speaks to as a node.
type member struct {
	t     *testing.T
	codec *api.Codec
	store *store.Local
	nodes *dispatch.Server
	node  wherryv1.NodesClient
}

func newMember(t *testing.T, user api.User) *member {
	t.Helper()
	return newMemberWith(t, user, 0)
}

// newMemberWith is newMember where a node that reads nothing for so long is cut
// off.
func newMemberWith(t *testing.T, user api.User, slow time.Duration) *member {
	t.Helper()
	testkit.Leaks(t)
	codec := api.NewCodec(kinds.Table(), 1<<20)
	m := &member{t: t, codec: codec, store: store.NewLocal(codec)}
	m.nodes = dispatch.New(dispatch.Config{
		Store: m.store, Codec: codec, As: func(api.User) dispatch.Door { return noDoor{} },
		Identify: func(context.Context) (api.User, error) { return user, nil },
		Leader:   func() bool { return true }, Controls: func() []string { return []string{"c1:7443"} },
		Cluster: dispatch.Cluster{Domain: "cluster.local"}, Slow: slow, Log: slog.New(slog.DiscardHandler),
	})
	conn := testkit.GRPC(t, func(srv *grpc.Server) { wherryv1.RegisterNodesServer(srv, m.nodes) })
	m.node = wherryv1.NewNodesClient(conn)
	return m
}

func n1() api.User { return api.User{Name: authz.NodePrefix + "n1", Groups: []string{authz.Nodes}} }

type stream = grpc.BidiStreamingClient[wherryv1.SessionRequest, wherryv1.SessionResponse]

func (m *member) hello(h *wherryv1.Hello) stream {
	m.t.Helper()
	if h.GetRegistration() == nil {
		a, err := api.ToAny(&corev1.Node{})
		if err != nil {
			m.t.Fatal(err)
		}
		h.Registration = a
	}
	return m.say(&wherryv1.SessionRequest{Message: &wherryv1.SessionRequest_Hello{Hello: h}})
}

func (m *member) say(r *wherryv1.SessionRequest) stream {
	m.t.Helper()
	s, err := m.node.Session(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	// The end of the stream says nothing here: the next Recv says why.
	if err := s.Send(r); err != nil && !errors.Is(err, io.EOF) {
		m.t.Fatal(err)
	}
	return s
}

// welcomed is a session after its welcome and first full delta.
func (m *member) welcomed() stream {
	m.t.Helper()
	s := m.hello(&wherryv1.Hello{Format: dispatch.Format, Node: "n1"})
	if r := m.next(s); r.GetWelcome().GetClusterDomain() != "cluster.local" || !r.GetWelcome().GetLeader() {
		m.t.Fatalf("first message %v", r)
	}
	return s
}

func (m *member) next(s stream) *wherryv1.SessionResponse {
	m.t.Helper()
	r, err := s.Recv()
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

// write stores objects; ones with a deletion timestamp are deleted.
func (m *member) write(list ...api.Object) {
	m.t.Helper()
	var c store.Command
	for _, o := range list {
		k, ok := m.codec.Kinds().Of(o)
		if !ok {
			m.t.Fatalf("%T is no kind", o)
		}
		r, err := k.Record(o)
		if err != nil {
			m.t.Fatal(err)
		}
		ch := store.Change{Op: store.Put, Key: r.Key, Record: r}
		if o.GetDeletionTimestamp() != nil {
			ch = store.Change{Op: store.Delete, Key: r.Key}
		}
		c.Changes = append(c.Changes, ch)
	}
	if _, err := m.store.Commit(m.t.Context(), c); err != nil {
		m.t.Fatal(err)
	}
}

// delta reads one delta, in all its messages, in words: +kind/name, -resource/name.
func (m *member) delta(s stream) string {
	m.t.Helper()
	var out []string
	for {
		d := m.next(s).GetDelta()
		if d == nil {
			continue
		}
		if d.GetFull() && len(out) == 0 {
			out = append(out, "full")
		}
		for _, p := range d.GetPut() {
			a := p.GetObject()
			var meta struct{ metav1.Object }
			for _, o := range []api.Object{&corev1.Pod{}, &corev1.ConfigMap{}, &corev1.Secret{}, &corev1.Service{}, &corev1.Namespace{}, &corev1.Node{}} {
				if strings.HasSuffix(a.GetTypeUrl(), api.MessageName(o)) {
					if err := api.FromAny(a, o); err != nil {
						m.t.Fatal(err)
					}
					meta.Object = o
				}
			}
			if meta.Object == nil {
				m.t.Fatalf("object of type %s", a.GetTypeUrl())
			}
			kind := a.GetTypeUrl()[strings.LastIndexByte(a.GetTypeUrl(), '.')+1:]
			out = append(out, fmt.Sprintf("+%s/%s", kind, meta.GetName()))
		}
		for _, r := range d.GetRemove() {
			out = append(out, fmt.Sprintf("-%s/%s", r.GetResource(), r.GetName()))
		}
		if !d.GetMore() {
			return strings.Join(out, " ")
		}
	}
}

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "demo", Name: name, UID: "u-x"}
}

func gone(o api.Object) api.Object {
	c := o.DeepCopyObject().(api.Object)
	now := metav1.Now()
	c.SetDeletionTimestamp(&now)
	return c
}

// onNode is a pod that names a ConfigMap and Secrets in many ways.
func onNode(name, node string, secrets ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: meta(name), Spec: corev1.PodSpec{NodeName: node}}
	for _, s := range secrets {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: s}}})
	}
	return p
}

func TestShare(t *testing.T) {
	m := newMember(t, n1())
	secret := func(name string) *corev1.Secret { return &corev1.Secret{ObjectMeta: meta(name)} }
	m.write(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "demo"}}, secret("s1"), secret("s2"), secret("s3"),
		onNode("mine", "n1", "s1", "missing"), onNode("other", "n2", "s2"), onNode("nowhere", ""))
	s := m.welcomed()
	if got, want := m.delta(s), "full +Namespace/demo +Secret/s1 +Pod/mine -secrets/missing"; got != want {
		t.Errorf("full set %q, want %q", got, want)
	}
	steps := []struct {
		name  string
		write []api.Object
		want  string
	}{
		{"a service", []api.Object{&corev1.Service{ObjectMeta: meta("web")}}, "+Service/web"},
		{"another secret of a pod", []api.Object{onNode("mine", "n1", "s1", "s2")}, "+Secret/s2 +Pod/mine -secrets/missing"},
		{"a named secret changes", []api.Object{secret("s2")}, "+Secret/s2"},
		{"one that nobody names, and one that is", []api.Object{secret("s3"), secret("s1")}, "+Secret/s1"},
		{"a secret is named no more", []api.Object{onNode("mine", "n1", "s1")}, "+Pod/mine -secrets/s2"},
		{"a second pod", []api.Object{onNode("two", "n1", "s1", "s3")}, "+Secret/s3 +Pod/two"},
		{"a pod goes, its secrets too unless named", []api.Object{gone(onNode("two", "n1"))}, "-pods/two -secrets/s3"},
		{"a named secret goes", []api.Object{gone(secret("s1"))}, "-secrets/s1"},
		{"and comes back", []api.Object{secret("s1")}, "+Secret/s1"},
		{"a pod is bound", []api.Object{onNode("nowhere", "n1")}, "+Pod/nowhere"},
		{"pod and secret at once", []api.Object{secret("s4"), onNode("nowhere", "n1", "s4")}, "+Secret/s4 +Pod/nowhere"},
		{"both go at once", []api.Object{gone(secret("s4")), gone(onNode("nowhere", "n1", "s4"))}, "-pods/nowhere -secrets/s4"},
		{"other nodes' pods are not told", []api.Object{onNode("other", "n2", "s2"), &corev1.Service{ObjectMeta: meta("last")}}, "+Service/last"},
	}
	for _, st := range steps {
		m.write(st.write...)
		got := strings.Fields(m.delta(s))
		want := strings.Fields(st.want)
		slices.Sort(got)
		slices.Sort(want)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", st.name, got, want)
		}
	}
}

// A large share comes in several messages and is one delta.
func TestLargeShare(t *testing.T) {
	m := newMember(t, n1())
	for n := range 30 {
		m.write(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: fmt.Sprintf("s%d", n), Annotations: map[string]string{"x": strings.Repeat("x", 100_000)}}})
	}
	s := m.welcomed()
	if got := strings.Count(m.delta(s), "+Service/"); got != 30 {
		t.Errorf("%d services", got)
	}
}

func TestHelloIsRefused(t *testing.T) {
	good := func() *wherryv1.Hello { return &wherryv1.Hello{Format: dispatch.Format, Node: "n1"} }
	tests := []struct {
		name string
		user api.User
		say  func(m *member) stream
		kind error
		text string
	}{
		{"no node", api.User{Name: "joe"}, func(m *member) stream { return m.hello(good()) }, apierr.ErrForbidden, "sessions are for nodes"},
		{"another format", n1(), func(m *member) stream { return m.hello(&wherryv1.Hello{Format: 99, Node: "n1"}) }, apierr.ErrBadRequest, "hello.format 99 is not spoken here"},
		{"another node", n1(), func(m *member) stream { return m.hello(&wherryv1.Hello{Format: dispatch.Format, Node: "n2"}) }, apierr.ErrBadRequest, `hello.node "n2" is not the node of the certificate`},
		{"no hello", n1(), func(m *member) stream {
			return m.say(&wherryv1.SessionRequest{Message: &wherryv1.SessionRequest_Heartbeat{}})
		}, apierr.ErrBadRequest, "must be hello"},
		{"no node object", n1(), func(m *member) stream {
			h := good()
			h.Registration = &anypb.Any{TypeUrl: "x"}
			return m.hello(h)
		}, apierr.ErrBadRequest, "hello.registration"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMember(t, tt.user)
			_, err := tt.say(m).Recv()
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("answered %v, want %v: %q", err, tt.kind, tt.text)
			}
			if got := m.nodes.Nodes(); len(got) != 0 {
				t.Errorf("sessions %v", got)
			}
		})
	}
}

// A node that reads nothing is cut off, and costs nobody else anything.
func TestSlowNodeIsCutOff(t *testing.T) {
	m := newMemberWith(t, n1(), 500*time.Millisecond)
	m.welcomed() // and then it reads no more
	big := strings.Repeat("x", 200_000)
	began := time.Now()
	testkit.Eventually(t, time.Minute, func() error {
		m.write(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web", Annotations: map[string]string{"x": big, "n": fmt.Sprint(time.Since(began))}}})
		if got := m.nodes.Nodes(); len(got) > 0 {
			return fmt.Errorf("sessions %v", got)
		}
		return nil
	})
}

// A node that dials again takes the place of its dead session.
func TestNewerSessionWins(t *testing.T) {
	m := newMember(t, n1())
	first := m.welcomed()
	m.delta(first)
	second := m.welcomed()
	if _, err := first.Recv(); err == nil {
		t.Error("the first session goes on")
	}
	m.delta(second)
	m.write(&corev1.Service{ObjectMeta: meta("web")})
	if got := m.delta(second); got != "+Service/web" {
		t.Errorf("delta %q", got)
	}
	if got := m.nodes.Nodes(); len(got) != 1 {
		t.Errorf("sessions %v", got)
	}
}

func TestHeartbeats(t *testing.T) {
	m := newMember(t, n1())
	before := time.Now()
	m.nodes.Lead()
	if seen := m.nodes.LastSeen("n1"); seen.Before(before) {
		t.Errorf("a new leader's grace began %v", seen)
	}
	s := m.welcomed()
	m.delta(s)
	at := time.Now()
	if err := s.Send(&wherryv1.SessionRequest{Message: &wherryv1.SessionRequest_Heartbeat{Heartbeat: &wherryv1.Heartbeat{Sequence: 7}}}); err != nil {
		t.Fatal(err)
	}
	if r := m.next(s).GetHeartbeatAck(); r.GetSequence() != 7 || !r.GetLeader() || len(r.GetControls()) != 1 {
		t.Errorf("answered %v", r)
	}
	if seen := m.nodes.LastSeen("n1"); seen.Before(at) {
		t.Errorf("last seen %v", seen)
	}
}

func TestStreamThatNobodyAskedFor(t *testing.T) {
	m := newMember(t, n1())
	s, err := m.node.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&wherryv1.StreamRequest{Id: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, apierr.ErrNotFound) {
		t.Errorf("answered %v", err)
	}
}

// A node that was asked for a stream and goes away leaves nobody waiting.
func TestStreamThatIsNeverOpened(t *testing.T) {
	m := newMember(t, n1())
	m.write(onNode("p", "n1"))
	s := m.welcomed()
	m.delta(s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dialled := make(chan error, 1)
	go func() { _, err := m.nodes.Dial(ctx, api.User{}, "demo", "p", 80); dialled <- err }()
	open := m.next(s).GetOpenStream()
	cancel()
	if err := <-dialled; !errors.Is(err, apierr.ErrUnavailable) {
		t.Errorf("answered %v", err)
	}
	late, err := m.node.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := late.Send(&wherryv1.StreamRequest{Id: open.GetId()}); err != nil {
		t.Fatal(err)
	}
	if _, err := late.Recv(); !errors.Is(err, apierr.ErrNotFound) {
		t.Errorf("a late stream: %v", err)
	}
}
