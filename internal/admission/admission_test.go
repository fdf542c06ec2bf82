package admission_test

import (
	"errors"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/admission"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/kinds/core"
	"github.com/wherry-project/wherry/internal/kinds/node"
	"github.com/wherry-project/wherry/internal/kinds/scheduling"
	"github.com/wherry-project/wherry/internal/store"
)

func kinds() *api.Kinds {
	return api.NewKinds(core.Pod(), core.Node(), core.Namespace(), core.ConfigMap(), scheduling.PriorityClass(), node.RuntimeClass())
}

// snapshot has three namespaces: live, dying (deletionTimestamp) and ending
// (phase alone).
func snapshot(t *testing.T, table *api.Kinds) *store.Snapshot {
	t.Helper()
	now := metav1.Now()
	k, _ := table.ByKey("namespaces")
	return holding(t, table, []*api.Kind{k, k, k},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "live"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "dying", DeletionTimestamp: &now}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ending"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}},
	)
}

// holding is a snapshot of objects of these kinds.
func holding(t *testing.T, table *api.Kinds, kinds []*api.Kind, objects ...api.Object) *store.Snapshot {
	t.Helper()
	s := store.NewLocal(api.NewCodec(table, 0))
	for i, obj := range objects {
		r, err := kinds[i].Record(obj)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), store.Command{Changes: []store.Change{{Op: store.Put, Key: r.Key, Record: r}}}); err != nil {
			t.Fatal(err)
		}
	}
	snap, err := s.Snapshot(t.Context(), store.At{})
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

// read makes an object of a manifest.
func read(t *testing.T, k *api.Kind, text string) api.Object {
	t.Helper()
	if text == "" {
		return nil
	}
	obj := k.New()
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

func TestPlugins(t *testing.T) {
	table := kinds()
	snap := snapshot(t, table)
	const (
		pod       = `metadata: {name: p, namespace: live}`
		bothTaint = `{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 300}, {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 300}`
		ready     = `, spec: {preemptionPolicy: PreemptLowerPriority, priority: 0, tolerations: [` + bothTaint + `]}}`
	)
	tests := []struct {
		name     string
		resource string
		op       string
		sub      string
		node     string
		object   string
		old      string
		want     string // the object afterwards; empty is unchanged
		kind     error
		text     string
	}{
		{name: "create in a namespace", resource: "configmaps", op: admission.Create, object: `metadata: {name: a, namespace: live}`},
		{name: "create in no namespace", resource: "configmaps", op: admission.Create, object: `metadata: {name: a, namespace: gone}`,
			kind: apierr.ErrNotFound, text: `namespaces "gone" not found`},
		{name: "create in a dying namespace", resource: "configmaps", op: admission.Create, object: `metadata: {name: a, namespace: dying}`,
			kind: apierr.ErrForbidden, text: `configmaps "a" is forbidden: unable to create new content in namespace dying because it is being terminated`},
		{name: "create in an ending namespace", resource: "configmaps", op: admission.Create, object: `metadata: {name: a, namespace: ending}`,
			kind: apierr.ErrForbidden, text: `configmaps "a" is forbidden: unable to create new content in namespace ending because it is being terminated`},
		{name: "update in a dying namespace", resource: "configmaps", op: admission.Update, object: `metadata: {name: a, namespace: dying}`, old: `metadata: {name: a, namespace: dying}`},
		{name: "update in no namespace", resource: "configmaps", op: admission.Update, object: `metadata: {name: a, namespace: gone}`, old: `metadata: {name: a, namespace: gone}`},
		{name: "delete in a dying namespace", resource: "configmaps", op: admission.Delete, old: `metadata: {name: a, namespace: dying}`},
		{name: "create a namespace", resource: "namespaces", op: admission.Create, object: `metadata: {name: new}`},
		{name: "delete a namespace", resource: "namespaces", op: admission.Delete, old: `metadata: {name: live}`},
		{name: "delete default", resource: "namespaces", op: admission.Delete, old: `metadata: {name: default}`,
			kind: apierr.ErrForbidden, text: `namespaces "default" is forbidden: this namespace may not be deleted`},
		{name: "delete kube-system", resource: "namespaces", op: admission.Delete, old: `metadata: {name: kube-system}`,
			kind: apierr.ErrForbidden, text: `namespaces "kube-system" is forbidden: this namespace may not be deleted`},
		{name: "delete kube-public", resource: "namespaces", op: admission.Delete, old: `metadata: {name: kube-public}`,
			kind: apierr.ErrForbidden, text: `namespaces "kube-public" is forbidden: this namespace may not be deleted`},

		{name: "a plain pod", resource: "pods", op: admission.Create, object: pod, want: `{metadata: {name: p, namespace: live}` + ready},
		{name: "a pod that tolerates one", resource: "pods", op: admission.Create,
			object: `{metadata: {name: p, namespace: live}, spec: {tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]}}`,
			want:   `{metadata: {name: p, namespace: live}, spec: {preemptionPolicy: PreemptLowerPriority, priority: 0, tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}, {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 300}]}}`},
		{name: "a pod that tolerates all", resource: "pods", op: admission.Create,
			object: `{metadata: {name: p, namespace: live}, spec: {tolerations: [{operator: Exists}]}}`,
			want:   `{metadata: {name: p, namespace: live}, spec: {preemptionPolicy: PreemptLowerPriority, priority: 0, tolerations: [{operator: Exists}]}}`},
		{name: "a pod that tolerates another effect", resource: "pods", op: admission.Create,
			object: `{metadata: {name: p, namespace: live}, spec: {tolerations: [{operator: Exists, effect: NoSchedule}]}}`,
			want:   `{metadata: {name: p, namespace: live}, spec: {preemptionPolicy: PreemptLowerPriority, priority: 0, tolerations: [{operator: Exists, effect: NoSchedule}, ` + bothTaint + `]}}`},
		{name: "a status has no tolerations", resource: "pods", op: admission.Update, sub: "status", object: pod, old: pod},
		{name: "a replaced pod tolerates again", resource: "pods", op: admission.Update, object: pod, old: `{metadata: {name: p, namespace: live}` + ready,
			want: `{metadata: {name: p, namespace: live}` + ready},
		{name: "a critical pod", resource: "pods", op: admission.Create,
			object: `{metadata: {name: p, namespace: live}, spec: {priorityClassName: system-node-critical, tolerations: [{operator: Exists}]}}`,
			want:   `{metadata: {name: p, namespace: live}, spec: {priorityClassName: system-node-critical, preemptionPolicy: PreemptLowerPriority, priority: 2000001000, tolerations: [{operator: Exists}]}}`},
		{name: "a cluster's critical pod", resource: "pods", op: admission.Create,
			object: `{metadata: {name: p, namespace: live}, spec: {priorityClassName: system-cluster-critical, tolerations: [{operator: Exists}]}}`,
			want:   `{metadata: {name: p, namespace: live}, spec: {priorityClassName: system-cluster-critical, preemptionPolicy: PreemptLowerPriority, priority: 2000000000, tolerations: [{operator: Exists}]}}`},
		{name: "an unknown class", resource: "pods", op: admission.Create, object: `{metadata: {name: p, namespace: live}, spec: {priorityClassName: high}}`,
			kind: apierr.ErrForbidden, text: `pods "p" is forbidden: no PriorityClass with name high was found`},
		{name: "a number of one's own", resource: "pods", op: admission.Create, object: `{metadata: {name: p, namespace: live}, spec: {priority: 7}}`,
			kind: apierr.ErrForbidden, text: `pods "p" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name`},

		{name: "a new node", resource: "nodes", op: admission.Create, object: `metadata: {name: n1}`,
			want: `{metadata: {name: n1}, spec: {taints: [{key: node.kubernetes.io/not-ready, effect: NoSchedule}]}}`},
		{name: "a new node that is tainted", resource: "nodes", op: admission.Create, object: `{metadata: {name: n1}, spec: {taints: [{key: node.kubernetes.io/not-ready, effect: NoSchedule, value: x}]}}`},
		{name: "a node that is there", resource: "nodes", op: admission.Update, object: `metadata: {name: n1}`, old: `metadata: {name: n1}`},
		{name: "a node registers", resource: "nodes", op: admission.Create, node: "n1",
			object: `metadata: {name: n1, labels: {kubernetes.io/hostname: n1, topology.kubernetes.io/zone: a, node.kubernetes.io/x: y, rack: "7", example.com/a: b}}`,
			want:   `{metadata: {name: n1, labels: {kubernetes.io/hostname: n1, topology.kubernetes.io/zone: a, node.kubernetes.io/x: y, rack: "7", example.com/a: b}}, spec: {taints: [{key: node.kubernetes.io/not-ready, effect: NoSchedule}]}}`},
		{name: "a node registers another", resource: "nodes", op: admission.Create, node: "n2", object: `metadata: {name: n1}`,
			kind: apierr.ErrForbidden, text: `nodes "n1" is forbidden: node "n2" is not allowed to modify node "n1"`},
		{name: "a node calls itself trusted", resource: "nodes", op: admission.Create, node: "n1",
			object: `metadata: {name: n1, labels: {node-restriction.kubernetes.io/secure: "yes", a.node-restriction.kubernetes.io/b: c, node-role.kubernetes.io/control-plane: ""}}`,
			kind:   apierr.ErrForbidden, text: `nodes "n1" is forbidden: node "n1" is not allowed to set the following labels: a.node-restriction.kubernetes.io/b, node-restriction.kubernetes.io/secure, node-role.kubernetes.io/control-plane`},
		{name: "a node drops a label", resource: "nodes", op: admission.Update, node: "n1", object: `metadata: {name: n1}`, old: `metadata: {name: n1, labels: {x.k8s.io/a: b}}`,
			kind: apierr.ErrForbidden, text: `nodes "n1" is forbidden: node "n1" is not allowed to set the following labels: x.k8s.io/a`},
		{name: "a node keeps a label", resource: "nodes", op: admission.Update, node: "n1", object: `metadata: {name: n1, labels: {x.k8s.io/a: b, c: d}}`, old: `metadata: {name: n1, labels: {x.k8s.io/a: b}}`},
		{name: "a node drops a taint", resource: "nodes", op: admission.Update, node: "n1", object: `metadata: {name: n1}`, old: `{metadata: {name: n1}, spec: {taints: [{key: a, effect: NoSchedule}]}}`,
			kind: apierr.ErrForbidden, text: `nodes "n1" is forbidden: node "n1" is not allowed to modify taints`},
		{name: "a node hangs itself on another object", resource: "nodes", op: admission.Update, node: "n1", object: `metadata: {name: n1, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: gone, uid: "1"}]}`, old: `metadata: {name: n1}`,
			kind: apierr.ErrForbidden, text: `nodes "n1" is forbidden: node "n1" is not allowed to modify ownerReferences`},
		{name: "a node's status hangs it on another object", resource: "nodes", op: admission.Update, sub: "status", node: "n1", object: `metadata: {name: n1, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: gone, uid: "1"}]}`, old: `metadata: {name: n1}`,
			kind: apierr.ErrForbidden, text: `nodes "n1" is forbidden: node "n1" is not allowed to modify ownerReferences`},
		{name: "a node registers with an owner", resource: "nodes", op: admission.Create, node: "n1", object: `metadata: {name: n1, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: gone, uid: "1"}]}`,
			kind: apierr.ErrForbidden, text: `nodes "n1" is forbidden: node "n1" is not allowed to modify ownerReferences`},
		{name: "a node lets go of its owner", resource: "nodes", op: admission.Update, node: "n1", object: `metadata: {name: n1}`, old: `metadata: {name: n1, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: x, uid: "1"}]}`,
			kind: apierr.ErrForbidden, text: `nodes "n1" is forbidden: node "n1" is not allowed to modify ownerReferences`},
		{name: "a node with an owner writes its status", resource: "nodes", op: admission.Update, sub: "status", node: "n1", object: `metadata: {name: n1, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: x, uid: "1"}]}`, old: `metadata: {name: n1, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: x, uid: "1"}]}`},
		{name: "another gives a node an owner", resource: "nodes", op: admission.Update, object: `metadata: {name: n1, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: x, uid: "1"}]}`, old: `metadata: {name: n1}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, _ := table.ByKey(tt.resource)
			want := tt.want
			if want == "" {
				want = tt.object
			}
			r := &admission.Request{Kind: k, Operation: tt.op, Subresource: tt.sub, Node: tt.node, Snapshot: snap, Object: read(t, k, tt.object), Old: read(t, k, tt.old)}
			err := admission.BuiltIn().Admit(r)
			if tt.kind != nil {
				if !errors.Is(err, tt.kind) || err.Error() != tt.text {
					t.Fatalf("answered %v, want %s", err, tt.text)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := r.Object
			if pod, ok := got.(*corev1.Pod); ok && tt.op == admission.Create { // its account is another test's
				pod = pod.DeepCopy()
				pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = "", ""
				got = pod
			}
			if want != "" && !reflect.DeepEqual(got, read(t, k, want)) {
				t.Errorf("object is %+v, want %s", got, want)
			}
			if old := read(t, k, tt.old); old != nil && !reflect.DeepEqual(r.Old, old) {
				t.Errorf("the old object was changed: %+v", r.Old)
			}
			// Twice is once: a write is admitted anew on each try.
			if r.Object != nil {
				before := r.Object.DeepCopyObject()
				if err := admission.BuiltIn().Admit(r); err != nil || !reflect.DeepEqual(before, r.Object) {
					t.Errorf("the second time it is %+v, %v", r.Object, err)
				}
			}
		})
	}
}

func TestTerminatingNamespaceIsNamed(t *testing.T) {
	table := kinds()
	k, _ := table.ByKey("configmaps")
	err := admission.BuiltIn().Admit(&admission.Request{Kind: k, Operation: admission.Create, Snapshot: snapshot(t, table), Object: read(t, k, `metadata: {name: a, namespace: dying}`)})
	want := metav1.StatusCause{Type: "NamespaceTerminating", Message: "namespace dying is being terminated", Field: "metadata.namespace"}
	if d := apierr.StatusOf(err).Details; d == nil || len(d.Causes) != 1 || d.Causes[0] != want {
		t.Errorf("details %+v", d)
	}
}

func TestChainEndsAtTheFirstError(t *testing.T) {
	var ran []string
	step := func(name string, err error) admission.Plugin {
		return admission.Plugin{Name: name, Admit: func(*admission.Request) error { ran = append(ran, name); return err }}
	}
	bad := errors.New("no")
	if err := (admission.Chain{step("a", nil), step("b", bad), step("c", nil)}).Admit(nil); !errors.Is(err, bad) || !reflect.DeepEqual(ran, []string{"a", "b"}) {
		t.Errorf("ran %q, %v", ran, err)
	}
}
