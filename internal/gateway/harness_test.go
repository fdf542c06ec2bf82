package gateway_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/wherry-project/wherry/internal/alloc"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/gateway"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/store"
)

// cluster is a gateway over a real API server and a store without Raft.
type cluster struct {
	url   string
	ca    *pki.Authority
	admin tls.Certificate
	api   *apiserver.Server
}

// options change a test's cluster.
type options struct {
	wrap    func(api.Resources) api.Resources
	streams api.PodStreams
	config  func(*gateway.Config)
}

func start(t testing.TB, o options) *cluster {
	t.Helper()
	now := time.Now()
	ca, err := pki.NewAuthority("test", now)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{ca: ca}
	c.admin = c.certificate(t, pki.AdminRequest())

	codec := api.NewCodec(kinds.Table(), 8<<20)
	c.api = apiserver.New(apiserver.Config{
		Store: store.NewLocal(codec), Codec: codec,
		Alloc: alloc.New(alloc.Config{
			Services: netip.MustParsePrefix("10.96.0.0/16"), Pods: netip.MustParsePrefix("10.244.0.0/16"), NodeBits: 24,
			FirstPort: 30000, LastPort: 32767, DNS: netip.MustParseAddr("10.96.0.10"),
		}),
	})
	verifier := pki.NewVerifier(ca.Certificate(), func(pki.Peer) error { return nil }, time.Now)
	auth := authn.New(authn.Config{Verifier: verifier, Authorize: c.api.Authorize})
	cfg := gateway.Config{
		API: c.api, User: auth.Request, Authorize: c.api.Authorize, Streams: o.streams,
		Registry: prometheus.NewRegistry(), Version: version.Info{Major: "1", Minor: "34", GitVersion: "v1.34.1+wherry.0"},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if o.wrap != nil {
		cfg.API = o.wrap(c.api)
	}
	if o.config != nil {
		o.config(&cfg)
	}
	g, err := gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := c.certificate(t, pki.MemberRequest("c1", []string{"localhost"}, []netip.Addr{netip.MustParseAddr("127.0.0.1")}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- g.Run(ctx, ln, &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequestClientCert})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the gateway stopped with %v", err)
		}
	})
	c.url = "https://" + ln.Addr().String()
	// Not through the gateway, whose limits are the test's.
	demo := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "demo"}}
	_, err = c.api.Create(t.Context(), api.User{Name: "kubernetes-admin", Groups: []string{authz.Masters}}, api.Target{Version: "v1", Resource: "namespaces"}, demo, api.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) certificate(t testing.TB, req pki.Request) tls.Certificate {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := c.ca.Sign(key.Public(), req, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// config is a client's, as admin.
func (c *cluster) config(t testing.TB) *rest.Config {
	t.Helper()
	key, err := pki.EncodeKey(c.admin.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	return &rest.Config{
		Host: c.url, QPS: -1, UserAgent: "tester/1.0",
		TLSClientConfig: rest.TLSClientConfig{
			CAData:   pki.EncodeCertificate(c.ca.Certificate().Raw),
			CertData: pki.EncodeCertificate(c.admin.Certificate[0]), KeyData: key,
		},
	}
}

// client is a typed client; change adapts its config.
func (c *cluster) client(t testing.TB, change func(*rest.Config)) *kubernetes.Clientset {
	t.Helper()
	cfg := c.config(t)
	if change != nil {
		change(cfg)
	}
	cs, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

// http is a plain client; with no certificate it is nobody.
func (c *cluster) http(t testing.TB, certs ...tls.Certificate) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(c.ca.Certificate())
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}, ForceAttemptHTTP2: true, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// answer is a response that has been read.
type answer struct {
	*http.Response
	text string
}

// do makes a request as admin. Headers are "Name: value".
func (c *cluster) do(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	return c.doAs(t, c.http(t, c.admin), method, path, body, headers...)
}

func (c *cluster) doAs(t testing.TB, client *http.Client, method, path, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp, string(b)}
}

// slow lets gets wait until they are released.
type slow struct {
	api.Resources
	inside  chan struct{}
	release chan struct{}
}

func (s *slow) Get(ctx context.Context, u api.User, t api.Target, o api.GetOptions) (api.Value, error) {
	switch t.Name {
	case "panic":
		panic("a broken handler")
	case "wait":
		s.inside <- struct{}{}
		select {
		case <-s.release:
		case <-ctx.Done():
			return api.Value{}, ctx.Err()
		}
	}
	return s.Resources.Get(ctx, u, t, o)
}
