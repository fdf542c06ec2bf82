package core_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds/core"
)

func TestNamespace(t *testing.T) {
	k := core.Namespace()
	n := made(t, k, `metadata: {name: a}`).(*corev1.Namespace)
	if n.Labels[corev1.LabelMetadataName] != "a" || n.Status.Phase != "Active" || len(n.Spec.Finalizers) != 1 || n.Spec.Finalizers[0] != "kubernetes" {
		t.Errorf("a new namespace is %+v", n)
	}
	match(t, check(k, n))
	invalid{
		{"no name", `metadata: {}`, []string{"metadata.name: Required value: name or generateName is required"}},
		{"dots", `metadata: {name: a.b}`, []string{`metadata.name: Invalid value: "a.b": must not contain dots`}},
		{"capitals", `metadata: {name: A}`, []string{`metadata.name: Invalid value: "A": a lowercase RFC 1123 label`}},
		{"long", `metadata: {name: a123456789012345678901234567890123456789012345678901234567890123}`, []string{`metadata.name: Invalid value: "a123456789012345678901234567890123456789012345678901234567890123": must be no more than 63`, "metadata.labels: Invalid value"}},
		{"finalizer", `{metadata: {name: a}, spec: {finalizers: [mine]}}`, []string{`spec.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified`}},
		{"finalizer text", `{metadata: {name: a}, spec: {finalizers: ["a/b c"]}}`, []string{`spec.finalizers[0]: Invalid value: "a/b c"`}},
		{"label key", `metadata: {name: a, labels: {"-a": b}}`, []string{`metadata.labels: Invalid value: "-a"`}},
		{"label value", `metadata: {name: a, labels: {a: "b c"}}`, []string{`metadata.labels: Invalid value: "b c"`}},
		{"annotation key", `metadata: {name: a, annotations: {"a b": c}}`, []string{`metadata.annotations: Invalid value: "a b"`}},
		{"owner", `metadata: {name: a, ownerReferences: [{apiVersion: v1, kind: Pod, name: p}]}`, []string{`metadata.ownerReferences[0].uid: Required value: must not be empty`}},
		{"two controllers", `metadata: {name: a, ownerReferences: [{apiVersion: v1, kind: Pod, name: p, uid: "1", controller: true}, {apiVersion: v1, kind: Pod, name: q, uid: "2", controller: true}]}`, []string{"metadata.ownerReferences: Invalid value"}},
		{"own finalizer", `metadata: {name: a, finalizers: ["x y"]}`, []string{`metadata.finalizers: Invalid value: "x y"`, `metadata.finalizers[0]: Invalid value: "x y": name is neither`}},
	}.run(t, k)

	status := n.DeepCopy()
	status.Status.Phase = "Terminating"
	match(t, k.ValidateStatus(status, n), "status.phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty")
	update := n.DeepCopy()
	update.Spec.Finalizers, update.Status.Phase = nil, "Terminating"
	k.OnUpdate(update, n)
	if len(update.Spec.Finalizers) != 1 || update.Status.Phase != "Active" {
		t.Errorf("an update takes %+v", update)
	}
}

func TestMetaUpdate(t *testing.T) {
	old := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n", UID: "1", Generation: 2, Finalizers: []string{"a/b"}}}
	now := metav1.NewTime(time.Unix(1, 0))
	obj := old.DeepCopy()
	match(t, api.ValidateMetaUpdate(obj, old))
	obj.Name, obj.UID, obj.Generation, obj.CreationTimestamp = "b", "2", 1, now
	match(t, api.ValidateMetaUpdate(obj, old),
		"metadata.generation: Invalid value: 1: must not be decremented",
		`metadata.name: Invalid value: "b": field is immutable`,
		`metadata.uid: Invalid value: "2": field is immutable`,
		"metadata.creationTimestamp: Invalid value")
	obj = old.DeepCopy()
	old.DeletionTimestamp = &now
	obj.Finalizers = append(obj.Finalizers, "c/d")
	match(t, api.ValidateMetaUpdate(obj, old),
		"metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted",
		"metadata.deletionTimestamp: Invalid value: null: field is immutable")
}

func TestConfigMap(t *testing.T) {
	k := core.ConfigMap()
	match(t, check(k, made(t, k, `{metadata: {name: a}, data: {a.b_c-1: x}, binaryData: {y: AAE=}}`)))
	invalid{
		{"no name", `{}`, []string{"metadata.name: Required value"}},
		{"name", `metadata: {name: a_b}`, []string{`metadata.name: Invalid value: "a_b": a lowercase RFC 1123 subdomain`}},
		{"key", `{metadata: {name: a}, data: {"a/b": x}}`, []string{`data[a/b]: Invalid value: "a/b": a valid config key must consist of`}},
		{"empty key", `{metadata: {name: a}, data: {"": x}}`, []string{`data[]: Invalid value: ""`}},
		{"dot key", `{metadata: {name: a}, data: {"..": x}}`, []string{`data[..]: Invalid value: ".."`}},
		{"binary key", `{metadata: {name: a}, binaryData: {"a b": AAE=}}`, []string{`binaryData[a b]: Invalid value: "a b"`}},
		{"key twice", `{metadata: {name: a}, data: {b: x}, binaryData: {b: AAE=}}`, []string{`data[b]: Invalid value: "b": duplicate of key present in binaryData`, `binaryData[b]: Invalid value: "b": duplicate of key present in data`}},
		{"namespace", `metadata: {name: a, namespace: B}`, []string{`metadata.namespace: Invalid value: "B"`}},
		{"generation", `metadata: {name: a, generation: -1}`, []string{"metadata.generation: Invalid value: -1: must be greater than or equal to 0"}},
		{"generateName", `metadata: {name: a, generateName: _}`, []string{`metadata.generateName: Invalid value: "_"`}},
	}.run(t, k)
	big := made(t, k, `{metadata: {name: a}}`).(*corev1.ConfigMap)
	big.BinaryData = map[string][]byte{"a": make([]byte, 1<<20+1)}
	match(t, check(k, big), "[]: Too long: may not be more than 1048576 bytes")

	fixed := `{metadata: {name: a}, data: {a: b}, immutable: true}`
	updates{
		{"same", fixed, fixed, nil},
		{"data", fixed, `{metadata: {name: a}, data: {a: c}, immutable: true}`, []string{"data: Forbidden: field is immutable when `immutable` is set"}},
		{"mutable again", fixed, `{metadata: {name: a}, data: {a: b}}`, []string{"immutable: Forbidden: field is immutable when `immutable` is set"}},
		{"binary", fixed, `{metadata: {name: a}, data: {a: b}, binaryData: {b: AAE=}, immutable: true}`, []string{"binaryData: Forbidden"}},
		{"not fixed", `{metadata: {name: a}, data: {a: b}}`, fixed, nil},
	}.run(t, k)
}

func TestSecret(t *testing.T) {
	k := core.Secret()
	s := made(t, k, `{metadata: {name: a}, data: {a: eA==, b: eA==}, stringData: {b: "y", c: z}}`).(*corev1.Secret)
	if s.Type != "Opaque" || string(s.Data["a"])+string(s.Data["b"])+string(s.Data["c"]) != "xyz" || s.StringData != nil {
		t.Errorf("a new secret is %+v", s)
	}
	match(t, check(k, s))
	invalid{
		{"key", `{metadata: {name: a}, data: {"a/b": eA==}}`, []string{`data[a/b]: Invalid value: "a/b"`}},
		{"string key", `{metadata: {name: a}, stringData: {"a/b": x}}`, []string{`data[a/b]: Invalid value: "a/b"`}},
		{"tls", `{metadata: {name: a}, type: kubernetes.io/tls}`, []string{"data[tls.crt]: Required value", "data[tls.key]: Required value"}},
		{"tls without key", `{metadata: {name: a}, type: kubernetes.io/tls, stringData: {tls.crt: x}}`, []string{"data[tls.key]: Required value"}},
		{"docker", `{metadata: {name: a}, type: kubernetes.io/dockerconfigjson}`, []string{"data[.dockerconfigjson]: Required value"}},
		{"docker json", `{metadata: {name: a}, type: kubernetes.io/dockerconfigjson, stringData: {.dockerconfigjson: x}}`, []string{`data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": invalid character`}},
		{"old docker", `{metadata: {name: a}, type: kubernetes.io/dockercfg}`, []string{"data[.dockercfg]: Required value"}},
		{"basic", `{metadata: {name: a}, type: kubernetes.io/basic-auth}`, []string{"data[username]: Required value", "data[password]: Required value"}},
		{"ssh", `{metadata: {name: a}, type: kubernetes.io/ssh-auth, stringData: {ssh-privatekey: ""}}`, []string{"data[ssh-privatekey]: Required value"}},
		{"token", `{metadata: {name: a}, type: kubernetes.io/service-account-token}`, []string{"metadata.annotations[kubernetes.io/service-account.name]: Required value"}},
		{"name", `metadata: {name: "a..b"}`, []string{`metadata.name: Invalid value: "a..b"`}},
	}.run(t, k)
	updates{
		{"type", `{metadata: {name: a}, type: x/y}`, `{metadata: {name: a}, type: z}`, []string{`type: Invalid value: "z": field is immutable`}},
		{"type left out", `{metadata: {name: a}, type: x/y}`, `{metadata: {name: a}}`, nil},
		{"fixed", `{metadata: {name: a}, immutable: true}`, `{metadata: {name: a}, immutable: true, stringData: {a: b}}`, []string{"data: Forbidden: field is immutable when `immutable` is set"}},
	}.run(t, k)
}

func TestServiceAccount(t *testing.T) {
	k := core.ServiceAccount()
	match(t, check(k, made(t, k, `metadata: {name: default}`)))
	match(t, check(k, made(t, k, `metadata: {name: "a b"}`)), `metadata.name: Invalid value: "a b"`)
}

func TestEvent(t *testing.T) {
	k := core.Event()
	match(t, check(k, made(t, k, `{metadata: {name: a, namespace: n}, involvedObject: {kind: Pod, namespace: n, name: p}, reason: Pulled, type: Normal}`)))
	match(t, check(k, made(t, k, `{metadata: {name: a, namespace: default}, involvedObject: {kind: Node, name: p}}`)))
	// fresh is an event in the newer form.
	fresh := func(more string) string {
		return `{metadata: {name: a, namespace: n}, involvedObject: {namespace: n}, eventTime: "2026-01-02T03:04:05.000000Z", ` + more + `}`
	}
	const rest = `reportingComponent: c, reportingInstance: i, action: act, reason: why, type: Normal`
	match(t, check(k, made(t, k, fresh(rest))))
	invalid{
		{"namespace", `{metadata: {name: a, namespace: n}, involvedObject: {namespace: m}}`, []string{`involvedObject.namespace: Invalid value: "m": does not match event.namespace`}},
		{"of a node", `{metadata: {name: a, namespace: n}, involvedObject: {kind: Node}}`, []string{`involvedObject.namespace: Invalid value: "": does not match event.namespace`}},
		{"no reporter", fresh(`reportingInstance: i, action: act, reason: why, type: Normal`), []string{"reportingController: Required value", `reportingController: Invalid value: ""`, `reportingController: Invalid value: ""`}},
		{"reporter", fresh(`reportingComponent: a b, reportingInstance: i, action: act, reason: why, type: Normal`), []string{`reportingController: Invalid value: "a b"`}},
		{"no instance", fresh(`reportingComponent: c, action: act, reason: why, type: Normal`), []string{"reportingInstance: Required value"}},
		{"no action", fresh(`reportingComponent: c, reportingInstance: i, reason: why, type: Normal`), []string{"action: Required value"}},
		{"no reason", fresh(`reportingComponent: c, reportingInstance: i, action: act, type: Normal`), []string{"reason: Required value"}},
		{"type", fresh(`reportingComponent: c, reportingInstance: i, action: act, reason: why, type: Fun`), []string{`type: Invalid value: "Fun": has invalid value`}},
		{"series", fresh(rest + `, series: {count: 1}`), []string{`series.count: Invalid value: "": should be at least 2`, "series.lastObservedTime: Required value"}},
		{"name", `{metadata: {name: A, namespace: default}, involvedObject: {}}`, []string{`metadata.name: Invalid value: "A"`}},
	}.run(t, k)
}
