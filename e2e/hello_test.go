package e2e

import (
	"os"
	"strings"
	"testing"
)

// TestHello is the main job: examples/hello.yaml, its page fetched by name
// from a pod, and scaled.
func TestHello(t *testing.T) {
	manifests, err := os.ReadFile("../examples/hello.yaml")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, "demo", string(manifests))
	t.Cleanup(func() {
		if out, err := tryWherry(t, "", "delete", "namespace", "demo", "--timeout=60s"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	wherry(t, "-n", "demo", "rollout", "status", "deployment", "hello", "--timeout=60s")
	wherry(t, "-n", "demo", "wait", "--for=condition=Ready", "pod", "client", "--timeout=60s")
	checkPage(t)
	wherry(t, "-n", "demo", "scale", "deployment", "hello", "--replicas=5")
	wherry(t, "-n", "demo", "rollout", "status", "deployment", "hello", "--timeout=60s")
	if got := wherry(t, "-n", "demo", "get", "deployment", "hello", "-o", "jsonpath={.status.readyReplicas}"); got != "5" {
		t.Errorf("%s ready replicas, want 5", got)
	}
	checkPage(t)
	if got := wherry(t, "-n", "demo", "logs", "deployment/hello"); !strings.Contains(got, "serving on") {
		t.Errorf("log of hello: %q", got)
	}
}

// checkPage fetches the page from the client pod until pods on both nodes have
// answered.
func checkPage(t *testing.T) {
	t.Helper()
	where := map[string]string{}
	for line := range strings.Lines(wherry(t, "-n", "demo", "get", "pods", "-l", "app=hello", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{"\n"}{end}`)) {
		pod, node, _ := strings.Cut(strings.TrimSpace(line), " ")
		where[pod] = node
	}
	answered := map[string]bool{}
	for range 40 {
		page := wherry(t, "-n", "demo", "exec", "client", "--", "/hello", "fetch", "http://hello.demo.svc.cluster.local/")
		first, rest, _ := strings.Cut(page, "\n")
		node := where[strings.TrimPrefix(first, "hello from ")]
		if node == "" || strings.TrimSpace(rest) != "This page is served by Wherry." {
			t.Fatalf("page %q, of none of %v", page, where)
		}
		if answered[node] = true; len(answered) == 2 {
			return
		}
	}
	t.Errorf("only %v answered, of %v", answered, where)
}
