package discovery_test

import (
	"slices"
	"testing"

	"github.com/wherry-project/wherry/internal/discovery"
	"github.com/wherry-project/wherry/internal/kinds"
)

func TestDocuments(t *testing.T) {
	d := discovery.New(kinds.Table())

	if got := d.Versions().Versions; !slices.Equal(got, []string{"v1"}) {
		t.Errorf("core versions %q", got)
	}
	var names []string
	for _, g := range d.Groups().Groups {
		names = append(names, g.Name)
		want := g.Name + "/v1"
		if other, ok := map[string]string{"autoscaling": "/v2", "metrics.k8s.io": "/v1beta1"}[g.Name]; ok {
			want = g.Name + other
		}
		if g.PreferredVersion.GroupVersion != want {
			t.Errorf("group %s prefers %s", g.Name, g.PreferredVersion.GroupVersion)
		}
	}
	if !slices.Contains(names, "apps") || slices.Contains(names, "") {
		t.Errorf("groups %q", names)
	}
	if _, ok := d.Group("nothing"); ok {
		t.Error("a group that is not there was found")
	}
	if g, ok := d.Group("apps"); !ok || g.Kind != "APIGroup" {
		t.Errorf("group apps: %+v", g)
	}

	list, ok := d.Resources("apps", "v1")
	if !ok || list.GroupVersion != "apps/v1" {
		t.Fatalf("apps/v1: %+v", list)
	}
	found := map[string]string{}
	for _, r := range list.APIResources {
		found[r.Name] = r.Group + "/" + r.Version + "/" + r.Kind
	}
	if found["deployments"] != "//Deployment" || found["deployments/scale"] != "autoscaling/v1/Scale" || found["deployments/status"] != "//Deployment" {
		t.Errorf("resources %v", found)
	}
	if _, ok := d.Resources("apps", "v2"); ok {
		t.Error("a version that is not there was found")
	}
}

func TestAggregated(t *testing.T) {
	d := discovery.New(kinds.Table())
	core := d.Aggregated(true)
	if len(core.Items) != 1 || core.Items[0].Name != "" {
		t.Fatalf("core is %d groups", len(core.Items))
	}
	for _, r := range core.Items[0].Versions[0].Resources {
		if r.Resource != "pods" {
			continue
		}
		if r.Scope != "Namespaced" || !slices.Equal(r.ShortNames, []string{"po"}) || r.ResponseKind.Kind != "Pod" {
			t.Errorf("pods: %+v", r)
		}
		for _, s := range r.Subresources {
			if s.Subresource == "exec" && (s.ResponseKind.Kind != "PodExecOptions" || s.ResponseKind.Version != "v1") {
				t.Errorf("pods/exec: %+v", s.ResponseKind)
			}
		}
	}
	for _, g := range d.Aggregated(false).Items {
		if g.Name == "" {
			t.Error("the core group is in /apis")
		}
	}
}
