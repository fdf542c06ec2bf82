package coordination_test

import (
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds/coordination"
)

func TestLease(t *testing.T) {
	k := coordination.Lease()
	if !k.NeedsRevision {
		t.Error("a lease may be written blindly")
	}
	for _, tt := range []struct{ name, text, want string }{
		{"good", `{metadata: {name: a}, spec: {holderIdentity: me, leaseDurationSeconds: 15, leaseTransitions: 0, renewTime: "2026-01-02T03:04:05.000006Z"}}`, ""},
		{"least", `{metadata: {name: a}}`, ""},
		{"no name", `{}`, "metadata.name: Required value"},
		{"name", `metadata: {name: A}`, `metadata.name: Invalid value: "A"`},
		{"slashes", `metadata: {name: a/b}`, `metadata.name: Invalid value: "a/b"`},
		{"label", `metadata: {name: a, labels: {a: "-"}}`, `metadata.labels: Invalid value: "-"`},
		{"duration", `{metadata: {name: a}, spec: {leaseDurationSeconds: 0}}`, "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"},
		{"negative duration", `{metadata: {name: a}, spec: {leaseDurationSeconds: -1}}`, "spec.leaseDurationSeconds: Invalid value: -1: must be greater than 0"},
		{"transitions", `{metadata: {name: a}, spec: {leaseTransitions: -1}}`, "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"},
		{"strategy", `{metadata: {name: a}, spec: {strategy: Newest}}`, `spec.strategy: Unsupported value: "Newest": supported values: "OldestEmulationVersion"`},
		{"holder without strategy", `{metadata: {name: a}, spec: {preferredHolder: you}}`, "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"},
		{"finalizer", `metadata: {name: a, finalizers: ["a/b c"]}`, `metadata.finalizers: Invalid value: "a/b c"`},
	} {
		l := &coordinationv1.Lease{}
		if err := yaml.UnmarshalStrict([]byte(tt.text), l); err != nil {
			t.Fatal(err)
		}
		l.Namespace = "default"
		errs := append(api.ValidateMeta(k, l), k.Validate(l)...)
		switch {
		case tt.want == "" && len(errs) > 0:
			t.Errorf("%s: %v", tt.name, errs)
		case tt.want != "" && (len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), tt.want)):
			t.Errorf("%s: got %v, want %s", tt.name, errs, tt.want)
		}
	}
}
