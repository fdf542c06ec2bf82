package discovery_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-project/wherry/internal/discovery"
	"github.com/wherry-project/wherry/internal/kinds"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestResources: all that is served, as kubectl api-resources shows it and in
// the order of /apis, with subresources. Both forms of discovery say the same.
func TestResources(t *testing.T) {
	d := discovery.New(kinds.Table())
	var b bytes.Buffer
	versions := []string{"v1"}
	for _, g := range d.Groups().Groups {
		for _, v := range g.Versions {
			versions = append(versions, v.GroupVersion)
		}
	}
	short := map[string]string{}
	for _, gv := range versions {
		group, version, ok := strings.Cut(gv, "/")
		if !ok {
			group, version = "", gv
		}
		list, ok := d.Resources(group, version)
		if !ok {
			t.Fatalf("%s has no resources", gv)
		}
		fmt.Fprintf(&b, "%s\n", gv)
		for _, r := range list.APIResources {
			scope := "cluster"
			if r.Namespaced {
				scope = "namespaced"
			}
			kind := r.Kind
			if r.Version != "" {
				kind = r.Group + "/" + r.Version + "/" + r.Kind
			}
			fmt.Fprintf(&b, "  %s %s %s [%s]", r.Name, kind, scope, strings.Join(r.Verbs, " "))
			if len(r.ShortNames)+len(r.Categories) > 0 {
				fmt.Fprintf(&b, " short=%s in=%s", strings.Join(r.ShortNames, ","), strings.Join(r.Categories, ","))
			}
			b.WriteByte('\n')
			for _, s := range r.ShortNames {
				if was, ok := short[s]; ok && was != r.Name {
					t.Errorf("%s is short for %s and %s", s, was, r.Name)
				}
				short[s] = r.Name
			}
		}
	}
	file := filepath.Join("testdata", "resources.golden")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("resources are not what they were; got\n%s", b.String())
	}
	var again bytes.Buffer
	for _, core := range []bool{true, false} {
		for _, g := range d.Aggregated(core).Items {
			for _, v := range g.Versions {
				again.WriteString(strings.TrimPrefix(g.Name+"/"+v.Version, "/") + "\n")
				for _, r := range v.Resources {
					again.WriteString(r.Resource + "\n")
					for _, s := range r.Subresources {
						again.WriteString(r.Resource + "/" + s.Subresource + "\n")
					}
				}
			}
		}
	}
	var plain strings.Builder
	for line := range strings.Lines(b.String()) {
		plain.WriteString(strings.Fields(line)[0] + "\n")
	}
	if again.String() != plain.String() {
		t.Errorf("the aggregated form says something else:\n%s", again.String())
	}
}
