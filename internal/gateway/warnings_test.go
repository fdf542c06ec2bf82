package gateway_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
)

// TestWarningsReachClients: what a kind warns of comes with the answer of every
// write, over both fronts, also of one that changes nothing and of a dry run.
func TestWarningsReachClients(t *testing.T) {
	const (
		deployments = "apps/v1/deployments/demo"
		grace       = "spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
		label       = `spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead`
		endpoints   = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
		quota       = "ResourceQuota is kept, but not enforced yet: nothing is counted and nothing is refused"
		quotas      = "/v1/resourcequotas/demo"
	)
	deployment := func(name, spec string) string {
		return `{apiVersion: apps/v1, kind: Deployment, metadata: {name: ` + name + `}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: b}], ` + spec + `}}}}`
	}
	const slices1 = `{apiVersion: v1, kind: Endpoints, metadata: {name: e}, subsets: [{addresses: [{ip: 01.2.3.4}], ports: [{port: 1}]}]}`
	old := `subsets[0].addresses[0].ip: non-standard IP address "01.2.3.4" will be considered invalid in a future Kubernetes release: use "1.2.3.4"`
	me := api.WriteOptions{FieldManager: "me"}
	steps := []struct {
		step
		want []string
	}{
		{step{verb: "create", at: deployments, object: deployment("a", "nodeSelector: {beta.kubernetes.io/os: linux}"), write: api.WriteOptions{DryRun: true}}, []string{label}},
		{step{verb: "create", at: deployments, object: deployment("a", "nodeSelector: {beta.kubernetes.io/os: linux}")}, []string{label}},
		{step{verb: "get", at: deployments + "/a"}, nil},
		{step{verb: "update", at: deployments + "/a", object: deployment("a", "nodeSelector: {beta.kubernetes.io/os: linux}, terminationGracePeriodSeconds: -1")}, []string{label, grace}},
		{step{verb: "update", at: deployments + "/a", object: deployment("a", "nodeSelector: {beta.kubernetes.io/os: linux}, terminationGracePeriodSeconds: -1")}, nil},
		{step{verb: "patch", at: deployments + "/a", patch: types.MergePatchType, body: `{"spec":{"nothing":1,"template":{"spec":{"nodeSelector":null}}}}`}, []string{`unknown field "spec.nothing"`, grace}},
		{step{verb: "patch", at: deployments + "/a", patch: types.StrategicMergePatchType, body: `{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":-2}}}}`, write: api.WriteOptions{DryRun: true}}, []string{grace}},
		{step{verb: "patch", at: deployments + "/a/scale", patch: types.MergePatchType, body: `{"spec":{"replicas":3}}`}, []string{grace}}, // it is a change of the whole object
		{step{verb: "patch", at: deployments + "/b", patch: types.ApplyPatchType, body: deployment("b", "terminationGracePeriodSeconds: -1"), write: me}, []string{grace}},
		{step{verb: "patch", at: deployments + "/b", patch: types.ApplyPatchType, body: deployment("b", "terminationGracePeriodSeconds: -3"), write: me}, []string{grace}},
		{step{verb: "patch", at: deployments + "/b", patch: types.ApplyPatchType, body: deployment("b", ""), write: me}, nil},
		{step{verb: "create", at: quotas, object: `{apiVersion: v1, kind: ResourceQuota, metadata: {name: q}, spec: {hard: {pods: 1}}}`}, []string{quota}},
		{step{verb: "create", at: quotas, object: `{apiVersion: v1, kind: ResourceQuota, metadata: {name: q}, spec: {hard: {pods: -1}}}`, reason: metav1.StatusReasonInvalid}, nil},
		{step{verb: "update", at: "/v1/endpoints/demo/e", object: slices1}, []string{endpoints, old}},
		{step{verb: "get", at: "/v1/endpoints/demo/e"}, []string{endpoints}},
		{step{verb: "list", at: "/v1/endpoints/demo"}, []string{endpoints}},
		{step{verb: "delete", at: "/v1/endpoints/demo/e"}, []string{endpoints}},
		{step{verb: "list", at: "/v1/componentstatuses/"}, []string{"v1 ComponentStatus is deprecated in v1.19+"}},
		{step{verb: "get", at: "/v1/endpoints/demo/e", reason: metav1.StatusReasonNotFound}, nil},
		{step{verb: "create", at: "node.k8s.io/v1/runtimeclasses/", object: `{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: safe}, handler: gvisor}`},
			[]string{`handler: nodes have no handler but "runc": pods of this class are refused`}},
		{step{verb: "create", at: "/v1/pods/demo", object: `{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {imagePullSecrets: [{}], containers: [{name: a, image: b}]}}`},
			[]string{`spec.imagePullSecrets[0].name: invalid empty name ""`}},
	}
	for name, f := range map[string]front{"HTTP": &overHTTP{c: start(t, options{})}, "gRPC": dialGRPC(t, start(t, options{}))} {
		for i, s := range steps {
			o := f.do(t, s.step)
			if o.status.Reason != s.reason || !slices.Equal(o.warnings, s.want) {
				t.Errorf("%s %d: %s %s: %s, warnings %q, want %q", name, i, s.verb, s.at, o.status.Message, o.warnings, s.want)
			}
		}
	}
}

// TestWatchWarns: kubectl tells of a deprecated kind also when it only watches.
func TestWatchWarns(t *testing.T) {
	c := start(t, options{})
	h := &overHTTP{c: c}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+"/api/v1/namespaces/demo/endpoints?watch=true&timeoutSeconds=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", "kubernetes-admin/1")
	resp, err := h.client(t, "").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Values("Warning"); len(got) != 1 || !strings.Contains(got[0], "v1 Endpoints is deprecated") {
		t.Errorf("status %d, warnings %q", resp.StatusCode, got)
	}
}

// TestOldBindingAnswersStatus: a Binding that is posted to a namespace is
// answered as one that is posted to a pod.
func TestOldBindingAnswersStatus(t *testing.T) {
	const pod = `{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a, image: b}]}}`
	for name, f := range map[string]front{"HTTP": &overHTTP{c: start(t, options{})}, "gRPC": dialGRPC(t, start(t, options{}))} {
		f.do(t, step{verb: "create", at: "/v1/pods/demo", object: pod})
		o := f.do(t, step{verb: "create", at: "/v1/bindings/demo", object: `{apiVersion: v1, kind: Binding, metadata: {name: p}, target: {kind: Node, name: n1}}`})
		const want = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}`
		if o.status.Message != "" || strings.TrimSpace(o.object) != want {
			t.Errorf("%s answers %v %s, want %s", name, o.status, o.object, want)
		}
	}
}
