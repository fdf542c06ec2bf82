package scheduler

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

func node(t testing.TB, name, more string) *corev1.Node {
	t.Helper()
	n := &corev1.Node{}
	text := fmt.Sprintf(`{metadata: {name: %s, labels: {kubernetes.io/hostname: %s}}, status: {allocatable: {cpu: 4, memory: 8Gi, pods: 110}}}`, name, name)
	if err := yaml.Unmarshal([]byte(text), n); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict([]byte(more), n); err != nil {
		t.Fatal(err)
	}
	n.Name = name
	return n
}

func pod(t testing.TB, name, text string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	p.Name, p.Namespace, p.UID = name, "default", types.UID(name)
	if p.Spec.Containers == nil {
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i:1"}}
	}
	return p
}

func viewOf(nodes []*corev1.Node, pods ...*corev1.Pod) *View {
	v := NewView()
	for _, n := range nodes {
		v.putNode(n)
	}
	for _, p := range pods {
		v.place(placedOf(p))
	}
	return v
}

const asks = `{spec: {containers: [{name: c, image: "i:1", resources: {requests: {cpu: %q}}}]%s}}`

func TestDecide(t *testing.T) {
	labelled := func(name, zone string) *corev1.Node {
		return node(t, name, fmt.Sprintf(`{metadata: {labels: {kubernetes.io/hostname: %s, zone: %s}}}`, name, zone))
	}
	web := func(name, at string) *corev1.Pod {
		return pod(t, name, fmt.Sprintf(`{metadata: {labels: {app: web}}, spec: {nodeName: %s}}`, at))
	}
	zones := []*corev1.Node{labelled("a", "x"), labelled("b", "x"), labelled("c", "y")}
	const spread = `{metadata: {labels: {app: web}}, spec: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]}}`
	for _, tt := range []struct {
		name  string
		nodes []*corev1.Node
		pods  []*corev1.Pod
		text  string
		want  string // a node, or the start of a message
	}{
		{"no nodes", nil, nil, `{}`, "no nodes available to schedule pods"},
		{"one", []*corev1.Node{node(t, "a", `{}`)}, nil, `{}`, "a"},
		{"cordoned", []*corev1.Node{node(t, "a", `{spec: {unschedulable: true}}`)}, nil, `{}`, "0/1 nodes are available: 1 node(s) were unschedulable."},
		{
			"several reasons",
			[]*corev1.Node{node(t, "a", `{spec: {taints: [{key: k, value: v, effect: NoSchedule}]}}`), node(t, "b", `{spec: {taints: [{key: k, value: v, effect: NoExecute}]}}`), node(t, "c", `{}`)},
			nil, fmt.Sprintf(asks, "5", ""), "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {k: v}.",
		},
		{"tolerated", []*corev1.Node{node(t, "a", `{spec: {taints: [{key: k, value: v, effect: NoSchedule}]}}`)}, nil, `{spec: {tolerations: [{key: k, operator: Exists}]}}`, "a"},
		{"prefers not", []*corev1.Node{node(t, "a", `{spec: {taints: [{key: k, effect: PreferNoSchedule}]}}`), node(t, "b", `{}`)}, nil, `{}`, "b"},
		{"selector", []*corev1.Node{node(t, "a", `{}`), node(t, "b", `{metadata: {labels: {disk: ssd}}}`)}, nil, `{spec: {nodeSelector: {disk: ssd}}}`, "b"},
		{"selector nobody has", []*corev1.Node{node(t, "a", `{}`)}, nil, `{spec: {nodeSelector: {disk: ssd}}}`, "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."},
		{
			"node affinity by field", []*corev1.Node{node(t, "a", `{}`), node(t, "b", `{}`)}, nil,
			`{spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [b]}]}]}}}}}`, "b",
		},
		{
			"node affinity, more than", []*corev1.Node{node(t, "a", `{metadata: {labels: {n: "3"}}}`), node(t, "b", `{metadata: {labels: {n: "5"}}}`)}, nil,
			`{spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: n, operator: Gt, values: ["4"]}]}]}}}}}`, "b",
		},
		{
			"preferred node", []*corev1.Node{node(t, "a", `{}`), node(t, "b", `{metadata: {labels: {disk: ssd}}}`)}, nil,
			`{spec: {affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: disk, operator: Exists}]}}]}}}}`, "b",
		},
		{"full of pods", []*corev1.Node{node(t, "a", `{status: {allocatable: {cpu: 4, memory: 1Gi, pods: 1}}}`)}, []*corev1.Pod{web("w", "a")}, `{}`, "0/1 nodes are available: 1 Too many pods."},
		{"cpu taken", []*corev1.Node{node(t, "a", `{}`), node(t, "b", `{}`)}, []*corev1.Pod{pod(t, "big", fmt.Sprintf(asks, "3", ", nodeName: a"))}, fmt.Sprintf(asks, "2", ""), "b"},
		{"two lacks", []*corev1.Node{node(t, "a", `{}`)}, nil, `{spec: {containers: [{name: c, image: i, resources: {requests: {cpu: 9, memory: 9Gi, example.com/gpu: 1}}}]}}`, "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient example.com/gpu, 1 Insufficient memory."},
		{"least taken", []*corev1.Node{node(t, "a", `{}`), node(t, "b", `{}`)}, []*corev1.Pod{pod(t, "big", fmt.Sprintf(asks, "1", ", nodeName: b"))}, `{}`, "a"},
		{"lower priority", []*corev1.Node{node(t, "a", `{}`)}, []*corev1.Pod{pod(t, "big", fmt.Sprintf(asks, "3", ", nodeName: a"))}, fmt.Sprintf(asks, "2", ", priority: 5"), "0/1 nodes are available: 1 Insufficient cpu. preemption: not supported"},
		{
			"host port", []*corev1.Node{node(t, "a", `{}`)}, []*corev1.Pod{pod(t, "p", `{spec: {nodeName: a, containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 80, protocol: TCP, hostIP: 10.0.0.1}]}]}}`)},
			`{spec: {containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 80, protocol: TCP}]}]}}`, "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
		},
		{
			"host port of another protocol", []*corev1.Node{node(t, "a", `{}`)}, []*corev1.Pod{pod(t, "p", `{spec: {nodeName: a, containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 80, protocol: UDP}]}]}}`)},
			`{spec: {containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 80, protocol: TCP}]}]}}`, "a",
		},
		{"image is here", []*corev1.Node{node(t, "a", `{}`), node(t, "b", `{status: {allocatable: {cpu: 4, memory: 8Gi, pods: 110}, images: [{names: ["i:1"], sizeBytes: 900000000}]}}`)}, nil, `{}`, "b"},
		{"spread, the empty zone", zones, []*corev1.Pod{web("w1", "a"), web("w2", "b")}, spread, "c"},
		{"spread, none left", []*corev1.Node{labelled("a", "x"), node(t, "b", `{}`)}, []*corev1.Pod{web("w1", "a")}, strings.Replace(spread, "maxSkew: 1", "maxSkew: 1, minDomains: 2", 1), "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match pod topology spread constraints (missing required label)."},
		{"spread softly", zones[1:], []*corev1.Pod{web("w1", "b")}, strings.Replace(spread, "DoNotSchedule", "ScheduleAnyway", 1), "c"},
		{
			"beside", zones, []*corev1.Pod{web("w1", "c")},
			`{spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: web}}}]}}}}`, "c",
		},
		{
			"beside nobody", zones, nil,
			`{spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: web}}}]}}}}`, "0/3 nodes are available: 3 node(s) didn't match pod affinity rules.",
		},
		{
			"beside itself, the first", zones[2:], nil,
			`{metadata: {labels: {app: web}}, spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: web}}}]}}}}`, "c",
		},
		{
			"apart", zones, []*corev1.Pod{web("w1", "a")},
			`{spec: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: web}}}]}}}}`, "c",
		},
		{
			"apart, none left", zones, []*corev1.Pod{web("w1", "a"), web("w2", "c")},
			`{spec: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: web}}}]}}}}`, "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.",
		},
		{
			"others want to be alone", zones[:2],
			[]*corev1.Pod{pod(t, "alone", `{spec: {nodeName: a, affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: web}}}]}}}}`)},
			`{metadata: {labels: {app: web}}}`, "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules.",
		},
		{
			"would rather be beside", zones, []*corev1.Pod{web("w1", "c")},
			`{spec: {affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 50, podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}}]}}}}`, "c",
		},
		{"volume claim", zones, nil, `{spec: {volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}}`, `0/3 nodes are available: persistentvolumeclaim "data" not found`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Decide(viewOf(tt.nodes, tt.pods...), pod(t, "new", tt.text))
			if got := d.Node + d.Message; got != tt.want && (d.Message == "" || !strings.HasPrefix(got, tt.want)) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Pods of one controller go where there are fewest of them.
func TestDecideSpreadsByOwner(t *testing.T) {
	var nodes []*corev1.Node
	for i := range 5 {
		nodes = append(nodes, node(t, fmt.Sprintf("n%d", i), `{}`))
	}
	v := viewOf(nodes, pod(t, "other", `{spec: {nodeName: n0}}`))
	count := map[string]int{}
	for i := range 10 {
		p := pod(t, fmt.Sprintf("p%d", i), `{metadata: {ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: r, controller: true}]}}`)
		p.Spec.NodeName = Decide(v, p).Node
		count[p.Spec.NodeName]++
		v.place(placedOf(p))
	}
	for _, n := range nodes {
		if count[n.Name] != 2 {
			t.Errorf("%v, want 2 on each", count)
			break
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	v := NewView()
	for i := range 1000 {
		v.putNode(node(b, fmt.Sprintf("n%04d", i), fmt.Sprintf(`{metadata: {labels: {kubernetes.io/hostname: n%04d, zone: z%d}}}`, i, i%5)))
	}
	const owned = `{metadata: {labels: {app: web}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: r%d, controller: true}]}, spec: {nodeName: n%04d, containers: [{name: c, image: "i:1", resources: {requests: {cpu: 100m, memory: 64Mi}}}]%s}}`
	for i := range 10000 {
		v.place(placedOf(pod(b, fmt.Sprintf("p%d", i), fmt.Sprintf(owned, i%100, i%1000, ""))))
	}
	for _, bb := range []struct{ name, more string }{
		{"plain", ""},
		{"spread", ", topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]"},
		{"apart", ", affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: db}}}]}}"},
	} {
		p := pod(b, "new", fmt.Sprintf(owned, 1, 0, bb.more))
		p.Spec.NodeName = ""
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := Decide(v, p); d.Node == "" {
					b.Fatal(d.Message)
				}
			}
		})
	}
}
