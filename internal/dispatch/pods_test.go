package dispatch_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/dispatch"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/kinds/core"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/testkit"
)

// podsClient serves the Pods service over a store with two pods, neither of
// which has a node here.
func podsClient(t *testing.T, may func(verb, sub string) error) wherryv1.PodsClient {
	k := core.Pod()
	codec := api.NewCodec(api.NewKinds(k), 0)
	s := store.NewLocal(codec)
	for name, node := range map[string]string{"waiting": "", "placed": "n1"} {
		r, err := k.Record(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "u"},
			Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c"}}},
			Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), store.Command{Changes: []store.Change{{Op: store.Put, Key: r.Key, Record: r}}}); err != nil {
			t.Fatal(err)
		}
	}
	d := dispatch.New(dispatch.Config{
		Store: s, Codec: codec, Log: slog.New(slog.DiscardHandler),
		Identify:  func(context.Context) (api.User, error) { return api.User{Name: "joe"}, nil },
		Authorize: func(_ api.User, a api.Target, verb string) error { return may(verb, a.Resource+"/"+a.Subresource) },
	})
	conn := testkit.GRPC(t, func(srv *grpc.Server) { wherryv1.RegisterPodsServer(srv, d.Pods()) })
	return wherryv1.NewPodsClient(conn)
}

// The calls that a client makes, up to the first answer.
func logs(t *testing.T, c wherryv1.PodsClient, r *wherryv1.LogsRequest) error {
	s, err := c.Logs(t.Context(), r)
	if err == nil {
		_, err = s.Recv()
	}
	return err
}

func exec(t *testing.T, c wherryv1.PodsClient, r *wherryv1.ExecRequest) error {
	s, err := c.Exec(t.Context())
	if err == nil {
		if err = s.Send(r); err == nil {
			_, err = s.Recv()
		}
	}
	return err
}

func forward(t *testing.T, c wherryv1.PodsClient, r *wherryv1.PortForwardRequest) error {
	s, err := c.PortForward(t.Context())
	if err == nil {
		if err = s.Send(r); err == nil {
			_, err = s.Recv()
		}
	}
	return err
}

func start(pod string, command ...string) *wherryv1.ExecRequest {
	return &wherryv1.ExecRequest{Request: &wherryv1.ExecRequest_Start{Start: &wherryv1.ExecStart{Namespace: "default", Pod: pod, Command: command}}}
}

func port(pod string, n uint32) *wherryv1.PortForwardRequest {
	return &wherryv1.PortForwardRequest{Request: &wherryv1.PortForwardRequest_Start{Start: &wherryv1.PortForwardStart{Namespace: "default", Pod: pod, Port: n}}}
}

func TestPodsAreRefused(t *testing.T) {
	c := podsClient(t, func(string, string) error { return nil })
	of := func(pod string) *wherryv1.LogsRequest { return &wherryv1.LogsRequest{Namespace: "default", Pod: pod} }
	for _, tt := range []struct {
		name string
		got  error
		want apierr.Kind
	}{
		{"logs of nothing", logs(t, c, of("none")), apierr.ErrNotFound},
		{"logs without a name", logs(t, c, of("")), apierr.ErrBadRequest},
		{"logs of another container of a pod without node", logs(t, c, &wherryv1.LogsRequest{Namespace: "default", Pod: "waiting", Container: "x"}), apierr.ErrBadRequest},
		{"exec in a pod without node", exec(t, c, start("waiting", "ls")), apierr.ErrBadRequest},
		{"logs since a time that is none", logs(t, c, &wherryv1.LogsRequest{Namespace: "default", Pod: "placed", SinceTime: "noon"}), apierr.ErrBadRequest},
		{"logs of another container", logs(t, c, &wherryv1.LogsRequest{Namespace: "default", Pod: "placed", Container: "x"}), apierr.ErrBadRequest},
		{"logs on a node that is away", logs(t, c, of("placed")), apierr.ErrUnavailable},
		{"exec without start", exec(t, c, &wherryv1.ExecRequest{Request: &wherryv1.ExecRequest_CloseStdin{CloseStdin: true}}), apierr.ErrBadRequest},
		{"exec in nothing", exec(t, c, start("none", "ls")), apierr.ErrNotFound},
		{"exec on a node that is away", exec(t, c, start("placed", "ls")), apierr.ErrUnavailable},
		{"attach in a pod without node", exec(t, c, start("waiting")), apierr.ErrBadRequest},
		{"port 0", forward(t, c, port("placed", 0)), apierr.ErrBadRequest},
		{"port 65536", forward(t, c, port("placed", 65536)), apierr.ErrBadRequest},
		{"port-forward without start", forward(t, c, &wherryv1.PortForwardRequest{}), apierr.ErrBadRequest},
		{"port-forward on a node that is away", forward(t, c, port("placed", 80)), apierr.ErrUnavailable},
	} {
		if !errors.Is(tt.got, tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, tt.got, tt.want)
		}
	}
}

// TestLogsOfAWaitingPod: nothing has run, so there is a log, and it is empty.
func TestLogsOfAWaitingPod(t *testing.T) {
	c := podsClient(t, func(string, string) error { return nil })
	for _, r := range []*wherryv1.LogsRequest{{}, {Follow: true}, {Previous: true}} {
		r.Namespace, r.Pod = "default", "waiting"
		if err := logs(t, c, r); !errors.Is(err, io.EOF) {
			t.Errorf("%v: %v, want an empty log", r, err)
		}
	}
}

func TestPodsAreAuthorized(t *testing.T) {
	var asked string
	c := podsClient(t, func(verb, sub string) error {
		asked = verb + " " + sub
		return apierr.Forbidden("pods", "placed", errors.New("no"))
	})
	for _, tt := range []struct {
		call func() error
		want string
	}{
		{func() error { return logs(t, c, &wherryv1.LogsRequest{Namespace: "default", Pod: "placed"}) }, "get pods/log"},
		{func() error { return exec(t, c, start("placed", "ls")) }, "create pods/exec"},
		{func() error { return exec(t, c, start("placed")) }, "create pods/attach"},
		{func() error { return forward(t, c, port("placed", 80)) }, "create pods/portforward"},
	} {
		if err := tt.call(); !errors.Is(err, apierr.ErrForbidden) || asked != tt.want {
			t.Errorf("%s: asked %q, got %v", tt.want, asked, err)
		}
	}
}
