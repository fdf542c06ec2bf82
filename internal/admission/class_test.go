package admission_test

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/admission"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/store"
)

// with is a snapshot of objects, each a resource and a manifest.
func with(t *testing.T, table *api.Kinds, objects ...[2]string) *store.Snapshot {
	t.Helper()
	var ks []*api.Kind
	var made []api.Object
	for _, o := range objects {
		k, ok := table.ByKey(o[0])
		if !ok {
			t.Fatalf("no kind %s", o[0])
		}
		ks, made = append(ks, k), append(made, read(t, k, o[1]))
	}
	return holding(t, table, ks, made...)
}

// readLast is read for a manifest in which a later key goes before an earlier one.
func readLast(t *testing.T, k *api.Kind, text string) api.Object {
	t.Helper()
	obj := k.New()
	if err := yaml.Unmarshal([]byte(text), obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

const (
	priorities = "priorityclasses.scheduling.k8s.io"
	runtimes   = "runtimeclasses.node.k8s.io"
	liveNS     = `{metadata: {name: live}, status: {phase: Active}}`
)

func TestClassesOfPods(t *testing.T) {
	table := kinds()
	named := [][2]string{
		{"namespaces", liveNS},
		{priorities, `{metadata: {name: high}, value: 1000, preemptionPolicy: Never}`},
		{priorities, `{metadata: {name: low}, value: -5, preemptionPolicy: PreemptLowerPriority}`},
		{runtimes, `{metadata: {name: plain}, handler: runc}`},
		{runtimes, `{metadata: {name: safe}, handler: gvisor}`},
		{runtimes, `{metadata: {name: heavy}, handler: runc, overhead: {podFixed: {cpu: 250m, memory: 120Mi}},
 scheduling: {nodeSelector: {kata: "yes"}, tolerations: [{key: kata, operator: Exists, effect: NoSchedule}, {key: a, operator: Equal, value: b}]}}`},
	}
	withDefault := append(named[:len(named):len(named)],
		[2]string{priorities, `{metadata: {name: usual}, value: 7, globalDefault: true, preemptionPolicy: Never}`},
		[2]string{priorities, `{metadata: {name: raced}, value: 9, globalDefault: true}`})
	pod := func(spec string) string {
		return `{metadata: {name: p, namespace: live}, spec: {tolerations: [{operator: Exists, effect: NoExecute}], ` + spec + `}}`
	}
	for name, tt := range map[string]struct {
		objects   [][2]string
		pod, want string // the specs, which tolerate anything
		refused   string
	}{
		"a class": {named, `priorityClassName: high`, `priorityClassName: high, priority: 1000, preemptionPolicy: Never`, ""},
		"a class and its number": {named, `priorityClassName: low, priority: -5`,
			`priorityClassName: low, priority: -5, preemptionPolicy: PreemptLowerPriority`, ""},
		"no default":  {named, ``, `priority: 0, preemptionPolicy: PreemptLowerPriority`, ""},
		"the default": {withDefault, ``, `priorityClassName: usual, priority: 7, preemptionPolicy: Never`, ""},
		"another than the default": {withDefault, `priorityClassName: low`,
			`priorityClassName: low, priority: -5, preemptionPolicy: PreemptLowerPriority`, ""},
		"the default's name on a number": {withDefault, `priority: 0`, ``,
			`pods "p" is forbidden: the integer value of priority (0) must not be provided in pod spec; priority admission controller computed 7 from the given PriorityClass name`},
		"a policy of one's own": {named, `priorityClassName: high, preemptionPolicy: PreemptLowerPriority`, ``,
			`pods "p" is forbidden: the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority admission controller computed Never from the given PriorityClass name`},
		"no class": {named, `priorityClassName: hi`, ``, `pods "p" is forbidden: no PriorityClass with name hi was found`},

		"a runtime": {named, `runtimeClassName: plain`, `runtimeClassName: plain, priority: 0, preemptionPolicy: PreemptLowerPriority`, ""},
		"a runtime with overhead": {named, `runtimeClassName: heavy, nodeSelector: {disk: ssd}`,
			`runtimeClassName: heavy, nodeSelector: {disk: ssd, kata: "yes"}, overhead: {cpu: 250m, memory: 120Mi}, priority: 0, preemptionPolicy: PreemptLowerPriority,
 tolerations: [{operator: Exists, effect: NoExecute}, {key: kata, operator: Exists, effect: NoSchedule}, {key: a, operator: Equal, value: b}]`, ""},
		"the same overhead": {named, `runtimeClassName: heavy, overhead: {cpu: 0.25, memory: 120Mi}, tolerations: [{operator: Exists}]`,
			`runtimeClassName: heavy, nodeSelector: {kata: "yes"}, overhead: {cpu: 250m, memory: 120Mi}, priority: 0, preemptionPolicy: PreemptLowerPriority, tolerations: [{operator: Exists}]`, ""},
		"another overhead": {named, `runtimeClassName: heavy, overhead: {cpu: 1}`, ``,
			`pods "p" is forbidden: pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead`},
		"overhead without a runtime": {named, `overhead: {cpu: 1}`, ``,
			`pods "p" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead`},
		"another node": {named, `runtimeClassName: heavy, nodeSelector: {kata: "no"}`, ``,
			`pods "p" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[kata] = yes; pod.spec.nodeSelector[kata] = no`},
		"a runtime that no node has": {named, `runtimeClassName: safe`, ``,
			`pods "p" is forbidden: pod rejected: RuntimeClass "safe" has the handler "gvisor", which no node has: nodes have "runc"`},
		"no runtime": {named, `runtimeClassName: gvisor`, ``, `pods "p" is forbidden: pod rejected: RuntimeClass "gvisor" not found`},
	} {
		t.Run(name, func(t *testing.T) {
			k, _ := table.ByKey("pods")
			r := &admission.Request{Kind: k, Operation: admission.Create, Object: readLast(t, k, pod(tt.pod)), Snapshot: with(t, table, tt.objects...)}
			err := admission.BuiltIn().Admit(r)
			if tt.refused != "" {
				if err == nil || err.Error() != tt.refused {
					t.Fatalf("answered %v, want %s", err, tt.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := r.Object.DeepCopyObject().(*corev1.Pod)
			got.Spec.ServiceAccountName, got.Spec.DeprecatedServiceAccount = "", "" // another test's
			want := readLast(t, k, pod(tt.want)).(*corev1.Pod)
			if got.String() != want.String() {
				t.Errorf("the pod is %v, want %v", got.Spec, want.Spec)
			}
			before := r.Object.DeepCopyObject()
			if err := admission.BuiltIn().Admit(r); err != nil || !reflect.DeepEqual(before, r.Object) {
				t.Errorf("the second time it is %+v, %v", r.Object, err)
			}
		})
	}
}

func TestOneDefaultPriority(t *testing.T) {
	table := kinds()
	k, _ := table.ByKey(priorities)
	snap := with(t, table, [2]string{priorities, `{metadata: {name: usual}, value: 7, globalDefault: true}`}, [2]string{priorities, `{metadata: {name: other}, value: 8}`})
	const refused = `priorityclasses.scheduling.k8s.io "other" is forbidden: PriorityClass usual is already marked as default. Only one default can exist`
	for _, tt := range []struct{ op, object, want string }{
		{admission.Create, `{metadata: {name: other}, value: 1, globalDefault: true}`, refused},
		{admission.Update, `{metadata: {name: other}, value: 8, globalDefault: true}`, refused},
		{admission.Create, `{metadata: {name: other}, value: 1}`, ""},
		{admission.Update, `{metadata: {name: usual}, value: 7, globalDefault: true, description: x}`, ""},
	} {
		got := ""
		if err := admission.BuiltIn().Admit(&admission.Request{Kind: k, Operation: tt.op, Object: read(t, k, tt.object), Snapshot: snap}); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.op, tt.object, got, tt.want)
		}
	}
}
