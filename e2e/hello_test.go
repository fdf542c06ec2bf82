package e2e

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/testbed"
)

// TestHello is the main job, step by step as in `make demo`: examples/hello.yaml,
// its page fetched by name from a pod on another node, the leader killed, a
// scale through a survivor, the page again.
func TestHello(t *testing.T) {
	breaks(t)
	manifests, err := os.ReadFile("../examples/hello.yaml")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, "demo", string(manifests))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
		defer cancel()
		if out, err := on(ctx, testbed.Client, "", "wherry", "delete", "namespace", "demo", "--timeout=120s"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	wherry(t, "-n", "demo", "rollout", "status", "deployment", "hello", "--timeout=120s")
	wherry(t, "-n", "demo", "wait", "--for=condition=Ready", "pod", "client", "--timeout=120s")
	ip := wherry(t, "-n", "demo", "get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
	if got := strings.Fields(says(t, ip, "-n", "demo", "exec", "client", "--", "/hello", "lookup", "hello.demo.svc.cluster.local")); len(got) != 1 {
		t.Errorf("the name is %v", got)
	}
	checkPage(t)
	was := leader(t)
	if err := suite.Kill(t.Context(), was, ""); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	survivor := controls[0]
	if survivor == was {
		survivor = controls[1]
	}
	says(t, "scaled", "--server", "https://"+survivor+":6443", "-n", "demo", "scale", "deployment", "hello", "--replicas=5")
	t.Logf("scaled through %s %v after %s was killed", survivor, time.Since(begun).Round(time.Millisecond), was)
	wherry(t, "-n", "demo", "rollout", "status", "deployment", "hello", "--timeout=120s")
	if got := wherry(t, "-n", "demo", "get", "deployment", "hello", "-o", "jsonpath={.status.readyReplicas}"); got != "5" {
		t.Errorf("%s ready replicas, want 5", got)
	}
	checkPage(t)
	if now := leader(t); now == was {
		t.Errorf("%s was killed and leads", now)
	}
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
		page := wherry(t, "-n", "demo", "exec", "client", "--", "/hello", "fetch", "http://hello.demo.svc.cluster.local/", "30s")
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
