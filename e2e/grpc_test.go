package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/testbed"
	"github.com/wherry-project/wherry/internal/testkit"
)

// dialGRPC connects from the client host to a control's gRPC, as the admin.
func dialGRPC(t testing.TB, control string) *grpc.ClientConn {
	t.Helper()
	config, err := suite.RESTConfig(testbed.Client, control)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.CAData)
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(control, "7443"),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots})),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return suite.Dial(ctx, testbed.Client, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Any client can wrap and unwrap Kubernetes' messages like this: nothing of
// Wherry's own is needed but the generated stubs.
func wrap(t testing.TB, message string, object interface{ Marshal() ([]byte, error) }) *anypb.Any {
	t.Helper()
	b, err := object.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/k8s.io.api." + message, Value: b}
}

func unwrap(t testing.TB, a *anypb.Any, message string, into interface{ Unmarshal([]byte) error }) {
	t.Helper()
	if want := "type.googleapis.com/k8s.io." + message; a.GetTypeUrl() != want {
		t.Fatalf("the answer is %q, want %s", a.GetTypeUrl(), want)
	}
	if err := into.Unmarshal(a.GetValue()); err != nil {
		t.Fatal(err)
	}
}

// TestGRPC does by gRPC what kubectl does by HTTPS, against each control.
func TestGRPC(t *testing.T) {
	for _, control := range controls {
		t.Run(control, func(t *testing.T) {
			ns := namespace(t)
			conn := dialGRPC(t, control)
			g := grpcTest{T: t, ns: ns, resources: wherryv1.NewResourcesClient(conn), pods: wherryv1.NewPodsClient(conn)}
			g.objects()
			g.refusals()
			g.subresources()
			g.streams()
		})
	}
}

type grpcTest struct {
	*testing.T
	ns        string
	resources wherryv1.ResourcesClient
	pods      wherryv1.PodsClient
}

func (g grpcTest) target(group, resource, name, sub string) *wherryv1.Target {
	return &wherryv1.Target{Group: group, Version: "v1", Resource: resource, Namespace: g.ns, Name: name, Subresource: sub}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// objects takes a ConfigMap through every verb, beside a watch of it all.
func (g grpcTest) objects() {
	ctx, cancel := context.WithTimeout(g.Context(), 2*patience)
	defer cancel()
	kinds := must(g.resources.Kinds(ctx, &wherryv1.KindsRequest{}))(g)
	seen := map[string]bool{}
	for _, k := range kinds.GetKinds() {
		seen[k.GetGroup()+"/"+k.GetResource()] = true
	}
	for _, want := range []string{"/pods", "/nodes", "/services", "/namespaces", "/configmaps", "/secrets", "/events", "/serviceaccounts",
		"apps/deployments", "apps/replicasets", "discovery.k8s.io/endpointslices", "coordination.k8s.io/leases"} {
		if !seen[want] {
			g.Errorf("kinds has no %s", want)
		}
	}
	collection, one := g.target("", "configmaps", "", ""), g.target("", "configmaps", "a", "")
	list := must(g.resources.List(ctx, &wherryv1.ListRequest{Target: collection}))(g)
	watch := must(g.resources.Watch(ctx, &wherryv1.WatchRequest{Target: collection, ResourceVersion: list.GetResourceVersion(), Selection: &wherryv1.Selection{Labels: "watched"}}))(g)

	created := must(g.resources.Create(ctx, &wherryv1.CreateRequest{Target: collection, Object: wrap(g, "core.v1.ConfigMap",
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"watched": "yes"}}, Data: map[string]string{"x": "1"}})}))(g)
	var c corev1.ConfigMap
	unwrap(g, created.GetObject(), "api.core.v1.ConfigMap", &c)
	if c.UID == "" || c.ResourceVersion == "" || c.Namespace != g.ns {
		g.Errorf("created %+v", c.ObjectMeta)
	}
	unwrap(g, must(g.resources.Get(ctx, &wherryv1.GetRequest{Target: one}))(g).GetObject(), "api.core.v1.ConfigMap", &c)
	c.Data["x"] = "2"
	updated := must(g.resources.Update(ctx, &wherryv1.UpdateRequest{Target: one, Object: wrap(g, "core.v1.ConfigMap", &c)}))(g)
	c = corev1.ConfigMap{}
	if unwrap(g, updated.GetObject(), "api.core.v1.ConfigMap", &c); c.Data["x"] != "2" || updated.GetCreated() {
		g.Errorf("updated to %v", c.Data)
	}
	for kind, patch := range map[wherryv1.PatchType]string{
		wherryv1.PatchType_PATCH_TYPE_JSON:      `[{"op":"add","path":"/data/json","value":"1"}]`,
		wherryv1.PatchType_PATCH_TYPE_MERGE:     `{"data":{"merge":"1"}}`,
		wherryv1.PatchType_PATCH_TYPE_STRATEGIC: `{"data":{"strategic":"1"}}`,
		wherryv1.PatchType_PATCH_TYPE_APPLY:     "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {apply: '1'}\n",
	} {
		if _, err := g.resources.Patch(ctx, &wherryv1.PatchRequest{Target: one, Type: kind, Patch: []byte(patch), Options: &wherryv1.WriteOptions{FieldManager: "e2e"}}); err != nil {
			g.Errorf("%v: %v", kind, err)
		}
	}
	c = corev1.ConfigMap{}
	unwrap(g, must(g.resources.Get(ctx, &wherryv1.GetRequest{Target: one}))(g).GetObject(), "api.core.v1.ConfigMap", &c)
	if len(c.Data) != 5 {
		g.Errorf("patched four times, it is %v", c.Data)
	}
	list = must(g.resources.List(ctx, &wherryv1.ListRequest{Target: collection, Selection: &wherryv1.Selection{Labels: "watched=yes"}}))(g)
	if len(list.GetItems()) != 1 {
		g.Errorf("listed %d", len(list.GetItems()))
	}
	deleted := must(g.resources.Delete(ctx, &wherryv1.DeleteRequest{Target: one, Options: &wherryv1.DeleteOptions{Uid: string(c.UID)}}))(g)
	if !deleted.GetGone() {
		g.Error("the deleted object is not gone")
	}
	for _, want := range []wherryv1.EventType{1, 2, 2, 2, 2, 2, 3} {
		e := must(watch.Recv())(g)
		if c = (corev1.ConfigMap{}); e.GetType() != want {
			g.Fatalf("the watch shows %v, want %v", e.GetType(), want)
		}
		if unwrap(g, e.GetObject(), "api.core.v1.ConfigMap", &c); c.Name != "a" {
			g.Errorf("the watch shows %q", c.Name)
		}
	}
	for _, name := range []string{"b", "c"} {
		must(g.resources.Create(ctx, &wherryv1.CreateRequest{Target: collection, Object: wrap(g, "core.v1.ConfigMap",
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"all": "go"}}})}))(g)
	}
	page := must(g.resources.List(ctx, &wherryv1.ListRequest{Target: collection, Selection: &wherryv1.Selection{Labels: "all"}, Limit: 1}))(g)
	rest := must(g.resources.List(ctx, &wherryv1.ListRequest{Target: collection, Selection: &wherryv1.Selection{Labels: "all"}, ContinueToken: page.GetContinueToken()}))(g)
	if len(page.GetItems()) != 1 || len(rest.GetItems()) != 1 || rest.GetContinueToken() != "" {
		g.Errorf("pages of %d and %d", len(page.GetItems()), len(rest.GetItems()))
	}
	gone := must(g.resources.DeleteCollection(ctx, &wherryv1.DeleteCollectionRequest{Target: collection, Selection: &wherryv1.Selection{Labels: "all"}}))(g)
	if gone.GetDeleted() != 2 {
		g.Errorf("deleted %d", gone.GetDeleted())
	}
}

// refusals carry the Kubernetes Status as a detail.
func (g grpcTest) refusals() {
	ctx, cancel := context.WithTimeout(g.Context(), 2*patience)
	defer cancel()
	_, notFound := g.resources.Get(ctx, &wherryv1.GetRequest{Target: g.target("", "pods", "none", "")})
	_, unknown := g.resources.List(ctx, &wherryv1.ListRequest{Target: g.target("", "things", "", "")})
	_, invalid := g.resources.Create(ctx, &wherryv1.CreateRequest{Target: g.target("", "pods", "", ""), Object: wrap(g, "core.v1.Pod",
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "A"}})})
	must(g.resources.Create(ctx, &wherryv1.CreateRequest{Target: g.target("", "configmaps", "", ""), Object: wrap(g, "core.v1.ConfigMap", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "there"}})}))(g)
	_, strict := g.resources.Patch(ctx, &wherryv1.PatchRequest{Target: g.target("", "configmaps", "there", ""), Type: wherryv1.PatchType_PATCH_TYPE_MERGE,
		Patch: []byte(`{"colour":1}`), Options: &wherryv1.WriteOptions{FieldValidation: "Strict"}})
	for _, c := range []struct {
		err    error
		code   codes.Code
		reason metav1.StatusReason
		says   string
	}{
		{notFound, codes.NotFound, metav1.StatusReasonNotFound, `pods "none" not found`},
		{unknown, codes.NotFound, metav1.StatusReasonNotFound, ""},
		{invalid, codes.InvalidArgument, metav1.StatusReasonInvalid, "metadata.name: Invalid value"},
		{strict, codes.InvalidArgument, metav1.StatusReasonInvalid, `unknown field "colour"`},
	} {
		s, _ := grpcstatus.FromError(c.err)
		var k metav1.Status
		for _, d := range s.Proto().GetDetails() {
			if strings.HasSuffix(d.GetTypeUrl(), ".Status") {
				unwrap(g, d, "apimachinery.pkg.apis.meta.v1.Status", &k)
			}
		}
		if s.Code() != c.code || k.Reason != c.reason || !strings.Contains(k.Message, c.says) {
			g.Errorf("%v: %+v; want %v, %s, %q", c.err, k, c.code, c.reason, c.says)
		}
	}
}

// subresources are a Deployment's scale and a Pod's status.
func (g grpcTest) subresources() {
	ctx, cancel := context.WithTimeout(g.Context(), 2*patience)
	defer cancel()
	labels := map[string]string{"app": "none"}
	must(g.resources.Create(ctx, &wherryv1.CreateRequest{Target: g.target("apps", "deployments", "", ""), Object: wrap(g, "apps.v1.Deployment", &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "d"},
		Spec: appsv1.DeploymentSpec{Replicas: new(int32), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: helloImage}}}}}})}))(g)
	at := g.target("apps", "deployments", "d", "scale")
	var scale autoscalingv1.Scale
	unwrap(g, must(g.resources.Get(ctx, &wherryv1.GetRequest{Target: at}))(g).GetObject(), "api.autoscaling.v1.Scale", &scale)
	scale.Spec.Replicas, scale.ResourceVersion = 1, ""
	unwrap(g, must(g.resources.Update(ctx, &wherryv1.UpdateRequest{Target: at, Object: wrap(g, "autoscaling.v1.Scale", &scale)}))(g).GetObject(), "api.autoscaling.v1.Scale", &scale)
	if scale.Spec.Replicas != 1 || scale.Status.Selector != "app=none" {
		g.Errorf("scaled to %+v", scale)
	}
}

// lastLine is the last line of a pod's log.
func (g grpcTest) lastLine(ctx context.Context, pod string) (string, error) {
	tail := int64(1)
	logs, err := g.pods.Logs(ctx, &wherryv1.LogsRequest{Namespace: g.ns, Pod: pod, TailLines: &tail})
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for {
		m, err := logs.Recv()
		if errors.Is(err, io.EOF) {
			return text.String(), nil
		} else if err != nil {
			return "", err
		}
		text.Write(m.GetData())
	}
}

// streams are a pod's logs and commands in it.
func (g grpcTest) streams() {
	ctx, cancel := context.WithTimeout(g.Context(), 4*patience)
	defer cancel()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{
		TerminationGracePeriodSeconds: new(int64),
		NodeName:                      "n1",
		Containers:                    []corev1.Container{{Name: "c", Image: busyboxImage, Command: []string{"sh", "-c", "echo one; echo two; exec sleep 600"}}}}}
	must(g.resources.Create(ctx, &wherryv1.CreateRequest{Target: g.target("", "pods", "", ""), Object: wrap(g, "core.v1.Pod", pod)}))(g)
	awaitReady(g, g.ns, "p")
	eventually(g, func() error { // Ready is not yet having said something
		text, err := g.lastLine(ctx, "p")
		if err == nil && text != "two\n" {
			err = fmt.Errorf("the log's last line is %q", text)
		}
		return err
	})
	exec := must(g.pods.Exec(ctx))(g)
	for _, m := range []*wherryv1.ExecRequest{
		{Request: &wherryv1.ExecRequest_Start{Start: &wherryv1.ExecStart{Namespace: g.ns, Pod: "p", Command: []string{"sh", "-c", "cat; echo err >&2; exit 5"}, Stdin: true, Stdout: true, Stderr: true}}},
		{Request: &wherryv1.ExecRequest_Stdin{Stdin: []byte("said")}},
		{Request: &wherryv1.ExecRequest_CloseStdin{CloseStdin: true}},
	} {
		if err := exec.Send(m); err != nil {
			g.Fatal(err)
		}
	}
	var out, errs string
	code := int32(-1)
	for {
		m, err := exec.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			g.Fatal(err)
		}
		out, errs = out+string(m.GetStdout()), errs+string(m.GetStderr())
		if e := m.GetExit(); e != nil {
			code = e.GetCode()
		}
	}
	if out != "said" || errs != "err\n" || code != 5 {
		g.Errorf("exec: %q, %q, %d", out, errs, code)
	}
}

// TestGRPCStrangers may ask for health and services, not for objects.
func TestGRPCStrangers(t *testing.T) {
	config, err := suite.RESTConfig(testbed.Client, "c1")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.CAData)
	conn, err := grpc.NewClient("passthrough:///c1:7443", grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return suite.Dial(ctx, testbed.Client, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, func() error { // not while a leader is being elected
		h, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
		if err == nil && h.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			err = fmt.Errorf("health: %v", h)
		}
		return err
	})
	_, err = wherryv1.NewResourcesClient(conn).List(t.Context(), &wherryv1.ListRequest{Target: &wherryv1.Target{Version: "v1", Resource: "secrets"}})
	if grpcstatus.Code(err) != codes.Unauthenticated {
		t.Errorf("secrets for a stranger: %v", err)
	}
	_, err = wherryv1.NewClusterClient(conn).CreateToken(t.Context(), &wherryv1.CreateTokenRequest{Role: wherryv1.Role_ROLE_NODE})
	if grpcstatus.Code(err) != codes.Unauthenticated {
		t.Errorf("a token for a stranger: %v", err)
	}
}

// TestGrpcurl asks with the admin's certificate, as the README does.
func TestGrpcurl(t *testing.T) {
	program := filepath.Join(os.Getenv("WHERRY_TOOLS"), "grpcurl")
	_, err := os.Stat(program)
	testkit.Needs(t, err == nil, "grpcurl is not in $WHERRY_TOOLS; `make test-e2e` builds it")
	config, err := suite.RESTConfig(testbed.Client, "")
	if err != nil {
		t.Fatal(err)
	}
	for file, b := range map[string][]byte{"ca": config.CAData, "cert": config.CertData, "key": config.KeyData} {
		if err := suite.WriteFile(testbed.Client, "/run/"+file+".pem", b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	grpcurl := func(t *testing.T, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		out, err := on(ctx, testbed.Client, "", append([]string{program, "-cacert", "/run/ca.pem", "-cert", "/run/cert.pem", "-key", "/run/key.pem"}, args...)...)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return out
	}
	for _, control := range controls {
		t.Run(control, func(t *testing.T) {
			at := control + ":7443"
			services := strings.Fields(grpcurl(t, at, "list"))
			for _, want := range []string{"wherry.v1.Resources", "wherry.v1.Pods", "wherry.v1.Nodes", "wherry.v1.Cluster", "wherry.v1.Images", "wherry.v1.Raft",
				"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} {
				if !strings.Contains(" "+strings.Join(services, " ")+" ", " "+want+" ") {
					t.Errorf("list shows %v, without %s", services, want)
				}
			}
			if out := grpcurl(t, at, "list", "wherry.v1.Resources"); !strings.Contains(out, "wherry.v1.Resources.Watch\n") {
				t.Errorf("list wherry.v1.Resources: %s", out)
			}
			if out := grpcurl(t, at, "describe", "wherry.v1.Resources.Get"); !strings.Contains(out, "rpc Get ( .wherry.v1.GetRequest ) returns ( .wherry.v1.GetResponse );") {
				t.Errorf("describe: %s", out)
			}
			if out := grpcurl(t, at, "describe", "k8s.io.api.core.v1.Pod"); !strings.Contains(out, "optional .k8s.io.api.core.v1.PodSpec spec = 2;") {
				t.Errorf("describe of a Kubernetes message: %s", out)
			}
			eventually(t, func() error { // not while a leader is being elected
				if out := grpcurl(t, at, "grpc.health.v1.Health/Check"); !strings.Contains(out, `"status": "SERVING"`) {
					return fmt.Errorf("health: %s", out)
				}
				return nil
			})
			var answer struct {
				Object struct {
					Type     string `json:"@type"`
					Metadata struct{ Name string }
					Status   struct{ NodeInfo map[string]string }
				}
			}
			out := grpcurl(t, "-d", `{"target":{"version":"v1","resource":"nodes","name":"n1"}}`, at, "wherry.v1.Resources/Get")
			if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.Object.Type != "type.googleapis.com/k8s.io.api.core.v1.Node" ||
				answer.Object.Metadata.Name != "n1" || answer.Object.Status.NodeInfo["kubeletVersion"] == "" {
				t.Errorf("a node: %v\n%s", err, out)
			}
		})
	}
}
