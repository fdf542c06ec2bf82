package gateway_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
)

// walkSteps asks every kind and subresource that is served for what is not
// there, with every verb: those that the kind has and those that it has not.
func walkSteps(kinds *api.Kinds) (out []step) {
	streams := map[string]bool{"log": true, "exec": true, "attach": true, "portforward": true, "proxy": true}
	for _, k := range kinds.All() {
		ns := ""
		if k.Namespaced {
			ns = "demo"
		}
		all := k.Group + "/" + k.Version + "/" + k.Resource + "/" + ns
		one := all + "/none"
		merge := func(at string) step {
			return step{verb: "patch", at: at, patch: types.MergePatchType, body: `{"metadata":{"labels":{"a":"b"}}}`}
		}
		steps := []step{
			{verb: "get", at: one}, {verb: "delete", at: one}, merge(one),
			{verb: "list", at: all, list: metav1.ListOptions{LabelSelector: "nobody=has"}},
			{verb: "list", at: all, list: metav1.ListOptions{FieldSelector: "spec.nothing=x"}},
			{verb: "list", at: all, list: metav1.ListOptions{ResourceVersionMatch: "Exact"}},
			{verb: "deletecollection", at: all, list: metav1.ListOptions{LabelSelector: "nobody=has"}},
			{verb: "get", at: one, user: "jane"}, {verb: "list", at: all, user: "jane"}, {verb: "delete", at: one, user: "jane"},
			{verb: "patch", at: one, patch: types.ApplyPatchType, body: "a: 1"}, // of no manager
		}
		for _, sub := range k.Subresources {
			if !streams[sub.Name] {
				steps = append(steps, step{verb: "get", at: one + "/" + sub.Name}, merge(one+"/"+sub.Name), step{verb: "get", at: one + "/" + sub.Name, user: "jane"})
			}
		}
		out = append(out, steps...)
	}
	return out
}

// TestFrontsAgreeOfEveryKind compares the answers of both fronts for each kind.
func TestFrontsAgreeOfEveryKind(t *testing.T) {
	a, b := start(t, options{}), start(t, options{})
	http, rpc := &overHTTP{c: a}, dialGRPC(t, b)
	differ := 0
	for _, s := range walkSteps(a.api.Kinds()) {
		x, y := http.do(t, s), rpc.do(t, s)
		x.list.ResourceVersion, y.list.ResourceVersion = "", "" // of two clusters
		if hx, gx := x.String(), y.String(); hx != gx {
			if differ++; differ < 8 {
				t.Errorf("%s of %s as %q:\nHTTP answers\n%s\ngRPC answers\n%s", s.verb, s.at, s.user, indented(hx), indented(gx))
			}
		}
	}
	if differ > 0 {
		t.Errorf("%d answers differ", differ)
	}
}

func indented(text string) string { return "    " + strings.ReplaceAll(text, "\n", "\n    ") }
