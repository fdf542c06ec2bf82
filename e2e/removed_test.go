package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/wherry-project/wherry/internal/testbed"
)

// ownBed is a cluster of a test's own, whose controlds have config besides.
func ownBed(t *testing.T, name string, controls, nodes int, config string) *testbed.Testbed {
	t.Helper()
	o := testbed.Options{
		Name: name, Dir: suite.Dir(), Bin: os.Getenv("WHERRY_BIN"), Controls: controls, Nodes: nodes,
		ControlConfig: fmt.Sprintf("node-grace: %v\n%s", nodeGrace, config), Progress: func(string) {},
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*patience)
		defer cancel()
		if err := testbed.Down(ctx, o.Dir, o.Name); err != nil {
			t.Error(err)
		}
	})
	bed, err := testbed.Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return bed
}

// with speaks to a control of bed, changed as change says.
func with(t *testing.T, bed *testbed.Testbed, control string, change func(*rest.Config)) *kubernetes.Clientset {
	t.Helper()
	c, err := bed.RESTConfig(testbed.Client, control)
	if err != nil {
		t.Fatal(err)
	}
	change(c)
	k, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestNodeRemoved: with `wherry cluster nodes remove` the node's certificate is
// worth nothing at any controld, what it has open ends, and it does not come
// back; until it joins anew.
func TestNodeRemoved(t *testing.T) {
	bed := ownBed(t, "removed", 3, 2, "")
	if err := bed.AwaitNodes(t.Context(), nodes...); err != nil {
		t.Fatal(err)
	}
	file := func(name string) []byte {
		b, err := bed.ReadFile("n1", "/var/lib/wherry/noded/pki/"+name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	cert, key := file("tls.crt"), file("tls.key")
	asNode := map[string]*kubernetes.Clientset{}
	ended := map[string]<-chan struct{}{}
	for _, c := range controls {
		k := with(t, bed, c, func(r *rest.Config) { r.CertData, r.KeyData = cert, key })
		asNode[c] = k
		eventually(t, func() error {
			_, err := k.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
			return err
		})
		w, err := k.CoreV1().Services("").Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Stop)
		end := make(chan struct{})
		ended[c] = end
		go func() {
			defer close(end)
			for range w.ResultChan() { // to its end
			}
		}()
	}
	run := func(host, stdin string, argv ...string) string {
		t.Helper()
		var out, errOut strings.Builder
		err := bed.Run(t.Context(), host, testbed.Command{Argv: argv, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errOut})
		if err != nil {
			t.Fatalf("%s: %v\n%s%s", argv, err, &out, &errOut)
		}
		return out.String()
	}
	if out := run(testbed.Client, "", "wherry", "cluster", "nodes", "remove", "n1"); !strings.HasPrefix(out, "node n1 removed; ") {
		t.Errorf("it said %q", out)
	}
	for _, c := range controls {
		eventually(t, func() error {
			_, err := asNode[c].CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
			if !apierrors.IsUnauthorized(err) {
				return fmt.Errorf("%s answers a removed node with %w", c, err)
			}
			return nil
		})
		select {
		case <-ended[c]:
		case <-time.After(patience):
			t.Errorf("%s goes on with the watch of a removed node", c)
		}
	}
	admin := with(t, bed, "", func(*rest.Config) {})
	said := func(host, daemon, text string) {
		t.Helper()
		eventually(t, func() error {
			b, err := os.ReadFile(bed.LogFile(host, daemon))
			if err == nil && !strings.Contains(string(b), text) {
				err = fmt.Errorf("%s on %s has not said %q", daemon, host, text)
			}
			return err
		})
	}
	for _, c := range controls {
		said(c, "controld", `msg="node disconnected" node=n1`)
	}
	said("n1", "noded", "it was removed from the cluster")
	list, err := admin.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.Items[0].Name != "n2" {
		t.Errorf("nodes %v, %v", list.Items, err)
	}

	token := run(testbed.Client, "", "wherry", "cluster", "token", "create", "--role", "node")
	if err := bed.Stop(t.Context(), "n1", ""); err != nil {
		t.Fatal(err)
	}
	run("n1", "", "rm", "-rf", "/var/lib/wherry/noded")
	if err := bed.WriteFile("n1", "/etc/wherry/token", []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	c1, err := bed.Exec(t.Context(), "n1", "getent", "hosts", "c1")
	if err != nil {
		t.Fatal(err)
	}
	run("n1", "", "noded", "join", net.JoinHostPort(strings.Fields(c1)[0], "7443"), "--token-file", "/etc/wherry/token")
	if err := bed.Start(t.Context(), "n1", testbed.RoleNode.Daemon()); err != nil {
		t.Fatal(err)
	}
	if err := bed.AwaitNodes(t.Context(), nodes...); err != nil {
		t.Error(err)
	}
	tokenKeys(t, bed, run)
}

// tokenKeys changes the key that signs tokens: those of before stay good, at
// every controld.
func tokenKeys(t *testing.T, bed *testbed.Testbed, run func(host, stdin string, argv ...string) string) {
	t.Helper()
	create := func() string {
		return strings.TrimSpace(run(testbed.Client, "", "wherry", "create", "token", "default"))
	}
	before := create()
	if out := run(testbed.Client, "", "wherry", "cluster", "rotate-token-key"); !strings.Contains(out, "signs from now on; 2 keys are believed") {
		t.Errorf("it said %q", out)
	}
	after := create()
	if kid(t, before) == kid(t, after) {
		t.Error("the old key still signs")
	}
	for _, c := range controls {
		for _, token := range []string{before, after} {
			k := with(t, bed, c, func(r *rest.Config) { r.CertData, r.KeyData, r.BearerToken = nil, nil, token })
			eventually(t, func() error {
				r, err := k.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
				if err == nil && r.Status.UserInfo.Username != "system:serviceaccount:default:default" {
					err = fmt.Errorf("%s takes a token for %s's", c, r.Status.UserInfo.Username)
				}
				return err
			})
		}
	}
}

// kid is the id of the key that signed a token.
func kid(t *testing.T, token string) string {
	t.Helper()
	head, _, _ := strings.Cut(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(head)
	var h struct{ Kid string }
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err != nil || h.Kid == "" {
		t.Fatalf("token %s…: %v", head, err)
	}
	return h.Kid
}
