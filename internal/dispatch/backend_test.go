package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/dispatch"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/testkit"
)

func TestBackend(t *testing.T) {
	codec := api.NewCodec(kinds.Table(), 0)
	s := store.NewLocal(codec)
	put := func(obj api.Object) {
		k, ok := codec.Kinds().Of(obj)
		if !ok {
			t.Fatalf("%T", obj)
		}
		r, err := k.Record(obj)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), store.Command{Changes: []store.Change{{Op: store.Put, Key: r.Key, Record: r}}}); err != nil {
			t.Fatal(err)
		}
	}
	pod := func(name, node, ip string, ports ...int32) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name}, Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "side"}, {Name: "c"}}}}
		p.Status.PodIP = ip
		for _, n := range ports {
			p.Spec.Containers[1].Ports = append(p.Spec.Containers[1].Ports, corev1.ContainerPort{ContainerPort: n})
		}
		put(p)
	}
	pod("web", "n1", "10.244.0.1", 8080, 9090)
	pod("plain", "n1", "10.244.0.2")
	pod("waits", "", "")
	pod("sly", "n1", "127.0.0.1", 8080)
	service := func(name string, ports ...corev1.ServicePort) {
		put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name}, Spec: corev1.ServiceSpec{Ports: ports}})
	}
	service("one", corev1.ServicePort{Port: 80})
	service("two", corev1.ServicePort{Name: "http", Port: 80}, corev1.ServicePort{Name: "more", Port: 81})
	service("none", corev1.ServicePort{Port: 80})
	yes, no, n1, empty, http := true, false, "n1", "", "http"
	p80, p8080 := int32(80), int32(8080)
	slice := func(name, service string, port discoveryv1.EndpointPort, all ...discoveryv1.Endpoint) {
		put(&discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
			Ports:      []discoveryv1.EndpointPort{port}, Endpoints: all,
		})
	}
	slice("one-a", "one", discoveryv1.EndpointPort{Name: &empty, Port: &p8080},
		discoveryv1.Endpoint{Addresses: []string{"10.244.0.9"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}, NodeName: &n1},
		discoveryv1.Endpoint{Addresses: []string{"10.244.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}, NodeName: &n1})
	slice("two-a", "two", discoveryv1.EndpointPort{Name: &http, Port: &p80}, discoveryv1.Endpoint{Addresses: []string{"10.244.0.2"}, NodeName: &n1})
	slice("none-a", "none", discoveryv1.EndpointPort{Name: &empty, Port: &p80}, discoveryv1.Endpoint{Addresses: []string{"10.244.0.2"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}, NodeName: &n1})
	slice("sly-a", "sly", discoveryv1.EndpointPort{Name: &empty, Port: &p80}, discoveryv1.Endpoint{Addresses: []string{"169.254.1.1"}, NodeName: &n1})
	service("sly", corev1.ServicePort{Port: 80})
	put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}}})

	d := dispatch.New(dispatch.Config{Store: s, Codec: codec, Log: slog.New(slog.DiscardHandler)})
	for _, tt := range []struct{ what, want string }{
		{"pods web ", "10.244.0.1:8080"}, {"pods web 9090", "10.244.0.1:9090"}, {"pods plain ", "10.244.0.2:80"},
		{"pods waits 80", `! pod "waits" has no address yet`}, {"pods absent 80", `! pods "absent" not found`}, {"pods web x", `! port "x": must be a number`},
		{"pods sly ", "! address not allowed"},
		{"services one ", "10.244.0.1:8080"}, {"services one 80", "10.244.0.1:8080"}, {"services one 81", `! no service port 81 found for service "one"`},
		{"services two ", `! no endpoints available for service "two"`}, {"services two http", "10.244.0.2:80"}, {"services two 80", "10.244.0.2:80"},
		{"services two more", `! no endpoints available for service "two"`}, {"services none 80", `! no endpoints available for service "none"`},
		{"services absent 80", `! services "absent" not found`}, {"services sly 80", "! address not allowed"},
		{"nodes n1 ", "192.0.2.1:10250 noded"}, {"nodes n1 10250", "192.0.2.1:10250 noded"}, {"nodes n1 9100", "192.0.2.1:9100"}, {"nodes absent ", `! nodes "absent" not found`},
		{"configmaps x ", "! configmaps have no proxy"},
	} {
		f := strings.SplitN(tt.what, " ", 3)
		namespace := "d"
		if f[0] == "nodes" {
			namespace = ""
		}
		b, err := d.Backend(t.Context(), f[0], namespace, f[1], f[2])
		got := b.Address
		if b.Noded {
			got += " noded"
		}
		if err == nil && b.Node != "n1" {
			t.Errorf("%s: from node %q", tt.what, b.Node)
		}
		if err != nil {
			got = "! " + err.Error()
		}
		if !strings.HasPrefix(got, tt.want) || err == nil && got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
}

func TestConnectRefusals(t *testing.T) {
	c := podsClient(t, func(verb, sub string) error {
		return apierr.Forbidden("pods", "placed", errors.New("not on my boat"))
	})
	for want, start := range map[string]*wherryv1.ConnectStart{
		"first message":  nil,
		"must be pods":   {Resource: "secrets", Namespace: "default", Name: "x"},
		"must be given":  {Resource: "pods", Name: "x"},
		"name must be":   {Resource: "nodes", Namespace: "default", Name: "x"},
		"not on my boat": {Resource: "pods", Namespace: "default", Name: "placed"},
	} {
		s, err := c.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r := &wherryv1.ConnectRequest{}
		if start != nil {
			r.Request = &wherryv1.ConnectRequest_Start{Start: start}
		}
		if err := s.Send(r); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestConnectWithSomeVerbs reads through a node's session as who may only get,
// and only from one port: what else is sent is refused.
func TestConnectWithSomeVerbs(t *testing.T) {
	testkit.Leaks(t)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method, " ", r.URL) }))
	defer backend.Close()
	codec := api.NewCodec(kinds.Table(), 0)
	m := &member{t: t, codec: codec, store: store.NewLocal(codec)}
	m.nodes = dispatch.New(dispatch.Config{
		Store: m.store, Codec: codec, As: func(api.User) dispatch.Door { return noDoor{} }, Log: slog.New(slog.DiscardHandler),
		Leader: func() bool { return true }, Controls: func() []string { return nil },
		Identify: func(context.Context) (api.User, error) { return n1(), nil },
		Authorize: func(_ api.User, at api.Target, verb string) error {
			if at.Name == "web:8080" && verb == "get" {
				return nil
			}
			return apierr.Forbidden("pods", at.Name, fmt.Errorf("nobody may %s it", verb))
		},
	})
	conn := testkit.GRPC(t, func(srv *grpc.Server) {
		wherryv1.RegisterNodesServer(srv, m.nodes)
		wherryv1.RegisterPodsServer(srv, m.nodes.Pods())
	})
	m.node = wherryv1.NewNodesClient(conn)
	web := onNode("web", "n1")
	web.Status.PodIP = "10.244.0.1"
	m.write(web)
	session := m.hello(&wherryv1.Hello{Format: dispatch.Format, Node: "n1"})
	m.next(session) // the welcome
	m.delta(session)
	go func() { // ends with the session
		for {
			r, err := session.Recv()
			if err != nil {
				return
			}
			if open := r.GetOpenStream(); open != nil {
				carryTo(t, m.node, open.GetId(), backend.Listener.Addr().String())
			}
		}
	}()
	connect := func(port string) (grpc.BidiStreamingClient[wherryv1.ConnectRequest, wherryv1.ConnectResponse], error) {
		s, err := wherryv1.NewPodsClient(conn).Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start := &wherryv1.ConnectStart{Resource: "pods", Namespace: web.Namespace, Name: "web", Port: port}
		if err := s.Send(&wherryv1.ConnectRequest{Request: &wherryv1.ConnectRequest_Start{Start: start}}); err != nil {
			t.Fatal(err)
		}
		_, err = s.Recv()
		return s, err
	}
	if _, err := connect("9090"); !errors.Is(err, apierr.ErrForbidden) {
		t.Errorf("to another port: %v", err)
	}
	s, err := connect("8080")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "POST /b HTTP/1.1\r\nHost: x\r\n\r\n"} {
		if err := s.Send(&wherryv1.ConnectRequest{Request: &wherryv1.ConnectRequest_Data{Data: []byte(text)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got.Write(r.GetData())
	}
	if text := got.String(); !strings.Contains(text, "GET /a") || !strings.Contains(text, "HTTP/1.1 403 Forbidden") || !strings.Contains(text, "nobody may create it") || strings.Contains(text, "POST /b") {
		t.Errorf("answered %q", text)
	}
}

// carryTo is what a node does that is asked for a connection.
func carryTo(t *testing.T, node wherryv1.NodesClient, id, address string) {
	s, err := node.Stream(t.Context())
	if err == nil {
		err = s.Send(&wherryv1.StreamRequest{Id: id, Data: &wherryv1.StreamRequest_Bytes{}})
	}
	if err == nil {
		err = s.Send(&wherryv1.StreamRequest{Data: &wherryv1.StreamRequest_Bytes{}})
	}
	if err != nil {
		t.Error(err)
		return
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	go func() {
		defer conn.Close()
		for {
			r, err := s.Recv()
			if err != nil {
				return
			}
			if _, err := conn.Write(r.GetBytes()); err != nil {
				return
			}
		}
	}()
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil || s.Send(&wherryv1.StreamRequest{Data: &wherryv1.StreamRequest_Bytes{Bytes: b[:n:n]}}) != nil {
				return
			}
		}
	}()
}
