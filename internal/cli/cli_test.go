package cli

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"k8s.io/client-go/tools/clientcmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/testkit"
)

// server is a controld's gRPC as far as the commands go; it keeps what it is
// told.
type server struct {
	wherryv1.UnimplementedClusterServer
	wherryv1.UnimplementedImagesServer
	user     string
	imported []byte
	nodes    []string
}

func (s *server) CreateToken(_ context.Context, r *wherryv1.CreateTokenRequest) (*wherryv1.CreateTokenResponse, error) {
	if r.GetTtlSeconds() < 60 {
		return nil, apierr.New(apierr.ErrInvalid, "a token lives a minute at least")
	}
	return &wherryv1.CreateTokenResponse{Token: fmt.Sprintf("token-%v-%d", r.GetRole(), r.GetTtlSeconds()), Expires: "2030-01-01T00:00:00Z"}, nil
}

func (s *server) Members(context.Context, *wherryv1.MembersRequest) (*wherryv1.MembersResponse, error) {
	return &wherryv1.MembersResponse{Members: []*wherryv1.Member{
		{Id: "a1", Name: "c1", Address: "10.0.0.1:7443", Leader: true, Voter: true, Reachable: true},
		{Id: "a2", Name: "c2", Address: "10.0.0.2:7443", Voter: true},
	}}, nil
}

func (s *server) RemoveMember(_ context.Context, r *wherryv1.RemoveMemberRequest) (*wherryv1.RemoveMemberResponse, error) {
	if r.GetId() != "a2" {
		return nil, status.Error(codes.InvalidArgument, r.GetId()+" is the only member that votes")
	}
	return &wherryv1.RemoveMemberResponse{}, nil
}

func (s *server) RemoveNode(_ context.Context, r *wherryv1.RemoveNodeRequest) (*wherryv1.RemoveNodeResponse, error) {
	if r.GetName() != "n1" {
		return nil, apierr.NotFound("nodes", r.GetName())
	}
	return &wherryv1.RemoveNodeResponse{}, nil
}

func (s *server) RotateTokenKey(context.Context, *wherryv1.RotateTokenKeyRequest) (*wherryv1.RotateTokenKeyResponse, error) {
	return &wherryv1.RotateTokenKeyResponse{Key: "abc", Believed: 2}, nil
}

func (s *server) TransferLeadership(_ context.Context, r *wherryv1.TransferLeadershipRequest) (*wherryv1.TransferLeadershipResponse, error) {
	if r.GetId() != "" && r.GetId() != "a2" {
		return nil, status.Error(codes.NotFound, r.GetId())
	}
	return &wherryv1.TransferLeadershipResponse{}, nil
}

func (s *server) ListImages(context.Context, *wherryv1.ListImagesRequest) (*wherryv1.ListImagesResponse, error) {
	return &wherryv1.ListImagesResponse{Images: []*wherryv1.NodeImage{
		{Node: "n1", Id: "sha256:0123456789abcdef", Tags: []string{"web:1", "web:latest"}, Size: 3 << 20},
		{Node: "n2", Id: "sha256:ff", Digests: []string{"web@sha256:ff"}, Size: 25<<20 + 7},
	}}, nil
}

func (s *server) ImportImages(in grpc.ClientStreamingServer[wherryv1.ImportImagesRequest, wherryv1.ImportImagesResponse]) error {
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		s.nodes = append(s.nodes, m.GetNodes()...)
		s.imported = append(s.imported, m.GetData()...)
		if bytes.HasPrefix(m.GetData(), []byte("bad")) {
			return apierr.New(apierr.ErrBadRequest, "not an image archive")
		}
	}
	return in.SendAndClose(&wherryv1.ImportImagesResponse{Images: []*wherryv1.NodeImage{{Node: "n1", Tags: []string{"web:1"}}}})
}

func (s *server) ExportImage(r *wherryv1.ExportImageRequest, out grpc.ServerStreamingServer[wherryv1.ExportImageResponse]) error {
	if r.GetReference() != "web:1" {
		return apierr.NotFound("images", r.GetReference())
	}
	for range 3 {
		if err := out.Send(&wherryv1.ExportImageResponse{Data: []byte("abc")}); err != nil {
			return err
		}
	}
	return nil
}

// serve starts a server and returns it with its address and the path of a
// kubeconfig that names it.
func serve(t *testing.T) (s *server, address, kubeconfig string) {
	t.Helper()
	cert, certPEM, keyPEM := selfSigned(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = &server{}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	g := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})),
		grpc.UnaryInterceptor(apierr.ServerUnary), grpc.StreamInterceptor(apierr.ServerStream))
	wherryv1.RegisterClusterServer(g, s)
	wherryv1.RegisterImagesServer(g, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: "https://127.0.0.1:6443", CertificateAuthorityData: certPEM}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{ClientCertificateData: certPEM, ClientKeyData: keyPEM}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	kubeconfig = filepath.Join(t.TempDir(), "config")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	return s, l.Addr().String(), kubeconfig
}

func selfSigned(t *testing.T) (cert tls.Certificate, certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes-admin"},
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	cert, err = tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return cert, certPEM, keyPEM
}

func execute(stdin string, args ...string) (out, errOut string, err error) {
	var o, e bytes.Buffer
	args = append([]string{"wherry"}, args...)
	root := New("v1.2.3", genericiooptions.IOStreams{In: strings.NewReader(stdin), Out: &o, ErrOut: &e}, args)
	root.SetArgs(args[1:])
	root.SetOut(&o)
	root.SetErr(&e)
	root.SilenceErrors, root.SilenceUsage = true, true
	err = root.Execute()
	return o.String(), e.String(), err
}

func TestCommands(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	s, address, kubeconfig := serve(t)
	archive := filepath.Join(t.TempDir(), "web.tar")
	big := bytes.Repeat([]byte("x"), 3*chunk+17)
	if err := os.WriteFile(archive, big, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		args, stdin   string
		out, err      string
		alsoIn, nodes string // in out; sent
	}{
		{args: "cluster token create --role node", out: "token-ROLE_NODE-86400\n"},
		{args: "cluster token create --role control --ttl 90s", out: "token-ROLE_CONTROL-90\n"},
		{args: "cluster token create --ttl 90s", err: `--role is node or control, not ""`},
		{args: "cluster token create --role node --ttl 2s", err: "a token lives a minute at least"},
		{args: "cluster members", alsoIn: "c1     Ready          leader     10.0.0.1:7443   a1\nc2     NotReachable   follower   10.0.0.2:7443   a2\n"},
		{args: "cluster members -o json", alsoIn: `"leader": true`},
		{args: "cluster members -o yaml", err: "--output is json or nothing"},
		{args: "cluster members list", alsoIn: "c1     Ready          leader     10.0.0.1:7443   a1\n"},
		{args: "cluster members nonsense", err: "nonsense"},
		{args: "cluster members remove", err: "accepts 1 arg"},
		{args: "cluster members remove c9", err: `no controld is named "c9"; there are c1, c2`},
		{args: "cluster members remove c2", out: "controld c2 removed; stop it if it runs, and delete its data directory before it joins again\n"},
		{args: "cluster members remove a1", err: "is the only member that votes"},
		{args: "cluster members transfer-leadership", out: "leadership goes to another controld\n"},
		{args: "cluster members transfer-leadership c2", out: "leadership goes to c2\n"},
		{args: "cluster members transfer-leadership c9", err: `no controld is named "c9"`},
		{args: "cluster nodes remove", err: "accepts 1 arg"},
		{args: "cluster nodes remove n9", err: `nodes "n9" not found`},
		{args: "cluster nodes remove n1", out: "node n1 removed; stop noded there if it runs, and delete its data directory before it joins again\n"},
		{args: "cluster rotate-token-key", out: "key abc signs from now on; 2 keys are believed\n"},
		{args: "image list", alsoIn: "n1     web:latest      0123456789ab   3Mi\nn2     web@sha256:ff   ff             25Mi\n"},
		{args: "image import " + archive, out: "imported web:1 on n1\n"},
		{args: "image import - --node n1,n2", stdin: string(big), out: "imported web:1 on n1\n", nodes: "n1 n2"},
		{args: "image import -", stdin: "bad" + string(big), err: "not an image archive"},
		{args: "image import /no/such", err: "no such file"},
		{args: "image import " + filepath.Dir(archive), err: "is a folder"},
		{args: "image export web:1 -o -", err: "give --node once"},
		{args: "image export web:1 --node n1", err: "say where to"},
		{args: "image export web:1 --node n1 -o -", out: "abcabcabc"},
		{args: "image export gone:1 --node n1 -o " + archive + ".out", err: `images "gone:1" not found`},
		{args: "image export web:1 --node n1 -o " + archive + ".out"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			s.imported, s.nodes = nil, nil
			out, _, err := execute(tt.stdin, append(strings.Fields(tt.args), "--kubeconfig", kubeconfig, "--grpc-address", address)...)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || tt.alsoIn == "" && out != tt.out || !strings.Contains(out, tt.alsoIn) {
				t.Errorf("error %v, out:\n%s", err, out)
			}
			if strings.HasPrefix(tt.args, "image import") && (!bytes.Equal(s.imported, big) || strings.Join(s.nodes, " ") != tt.nodes) {
				t.Errorf("%d bytes imported on %v", len(s.imported), s.nodes)
			}
		})
	}
	if b, err := os.ReadFile(archive + ".out"); err != nil || string(b) != "abcabcabc" {
		t.Errorf("exported %q, %v", b, err)
	}
	if left, _ := filepath.Glob(filepath.Dir(archive) + "/.export-*"); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestNames(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	out, _, err := execute("", "help")
	if err != nil || !strings.Contains(out, "testbed") || !strings.Contains(out, "rollout") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, args := range []string{"get -h", "rollout status -h", "create configmap -h", "apply -h"} {
		if out, _, err := execute("", strings.Fields(args)...); err != nil || strings.Contains(out, "kubectl ") || !strings.Contains(out, "wherry ") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
	if out, _, err := execute("", "version", "--client"); err != nil || !strings.HasPrefix(out, "Wherry Version: v1.2.3\nClient Version: ") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, _, err := execute("", "version", "--client", "-o", "json"); err != nil || !strings.HasPrefix(out, "{") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Each command's help tells the flags of its parents too, and they may stand
// before or after its name.
func TestInheritedFlags(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	for args, want := range map[string][]string{
		"testbed kill -h":         {"--name=", "--testbed-dir="},
		"testbed up -h":           {"--name=", "--testbed-dir=", "--controls="},
		"cluster members list -h": {"--grpc-address="},
		"cluster token create -h": {"--grpc-address=", "--role="},
		"image list -h":           {"--grpc-address=", "--node="},
	} {
		out, _, err := execute("", strings.Fields(args)...)
		if err != nil || strings.Contains(out, "[flags]") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s does not tell %s:\n%s", args, w, out)
			}
		}
	}
	for _, args := range []string{"testbed --testbed-dir DIR --name n kill c1", "testbed kill --testbed-dir DIR --name n c1", "testbed --name=n kill c1 --testbed-dir DIR"} {
		_, _, err := execute("", strings.Fields(strings.ReplaceAll(args, "DIR", t.TempDir()))...)
		if err == nil || !strings.Contains(err.Error(), `no testbed "n"`) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestRebrand(t *testing.T) {
	for in, want := range map[string]string{
		"kubectl get pods\n  kubectl apply -f x":     "wherry get pods\n  wherry apply -f x",
		"kubectl.kubernetes.io/restartedAt":          "kubectl.kubernetes.io/restartedAt",
		"see 'kubectl explain'; `kubectl` (kubectl)": "see 'wherry explain'; `wherry` (wherry)",
		"--field-manager kubectl-create":             "--field-manager kubectl-create",
	} {
		if got := word.ReplaceAllString(in, mended); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestFallback(t *testing.T) {
	home, admin := t.TempDir(), filepath.Join(t.TempDir(), "admin.kubeconfig")
	env := map[string]string{"HOME": home}
	check := func(what, want string) {
		t.Helper()
		if got := fallback(func(k string) string { return env[k] }, admin); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("no file at all", "")
	if err := os.WriteFile(admin, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("only the admin's", admin)
	env["KUBECONFIG"] = "/elsewhere"
	check("$KUBECONFIG", "")
	delete(env, "KUBECONFIG")
	if err := os.MkdirAll(filepath.Join(home, ".kube"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".kube", "config"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("the user's own", "")
}

func TestUnreachable(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	_, _, kubeconfig := serve(t)
	closed := testkit.Refusing(t)
	for _, args := range []string{"cluster members", "image list", "image import -"} {
		_, _, err := execute("", append(strings.Fields(args), "--kubeconfig", kubeconfig, "--grpc-address", closed)...)
		want := "The connection to the server " + closed + " was refused - did you specify the right host or port?"
		if msg, ok := cmdutil.StandardErrorMessage(err); !ok || msg != want {
			t.Errorf("%s: %q, %v", args, msg, err)
		}
	}
}

func TestGRPCAddress(t *testing.T) {
	for server, want := range map[string]string{
		"https://api.wherry.test:6443": "api.wherry.test:7443", "https://[fd00::1]:6443/x": "[fd00::1]:7443", "https://h": "h:7443", "h": "",
	} {
		if got, err := grpcAddress(server); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", server, got, err)
		}
	}
}
