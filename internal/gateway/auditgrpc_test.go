package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/audit"
	"github.com/wherry-project/wherry/internal/gateway"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/testkit"
)

// noPods reads what is asked of pods and knows none.
type noPods struct {
	wherryv1.UnimplementedPodsServer
}

func (noPods) Logs(r *wherryv1.LogsRequest, _ grpc.ServerStreamingServer[wherryv1.LogsResponse]) error {
	return apierr.NotFound("pods", r.GetPod())
}

func (noPods) Exec(s grpc.BidiStreamingServer[wherryv1.ExecRequest, wherryv1.ExecResponse]) error {
	m, err := s.Recv()
	if err != nil {
		return err
	}
	return apierr.NotFound("pods", m.GetStart().GetPod())
}

func (noPods) PortForward(s grpc.BidiStreamingServer[wherryv1.PortForwardRequest, wherryv1.PortForwardResponse]) error {
	m, err := s.Recv()
	if err != nil {
		return err
	}
	return apierr.NotFound("pods", m.GetStart().GetPod())
}

func (noPods) Connect(s grpc.BidiStreamingServer[wherryv1.ConnectRequest, wherryv1.ConnectResponse]) error {
	m, err := s.Recv()
	if err != nil {
		return err
	}
	return apierr.NotFound(m.GetStart().GetResource(), m.GetStart().GetName())
}

// auditedGRPC serves a cluster over gRPC as a controld does, for one user.
func auditedGRPC(t *testing.T, c *cluster, log *audit.Log) *grpc.ClientConn {
	t.Helper()
	user := func(context.Context) (api.User, error) {
		return api.User{Name: "kubernetes-admin", Groups: []string{"system:masters"}}, nil
	}
	auditor := apiserver.Auditor{Log: log, Kinds: c.api.Kinds(), User: user}
	closed := func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if info.FullMethod == wherryv1.Images_ExportImage_FullMethodName {
			return apierr.Unauthorized("")
		}
		return next(srv, s)
	}
	return testkit.GRPC(t, func(srv *grpc.Server) {
		wherryv1.RegisterResourcesServer(srv, apiserver.NewService(c.api, user))
		wherryv1.RegisterPodsServer(srv, noPods{})
		wherryv1.RegisterImagesServer(srv, wherryv1.UnimplementedImagesServer{})
	}, grpc.ChainUnaryInterceptor(auditor.Unary), grpc.ChainStreamInterceptor(auditor.Stream, closed))
}

// lines gives what is recorded of requests that have ended: level, verb and
// what they were for.
func (k *kept) lines(t *testing.T) []string {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	for line := range strings.Lines(k.b.String()) {
		var e struct {
			Level, Stage, Verb, RequestURI string
			ObjectRef                      map[string]string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Stage != audit.ResponseComplete {
			continue
		}
		r := e.ObjectRef
		out = append(out, fmt.Sprintf("%s %s %s/%s %s/%s/%s", e.Level, e.Verb, r["apiGroup"], r["apiVersion"], r["namespace"], r["resource"]+"."+r["subresource"], r["name"]))
	}
	slices.Sort(out)
	return out
}

// TestAuditOfStreams: one policy means the same over both fronts, for streams
// too.
func TestAuditOfStreams(t *testing.T) {
	rules := []audit.Rule{
		{Level: audit.None, Verbs: []string{"get"}, Resources: []audit.Resources{{Resources: []string{"pods/log"}}}, Namespaces: []string{"quiet"}},
		{Level: audit.RequestResponse, Resources: []audit.Resources{{Resources: []string{"pods/exec", "pods/attach"}, ResourceNames: []string{"p"}}}},
		{Level: audit.Request, Resources: []audit.Resources{{Resources: []string{"pods/*", "*/proxy"}}}},
		{Level: audit.None, Verbs: []string{"create"}, Resources: []audit.Resources{{Resources: []string{"namespaces"}}}},
		{Level: audit.Metadata, Resources: []audit.Resources{{Group: "apps"}, {}}},
	}
	policy := &audit.Policy{Rules: rules}
	want := []string{
		"Metadata watch /v1 demo/configmaps./",
		"Metadata watch apps/v1 demo/deployments./",
		"Request create /v1 demo/pods.exec/q",
		"Request create /v1 demo/pods.portforward/p",
		"Request create /v1 demo/services.proxy/s:80",
		"Request get /v1 demo/pods.log/p",
		"RequestResponse create /v1 demo/pods.attach/p",
		"RequestResponse create /v1 demo/pods.exec/p",
	}
	same := func(t *testing.T, log *kept, want []string) {
		t.Helper()
		testkit.Eventually(t, time.Minute, func() error {
			if got := log.lines(t); !slices.Equal(got, want) {
				return fmt.Errorf("recorded\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			return nil
		})
	}
	t.Run("HTTPS", func(t *testing.T) {
		log := &kept{}
		c := start(t, options{streams: node{}, config: func(cfg *gateway.Config) {
			cfg.Audit = audit.New(log, policy, slog.New(slog.DiscardHandler))
		}})
		for _, r := range []string{
			"GET /namespaces/demo/configmaps?watch=1&timeoutSeconds=1", "GET !/namespaces/demo/deployments?watch=1&timeoutSeconds=1",
			"POST /namespaces/demo/pods/p/exec?command=x&stdout=1", "POST /namespaces/demo/pods/q/exec?command=x&stdout=1",
			"POST /namespaces/demo/pods/p/attach?stdout=1", "POST /namespaces/demo/pods/p/portforward?ports=80",
			"POST /namespaces/demo/services/s:80/proxy/", "GET /namespaces/demo/pods/p/log", "GET /namespaces/quiet/pods/p/log",
		} {
			method, path, _ := strings.Cut(r, " ")
			url := c.url + "/api/v1" + path
			if apps, ok := strings.CutPrefix(path, "!"); ok {
				url = c.url + "/apis/apps/v1" + apps
			}
			req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.http(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body) // to the end of the watch
			resp.Body.Close()
		}
		same(t, log, want)
	})
	t.Run("gRPC", func(t *testing.T) {
		log := &kept{}
		conn := auditedGRPC(t, start(t, options{}), audit.New(log, policy, slog.New(slog.DiscardHandler)))
		ctx := t.Context()
		pods := wherryv1.NewPodsClient(conn)
		watch := func(group, version, resource string) {
			t.Helper()
			s, err := wherryv1.NewResourcesClient(conn).Watch(ctx, &wherryv1.WatchRequest{
				Target: &wherryv1.Target{Group: group, Version: version, Resource: resource, Namespace: "demo"}, TimeoutSeconds: 1,
			})
			for err == nil {
				_, err = s.Recv()
			}
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		}
		watch("", "v1", "configmaps")
		watch("apps", "", "deployments") // the preferred version
		for _, ns := range []string{"demo", "quiet"} {
			s, err := pods.Logs(ctx, &wherryv1.LogsRequest{Namespace: ns, Pod: "p"})
			if err == nil {
				_, err = s.Recv()
			}
			gone(t, err)
		}
		for _, start := range []*wherryv1.ExecStart{{Pod: "p", Command: []string{"x"}}, {Pod: "q", Command: []string{"x"}}, {Pod: "p"}} {
			start.Namespace = "demo"
			s, err := pods.Exec(ctx)
			if err == nil {
				err = s.Send(&wherryv1.ExecRequest{Request: &wherryv1.ExecRequest_Start{Start: start}})
			}
			if err == nil {
				_, err = s.Recv()
			}
			gone(t, err)
		}
		forward, err := pods.PortForward(ctx)
		if err == nil {
			err = forward.Send(&wherryv1.PortForwardRequest{Request: &wherryv1.PortForwardRequest_Start{Start: &wherryv1.PortForwardStart{Namespace: "demo", Pod: "p", Port: 80}}})
		}
		if err == nil {
			_, err = forward.Recv()
		}
		gone(t, err)
		connect, err := pods.Connect(ctx)
		if err == nil {
			err = connect.Send(&wherryv1.ConnectRequest{Request: &wherryv1.ConnectRequest_Start{Start: &wherryv1.ConnectStart{Resource: "services", Namespace: "demo", Name: "s", Port: "80"}}})
		}
		if err == nil {
			_, err = connect.Recv()
		}
		gone(t, err)
		same(t, log, want)
	})
	t.Run("gRPC, refused before it said anything", func(t *testing.T) {
		log := &kept{}
		conn := auditedGRPC(t, start(t, options{}), audit.New(log, audit.AllMetadata(), slog.New(slog.DiscardHandler)))
		s, err := wherryv1.NewImagesClient(conn).ExportImage(t.Context(), &wherryv1.ExportImageRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		if !errors.Is(err, apierr.ErrUnauthorized) {
			t.Error(err)
		}
		e, err := wherryv1.NewPodsClient(conn).Exec(t.Context())
		if err == nil {
			err = e.CloseSend()
		}
		if err == nil {
			_, err = e.Recv()
		}
		if err == nil {
			t.Error("an exec of nothing")
		}
		log.has(t, `"requestURI":"/wherry.v1.Images/ExportImage"`, `"verb":"exportimage"`, `"code":401`)
		log.has(t, `"requestURI":"/wherry.v1.Pods/Exec"`, `"verb":"create"`, `"subresource":"exec"`)
	})
}

func gone(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, apierr.ErrNotFound) {
		t.Errorf("answered %v, want that it is not there", err)
	}
}

// TestAuditOfRefusedSecret: what a Secret holds does not come into the record
// through the text of an error, at a level that keeps no objects.
func TestAuditOfRefusedSecret(t *testing.T) {
	const hidden, encoded = "hush-hush", "aHVzaC1odXNo"
	patch := []byte(`{"immutable":"perhaps","stringData":{"other":"` + hidden + `"}}`)
	at := metav1.ObjectMeta{Namespace: "demo", Name: "s"}
	secret := func(t *testing.T, c *cluster) {
		t.Helper()
		client := c.client(t, nil)
		if _, err := client.CoreV1().Secrets("demo").Create(t.Context(), &corev1.Secret{ObjectMeta: at, Data: map[string][]byte{"k": []byte(hidden)}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(t *testing.T, log *kept, err error) {
		t.Helper()
		if st := apierr.StatusOf(err); st.Code != http.StatusUnprocessableEntity && st.Code != http.StatusBadRequest || !strings.Contains(st.Message, encoded) && !strings.Contains(st.Message, hidden) {
			t.Fatalf("the patch was answered with %v, which holds nothing to hide", err)
		}
		log.has(t, `"verb":"patch"`, `"resource":"secrets"`, `"stage":"ResponseComplete"`, `"reason":"`)
		log.mu.Lock()
		defer log.mu.Unlock()
		if all := log.b.String(); strings.Contains(all, encoded) || strings.Contains(all, hidden) {
			t.Errorf("the record holds the secret:\n%s", all)
		}
	}
	t.Run("HTTPS", func(t *testing.T) {
		log := &kept{}
		c := start(t, options{config: func(cfg *gateway.Config) {
			cfg.Audit = audit.New(log, audit.AllMetadata(), slog.New(slog.DiscardHandler))
		}})
		secret(t, c)
		_, err := c.client(t, nil).CoreV1().Secrets("demo").Patch(t.Context(), "s", types.MergePatchType, patch, metav1.PatchOptions{})
		refused(t, log, err)
	})
	t.Run("gRPC", func(t *testing.T) {
		log := &kept{}
		c := start(t, options{})
		secret(t, c)
		_, err := wherryv1.NewResourcesClient(auditedGRPC(t, c, audit.New(log, audit.AllMetadata(), slog.New(slog.DiscardHandler)))).Patch(t.Context(), &wherryv1.PatchRequest{
			Target: &wherryv1.Target{Version: "v1", Resource: "secrets", Namespace: "demo", Name: "s"}, Type: wherryv1.PatchType_PATCH_TYPE_MERGE, Patch: patch,
		})
		refused(t, log, err)
	})
}
