package e2e

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/testbed"
)

// TestKindsThatAreServed: kubectl's table of kinds is the one that is meant to
// be served, and each kind and all its fields are explained by both documents.
func TestKindsThatAreServed(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("..", "internal", "discovery", "testdata", "resources.golden"))
	if err != nil {
		t.Fatal(err)
	}
	var want, explained []string
	version := ""
	for line := range strings.Lines(string(golden)) {
		f := strings.Fields(line)
		if len(f) == 1 {
			version = f[0]
		} else if !strings.Contains(f[0], "/") && version != "metrics.k8s.io/v1beta1" { // kubectl takes those for nodes and pods
			want = append(want, f[0]+" "+version+" "+f[1])
			explained = append(explained, f[0]+" "+version)
		}
	}
	out := wherry(t, "api-resources", "--no-headers", "--cached=false")
	for _, w := range want {
		f := strings.Fields(w)
		if f[1] == "autoscaling/v1" {
			continue // shown by its preferred version
		}
		if !regexp.MustCompile(`(?m)^` + f[0] + `\s.*` + regexp.QuoteMeta(f[1]) + `\s+(true|false)\s+` + f[2] + `\s*$`).MatchString(out) {
			t.Errorf("api-resources does not show %s", w)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	script := strings.Builder{}
	for _, e := range explained {
		name, version, _ := strings.Cut(e, " ")
		for _, form := range []string{"plaintext", "plaintext-openapiv2"} {
			script.WriteString("wherry explain " + name + " --api-version=" + version + " --recursive --output=" + form + " > /tmp/x 2>&1 && test $(wc -l < /tmp/x) -gt 8 || { echo " + e + " " + form + "; cat /tmp/x; }\n")
		}
	}
	if out, err := on(ctx, testbed.Client, "", "sh", "-c", script.String()); err != nil || out != "" {
		t.Errorf("not explained: %v\n%s", err, out)
	}
}

// TestExamplesOfKinds makes an object of each kind that has no controller yet,
// looks at it, changes nothing by making it again, and deletes it.
func TestExamplesOfKinds(t *testing.T) {
	ns := namespace(t)
	for _, group := range []string{"networking", "rbac", "storage", "extension"} {
		b, err := os.ReadFile(filepath.Join("..", "internal", "kinds", "testdata", "examples-"+group+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		text := regexp.MustCompile(`, creationTimestamp: "[^"]*"`).ReplaceAllString(string(b), "")
		text = regexp.MustCompile(`(?m)^status:.*\n`).ReplaceAllString(text, "")
		text = strings.ReplaceAll(strings.ReplaceAll(text, "namespace: shop", "namespace: "+ns), "{name: kubernetes}", "{name: kubernetes-two}")
		t.Cleanup(func() {
			cleanUp(t, text, "delete", "--ignore-not-found", "-f", "-")
		})
		out, err := tryWherry(t, text, "create", "-f", "-")
		if made := strings.Count(out, " created\n"); err != nil || made != strings.Count(text, "\nkind: ") {
			t.Errorf("%s: %d made: %v\n%s", group, made, err, out)
		}
		if out, err := tryWherry(t, text, "get", "-f", "-", "-o", "wide"); err != nil || strings.Contains(out, "No resources") {
			t.Errorf("%s: %v\n%s", group, err, out)
		}
		if out, err := tryWherry(t, text, "replace", "-f", "-"); err != nil && !strings.Contains(err.Error(), "resourceVersion") {
			t.Errorf("%s: %v\n%s", group, err, out)
		}
	}
	refused(t, "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: bad}\nspec: {rulez: []}\n", []string{"-n", ns, "create", "-f", "-"},
		`strict decoding error: unknown field "spec.rulez"`)
	refused(t, "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: bad}\nprovisioner: x\nreclaimPolicy: Recycle\n", []string{"create", "-f", "-"},
		`The StorageClass "bad" is invalid: reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"`)
}

// TestApprovalOfCertificates: a request is signed by nobody until somebody
// approves it, and a decision is final.
func TestApprovalOfCertificates(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "internal", "kinds", "testdata", "examples-extension.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	request, _, _ := strings.Cut(string(b), "\n---\n")
	request = strings.Replace(request, "{name: ann,", "{name: ann-approval,", 1)
	t.Cleanup(func() {
		cleanUp(t, "", "delete", "csr", "ann-approval", "--ignore-not-found")
	})
	if out, err := tryWherry(t, request, "create", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out := wherry(t, "get", "csr", "ann-approval"); !strings.Contains(out, "kubernetes-admin") || !strings.Contains(out, "Pending") {
		t.Errorf("a new request shows as\n%s", out)
	}
	wherry(t, "certificate", "approve", "ann-approval")
	if out := wherry(t, "get", "csr", "--field-selector", "spec.signerName=kubernetes.io/kube-apiserver-client"); !strings.Contains(out, "Approved") {
		t.Errorf("an approved request shows as\n%s", out)
	}
	if out, err := tryWherry(t, "", "certificate", "deny", "ann-approval"); err == nil {
		t.Errorf("it was denied after that:\n%s", out)
	}
}

// cleanUp runs wherry after a test.
func cleanUp(t *testing.T, stdin string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if out, err := on(ctx, testbed.Client, stdin, append([]string{"wherry"}, args...)...); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
