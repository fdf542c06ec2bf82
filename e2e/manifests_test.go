package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// restless objects are never called unchanged by kubectl's own comparison, with
// no server: it sends what is written otherwise than it is stored (quantities,
// stringData), lists without a key as a whole when the server fills in a part
// of them, and a budget's selector always. That nothing changes shows in the
// generation, and in the difference that is empty.
var restless = []string{
	"deployment.apps/redis-follower", "secret/db", "statefulset.apps/postgres", "deployment.apps/prometheus", "poddisruptionbudget.policy/",
}

// TestManifests applies manifests like those that people write, by both ways of
// applying, and again: what is so already stays, without a difference.
func TestManifests(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, way := range []string{"client", "server"} {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml")+"-"+way, func(t *testing.T) {
				t.Parallel()
				ns := namespace(t)
				k := &typist{t: t, ns: ns, dir: "/run/" + ns, program: "wherry", control: controls[len(way)%len(controls)]}
				// What is not in the namespace has a name of its own.
				k.has("all.yaml", strings.ReplaceAll(string(text), "e2e-", ns+"-"))
				k.manifests(way == "server")
			})
		}
	}
}

// manifests applies all.yaml, twice, and deletes it.
func (k *typist) manifests(server bool) {
	k.t.Helper()
	how, first, again := "", "created", "unchanged"
	if server {
		how, first, again = " --server-side", "serverside-applied", "serverside-applied"
	}
	each := func(out, want string) {
		k.t.Helper()
		for line := range strings.Lines(out) {
			quiet := want != "unchanged" || !strings.HasSuffix(line, " configured\n") ||
				!slices.ContainsFunc(restless, func(name string) bool { return strings.HasPrefix(line, name) })
			if quiet && !strings.HasPrefix(line, "Warning: ") && !strings.HasSuffix(strings.TrimSpace(line), want) {
				k.t.Errorf("want %s: %s", want, line)
			}
		}
		if out == "" {
			k.t.Error("nothing is printed")
		}
	}
	each(k.does("$K apply -f all.yaml --dry-run=server"+how), first+" (server dry run)")
	each(k.does("$K apply -f all.yaml"+how), first)
	k.is("$K diff -f all.yaml"+how, "")
	each(k.does("$K apply -f all.yaml"+how), again)
	k.is("$K diff -f all.yaml"+how, "")
	if !server {
		// What was applied by the client may be applied by the server.
		k.does("$K apply --server-side --force-conflicts -f all.yaml")
		k.is("$K diff --server-side --force-conflicts -f all.yaml", "")
	}
	k.is("$K get -f all.yaml -o jsonpath='{.items[*].metadata.generation}' | tr -d ' 1'", "")
	each(k.does("$K delete -f all.yaml --timeout=120s | sed 's/ from .* namespace$//'"), "deleted")
	k.is("$K get -f all.yaml --ignore-not-found -o name", "")
}
