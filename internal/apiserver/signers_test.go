package apiserver_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// TestSignersAreAskedFor: who may write /approval and /status of requests for
// certificates decides and signs only for the signers that are his, by their
// names or by their domain.
func TestSignersAreAskedFor(t *testing.T) {
	c := local(t)
	file, err := os.ReadFile("../kinds/testdata/examples-extension.yaml")
	if err != nil {
		t.Fatal(err)
	}
	example, _, _ := strings.Cut(string(file), "\n---\n")
	const csrs, roles = "certificatesigningrequests.certificates.k8s.io", "clusterroles.rbac.authorization.k8s.io"
	for name, signer := range map[string]string{"mine": "example.com/mine", "other": "example.com/other", "domain": "example.org/any", "api": "kubernetes.io/kube-apiserver-client"} {
		text := strings.NewReplacer("name: ann,", "name: "+name+",", "kubernetes.io/kube-apiserver-client", signer).Replace(example)
		c.must(c.create(csrs, "", text))
	}
	c.must(c.create(roles, "", `{metadata: {name: decides}, rules: [{apiGroups: [certificates.k8s.io], resources: [certificatesigningrequests/approval, certificatesigningrequests/status], verbs: [update, patch]},
		{apiGroups: [certificates.k8s.io], resources: [signers], resourceNames: [example.com/mine, "example.org/*"], verbs: [approve, sign]}]}`))
	c.must(c.create("clusterrolebindings.rbac.authorization.k8s.io", "", `{metadata: {name: b}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: decides}, subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: jane}]}`))
	write := func(name, sub string, cond certificatesv1.RequestConditionType) error {
		old, err := c.get(csrs, "", name)
		if err != nil {
			t.Fatal(err)
		}
		r := old.DeepCopyObject().(*certificatesv1.CertificateSigningRequest)
		if cond != "" {
			r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: cond, Status: corev1.ConditionTrue, Reason: "Test"})
		} else {
			r.Labels = map[string]string{"a": "b"}
		}
		_, err = c.api.Update(t.Context(), jane, c.at(csrs, "", name, sub), r, api.WriteOptions{})
		return err
	}
	for _, tt := range []struct{ name, signer string }{{"mine", ""}, {"domain", ""}, {"other", "example.com/other"}, {"api", "kubernetes.io/kube-apiserver-client"}} {
		for sub, verb := range map[string]string{"approval": "approve", "status": "sign"} {
			cond := certificatesv1.CertificateDenied
			if sub == "status" {
				cond = certificatesv1.CertificateFailed
			}
			if tt.signer == "" {
				wants(t, write(tt.name, sub, cond), nil, "")
				continue
			}
			wants(t, write(tt.name, sub, cond), apierr.ErrForbidden, fmt.Sprintf(
				`certificatesigningrequests.certificates.k8s.io %q is forbidden: user not permitted to %s requests with signerName %q`, tt.name, verb, tt.signer))
		}
	}
	wants(t, write("other", "status", ""), nil, "") // which signs nothing
}
