package controllers_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/testkit"
)

const csrs = "certificatesigningrequests.certificates.k8s.io"

// asked is a request for a certificate, and the key that it is for.
func asked(t testing.TB, name, signer string, subject pkix.Name, seconds int32, usages ...certificatesv1.KeyUsage) (*certificatesv1.CertificateSigningRequest, crypto.Signer) {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject, DNSNames: []string{"jane.test"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	r := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: signer, Usages: usages,
		},
	}
	if seconds > 0 {
		r.Spec.ExpirationSeconds = &seconds
	}
	return r, key
}

// decide writes a decision about a request.
func decide(c *cluster, name string, what certificatesv1.RequestConditionType) {
	c.t.Helper()
	testkit.Eventually(c.t, patience, func() error {
		r, err := get[*certificatesv1.CertificateSigningRequest](c, csrs, "", name)
		if err != nil {
			return err
		}
		r = r.DeepCopy()
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: what, Status: corev1.ConditionTrue, Reason: "Test"})
		_, err = c.admin.UpdateSubresource(c.t.Context(), r, "approval")
		return err
	})
}

// TestSignsWhatIsApproved: an approved request of the API's own signer becomes a
// certificate by which its key is the user that it names; others are not signed.
func TestSignsWhatIsApproved(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	subject := pkix.Name{CommonName: "jane", Organization: []string{"painters"}}
	client, ours := certificatesv1.UsageClientAuth, certificatesv1.KubeAPIServerClientSignerName
	keys := map[string]crypto.Signer{}
	for _, tt := range []struct {
		name, signer string
		seconds      int32
		usages       []certificatesv1.KeyUsage
	}{
		{"plain", ours, 0, []certificatesv1.KeyUsage{client}},
		{"hour", ours, 3600, []certificatesv1.KeyUsage{client, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment}},
		{"long", ours, 1 << 30, []certificatesv1.KeyUsage{client}},
		{"serves", ours, 0, []certificatesv1.KeyUsage{client, certificatesv1.UsageServerAuth}},
		{"signs", ours, 0, []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature}},
		{"pending", ours, 0, []certificatesv1.KeyUsage{client}},
		{"denied", ours, 0, []certificatesv1.KeyUsage{client}},
		{"kubelet", certificatesv1.KubeAPIServerClientKubeletSignerName, 0, []certificatesv1.KeyUsage{client}},
		{"serving", certificatesv1.KubeletServingSignerName, 0, []certificatesv1.KeyUsage{client}},
		{"others", "example.com/users", 0, []certificatesv1.KeyUsage{client}},
	} {
		r, key := asked(t, tt.name, tt.signer, subject, tt.seconds, tt.usages...)
		keys[tt.name] = key
		if _, err := c.admin.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		switch tt.name {
		case "pending":
		case "denied":
			decide(c, tt.name, certificatesv1.CertificateDenied)
		default:
			decide(c, tt.name, certificatesv1.CertificateApproved)
		}
	}
	verifier := pki.NewVerifier(c.ca.Certificate(), func(pki.Peer) error { return nil }, time.Now)
	for name, lasts := range map[string]time.Duration{"hour": time.Hour + 5*time.Minute, "long": pki.UserLife, "plain": pki.UserLife} {
		leaf := issued(c, name)
		if got := leaf.NotAfter.Sub(leaf.NotBefore); got != lasts {
			t.Errorf("%s is valid for %v, want %v", name, got, lasts)
		}
		if p, err := verifier.Certificate(leaf); err != nil || p.User != "jane" || !slices.Equal(p.Groups, []string{"painters"}) || p.Role != pki.User {
			t.Errorf("%s is of %+v, %v", name, p, err)
		}
		if pub, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(keys[name].Public()) {
			t.Errorf("%s is for another key", name)
		}
		if leaf.IsCA || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || !slices.Equal(leaf.DNSNames, []string{"jane.test"}) {
			t.Errorf("%s is a CA %v, for %v, of %v", name, leaf.IsCA, leaf.ExtKeyUsage, leaf.DNSNames)
		}
	}
	if usage, want := issued(c, "hour").KeyUsage, x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment; usage != want {
		t.Errorf("it is for %b, want %b", usage, want)
	}
	for name, why := range map[string]string{
		"serves": "invalid usage for client certificate: server auth", "signs": "missing required usage for client certificate: client auth",
	} {
		testkit.Eventually(t, patience, func() error {
			r := must(get[*certificatesv1.CertificateSigningRequest](c, csrs, "", name))
			for _, cond := range r.Status.Conditions {
				if cond.Type == certificatesv1.CertificateFailed && cond.Reason == "SignerValidationFailure" && cond.Message == why && !cond.LastUpdateTime.IsZero() {
					return nil
				}
			}
			return fmt.Errorf("%s has %+v", name, r.Status)
		})
	}
	for _, name := range []string{"pending", "denied", "kubelet", "serving", "others", "serves", "signs"} {
		if r := must(get[*certificatesv1.CertificateSigningRequest](c, csrs, "", name)); len(r.Status.Certificate) > 0 {
			t.Errorf("%s was signed", name)
		}
	}
}

// issued waits for a certificate.
func issued(c *cluster, name string) *x509.Certificate {
	c.t.Helper()
	var leaf *x509.Certificate
	testkit.Eventually(c.t, patience, func() error {
		r, err := get[*certificatesv1.CertificateSigningRequest](c, csrs, "", name)
		if err != nil {
			return err
		}
		block, rest := pem.Decode(r.Status.Certificate)
		if block == nil || len(bytes.TrimSpace(rest)) > 0 {
			return fmt.Errorf("%s has %+v", name, r.Status)
		}
		leaf, err = x509.ParseCertificate(block.Bytes)
		return err
	})
	return leaf
}

// TestReservedSubjects: nobody asks for a certificate of those who have their
// rights by their group, and one that an older version let in is not signed.
func TestReservedSubjects(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	for _, group := range []string{authz.Masters, authz.Nodes, authz.Controls} {
		name := "old-" + strings.ReplaceAll(group, ":", "-")
		r, _ := asked(t, name, certificatesv1.KubeAPIServerClientSignerName, pkix.Name{CommonName: "jane", Organization: []string{"a", group}}, 0, certificatesv1.UsageClientAuth)
		want := fmt.Sprintf(`certificatesigningrequests.certificates.k8s.io %q is forbidden: use of kubernetes.io/kube-apiserver-client signer with %s group is not allowed`, name, group)
		if _, err := c.admin.Create(t.Context(), r.DeepCopy()); err == nil || err.Error() != want {
			t.Errorf("answered %v, want %s", err, want)
		}
		other := r.DeepCopy()
		other.Name, other.Spec.SignerName = "example-"+name, "example.com/users"
		if _, err := c.admin.Create(t.Context(), other); err != nil {
			t.Errorf("of another signer: %v", err)
		}
		r.CreationTimestamp = metav1.Now()
		r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, LastUpdateTime: metav1.Now()}}
		c.put(r)
		testkit.Eventually(t, patience, func() error {
			r := must(get[*certificatesv1.CertificateSigningRequest](c, csrs, "", name))
			if len(r.Status.Certificate) > 0 {
				t.Fatalf("%s was signed", name)
			}
			if n := len(r.Status.Conditions); n != 2 || r.Status.Conditions[1].Type != certificatesv1.CertificateFailed {
				return fmt.Errorf("%+v", r.Status.Conditions)
			}
			return nil
		})
	}
}

// put writes an object as it is, past the API.
func (c *cluster) put(obj api.Object) {
	c.t.Helper()
	k, _ := c.api.Kinds().Of(obj)
	obj.SetUID("put-" + obj.GetUID())
	r, err := k.Record(obj)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.store.Commit(c.t.Context(), store.Command{Changes: []store.Change{{Op: store.Put, Key: r.Key, Record: r}}}); err != nil {
		c.t.Fatal(err)
	}
}

// TestOldRequests: requests go when they were answered an hour ago, or have
// waited for a day.
func TestOldRequests(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	ago := func(d time.Duration) metav1.Time { return metav1.Time{Time: time.Now().Add(-d).Truncate(time.Second)} }
	cond := func(what certificatesv1.RequestConditionType, age time.Duration) certificatesv1.CertificateSigningRequestCondition {
		return certificatesv1.CertificateSigningRequestCondition{Type: what, Status: corev1.ConditionTrue, LastUpdateTime: ago(age), LastTransitionTime: ago(age)}
	}
	const day = 24 * time.Hour
	type conds = []certificatesv1.CertificateSigningRequestCondition
	approved, denied, failed := certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed
	r, _ := asked(t, "x", "example.com/users", pkix.Name{CommonName: "jane"}, 0, certificatesv1.UsageClientAuth)
	signed := func(valid time.Duration) []byte {
		block, _ := pem.Decode(r.Spec.Request)
		request, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		der, err := c.ca.SignClient(request, 0, valid, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return pki.EncodeCertificate(der)
	}
	for _, tt := range []struct {
		name string
		age  time.Duration
		have conds
		cert []byte
	}{
		{"go-pending", day + time.Minute, nil, nil},
		{"go-denied", 2 * time.Hour, conds{cond(denied, time.Hour+time.Minute)}, nil},
		{"go-failed", 2 * time.Hour, conds{cond(approved, time.Hour+time.Minute), cond(failed, time.Hour+time.Minute)}, nil},
		{"go-issued", 2 * time.Hour, conds{cond(approved, time.Hour+time.Minute)}, signed(day)},
		{"go-expired", time.Hour, conds{cond(approved, time.Minute)}, signed(-time.Second)},
		{"go-unsigned", 3 * day, conds{cond(approved, day+time.Minute)}, nil},
		{"pending", day - time.Hour, nil, nil},
		{"denied", 30 * day, conds{cond(denied, time.Minute)}, nil},
		{"failed", 30 * day, conds{cond(approved, 30*time.Minute), cond(failed, time.Minute)}, nil},
		{"issued", 30 * day, conds{cond(approved, time.Minute)}, signed(day)},
		{"unsigned", 30 * day, conds{cond(approved, 2*time.Hour)}, nil},
	} {
		one := r.DeepCopy()
		one.Name, one.CreationTimestamp = tt.name, ago(tt.age)
		one.Status = certificatesv1.CertificateSigningRequestStatus{Conditions: tt.have, Certificate: tt.cert}
		c.put(one)
	}
	testkit.Eventually(t, patience, func() error {
		var left []string
		for _, r := range list[*certificatesv1.CertificateSigningRequest](c, csrs, "") {
			left = append(left, r.Name)
		}
		if got, want := strings.Join(left, " "), "denied failed issued pending unsigned"; got != want {
			return fmt.Errorf("%q is left, want %q", got, want)
		}
		return nil
	})
}
