package bootstrap_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/wherry-project/wherry/internal/alloc"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/bootstrap"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/store"
)

func config(table *api.Kinds) bootstrap.Config {
	return bootstrap.Config{
		Kinds: table, DNS: netip.MustParseAddr("10.96.0.10"), APIPort: 6443, Now: time.Now(),
		Alloc: alloc.New(alloc.Config{
			Services: netip.MustParsePrefix("10.96.0.0/16"), Pods: netip.MustParsePrefix("10.244.0.0/16"), NodeBits: 24,
			FirstPort: 30000, LastPort: 32767, DNS: netip.MustParseAddr("10.96.0.10"),
		}),
	}
}

func TestFirstObjects(t *testing.T) {
	table := kinds.Table()
	s := store.NewLocal(api.NewCodec(table, 0))
	key := api.Key{Resource: "x.internal.wherry", Name: "x"}
	also := store.Change{Op: store.Put, Key: key, Record: &api.Record{Key: key, Bytes: []byte("x")}}
	if err := bootstrap.Write(t.Context(), s, config(table), also); err != nil {
		t.Fatal(err)
	}
	snap, err := s.Snapshot(t.Context(), store.At{})
	if err != nil {
		t.Fatal(err)
	}
	if snap.Revision() != 1 {
		t.Errorf("revision %d: not one command", snap.Revision())
	}
	if _, ok := snap.Get(key); !ok {
		t.Error("what was to go along is not there")
	}
	all, err := store.List[*corev1.Namespace](snap, "namespaces", "")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range all {
		names = append(names, n.Name)
		if n.Status.Phase != corev1.NamespaceActive || n.Labels["kubernetes.io/metadata.name"] != n.Name || n.UID == "" || n.CreationTimestamp.IsZero() || !slices.Contains(n.Spec.Finalizers, corev1.FinalizerKubernetes) {
			t.Errorf("namespace is not as the API makes it: %+v", n)
		}
	}
	if want := []string{"default", "kube-node-lease", "kube-public", "kube-system"}; !slices.Equal(names, want) {
		t.Errorf("namespaces %v, want %v", names, want)
	}
	for _, tt := range []struct {
		namespace, name, address string
		ports                    int
	}{{"default", "kubernetes", "10.96.0.1", 1}, {"kube-system", "kube-dns", "10.96.0.10", 2}} {
		svc, err := store.Get[*corev1.Service](snap, api.Key{Resource: "services", Namespace: tt.namespace, Name: tt.name})
		if err != nil {
			t.Fatal(err)
		}
		if svc.Spec.ClusterIP != tt.address || !slices.Equal(svc.Spec.ClusterIPs, []string{tt.address}) || len(svc.Spec.Ports) != tt.ports || svc.Spec.SessionAffinity != corev1.ServiceAffinityNone {
			t.Errorf("%s: %+v", tt.name, svc.Spec)
		}
		if _, ok := snap.Get(api.Key{Resource: "addresses.internal.wherry", Name: tt.address}); !ok {
			t.Errorf("%s is not taken", tt.address)
		}
	}
}

func TestWhereAClusterIs(t *testing.T) {
	table := kinds.Table()
	s := store.NewLocal(api.NewCodec(table, 0))
	for i, want := range []error{nil, apierr.ErrConflict, apierr.ErrConflict} {
		if err := bootstrap.Write(t.Context(), s, config(table)); !errors.Is(err, want) {
			t.Errorf("time %d: %v", i+1, err)
		}
	}
	if r := s.Mem().Revision(); r != 1 {
		t.Errorf("revision %d: something was changed", r)
	}
}

func TestKubeconfig(t *testing.T) {
	ca, err := pki.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b, err := bootstrap.Kubeconfig("https://cluster.example:6443", "kubernetes-admin", pki.EncodeCertificate(ca.Certificate().Raw), []byte("cert"), []byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := clientcmd.RESTConfigFromKubeConfig(b)
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if c.Host != "https://cluster.example:6443" || string(c.CertData) != "cert" || string(c.KeyData) != "key" || len(c.CAData) == 0 {
		t.Errorf("read back as %+v", c)
	}
}
