package core_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/kinds/core"
)

func pod(spec string) string { return `{metadata: {name: a}, spec: {` + spec + `}}` }

func TestPodOnCreate(t *testing.T) {
	p := made(t, core.Pod(), `{metadata: {name: a}, spec: {containers: [{name: c, image: i, resources: {limits: {cpu: 1, memory: 1Gi}}}]}, status: {phase: Running, podIP: 1.2.3.4}}`).(*corev1.Pod)
	if p.Status.Phase != "Pending" || p.Status.QOSClass != "Guaranteed" || p.Status.PodIP != "" {
		t.Errorf("a new pod's status is %+v", p.Status)
	}
	match(t, check(core.Pod(), p))
}

func TestPodInvalid(t *testing.T) {
	invalid{
		{"name", `{metadata: {name: A}, spec: {containers: [{name: c, image: i}]}}`, []string{`metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain`}},
		{"no name", `{spec: {containers: [{name: c, image: i}]}}`, []string{"metadata.name: Required value"}},
		{"no containers", pod(``), []string{"spec.containers: Required value"}},
		{"ephemeral", pod(`containers: [{name: c, image: i}], ephemeralContainers: [{name: e, image: i}]`), []string{"spec.ephemeralContainers: Forbidden: cannot be set on create"}},
		{"gated and bound", pod(`containers: [{name: c, image: i}], nodeName: n, schedulingGates: [{name: g}]`), []string{"spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"}},
		{"deletion cost", `{metadata: {name: a, annotations: {controller.kubernetes.io/pod-deletion-cost: high}}, spec: {containers: [{name: c, image: i}]}}`, []string{`metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "high": must be a 32bit integer`}},
		{"image", pod(`containers: [{name: c}]`), []string{"spec.containers[0].image: Required value"}},
		{"mount", pod(`containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /v}]}]`), []string{`spec.containers[0].volumeMounts[0].name: Not found: "v"`}},
		{"request", pod(`containers: [{name: c, image: i, resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}}]`), []string{`spec.containers[0].resources.requests: Invalid value: "2Gi": must be less than or equal to memory limit of 1Gi`}},
		{"policy", pod(`restartPolicy: Maybe, containers: [{name: c, image: i}]`), []string{`spec.restartPolicy: Unsupported value: "Maybe"`}},
	}.run(t, core.Pod())
}

func TestPodUpdate(t *testing.T) {
	const had = `containers: [{name: c, image: i}], activeDeadlineSeconds: 100, tolerations: [{key: a, operator: Exists, effect: NoExecute}]`
	const gated = `containers: [{name: c, image: i}], schedulingGates: [{name: g}], nodeSelector: {a: b}`
	const no = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`," +
		"`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds`"
	updates{
		{"same", pod(had), pod(had), nil},
		{"image", pod(`containers: [{name: c, image: "i:1"}]`), pod(`containers: [{name: c, image: "j:1"}]`), nil},
		{"image and its default policy", pod(`containers: [{name: c, image: "i:1"}]`), pod(`containers: [{name: c, image: j}]`), []string{no}},
		{"command", pod(had), pod(`containers: [{name: c, image: i, command: [x]}], activeDeadlineSeconds: 100, tolerations: [{key: a, operator: Exists, effect: NoExecute}]`), []string{no}},
		{"container", pod(had), pod(`containers: [{name: c, image: i}, {name: d, image: i}], activeDeadlineSeconds: 100`), []string{"spec.containers: Forbidden: pod updates may not add or remove containers"}},
		{"deadline later", pod(`containers: [{name: c, image: i}], activeDeadlineSeconds: 100`), pod(`containers: [{name: c, image: i}], activeDeadlineSeconds: 101`), []string{"spec.activeDeadlineSeconds: Invalid value: 101: must be less than or equal to previous value"}},
		{"deadline nearer", pod(`containers: [{name: c, image: i}], activeDeadlineSeconds: 100`), pod(`containers: [{name: c, image: i}], activeDeadlineSeconds: 99`), nil},
		{"deadline gone", pod(`containers: [{name: c, image: i}], activeDeadlineSeconds: 100`), pod(`containers: [{name: c, image: i}]`), []string{"spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"}},
		{"toleration gone", pod(had), pod(`containers: [{name: c, image: i}], activeDeadlineSeconds: 100`), []string{"spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"}},
		{"toleration more", pod(had), pod(had[:len(had)-1] + `, {key: b, operator: Exists}]`), nil},
		{"gate open", pod(gated), pod(`containers: [{name: c, image: i}], nodeSelector: {a: b, c: d}`), nil},
		{"gate new", pod(had), pod(had + `, schedulingGates: [{name: h}]`), []string{"spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'h'"}},
		{"gated but loosened", pod(gated), pod(`containers: [{name: c, image: i}], schedulingGates: [{name: g}]`), []string{no}},
		{"selector of an open pod", pod(had), pod(had + `, nodeSelector: {a: b}`), []string{no}},
		{"negative grace mended", pod(`containers: [{name: c, image: i}], terminationGracePeriodSeconds: -1`), pod(`containers: [{name: c, image: i}], terminationGracePeriodSeconds: 1`), nil},
		{"grace", pod(had), pod(had + `, terminationGracePeriodSeconds: 1`), []string{no}},
	}.run(t, core.Pod())
}

func TestPodStatus(t *testing.T) {
	k := core.Pod()
	old := made(t, k, pod(`restartPolicy: Never, containers: [{name: c, image: i}]`)).(*corev1.Pod)
	old.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}
	obj := old.DeepCopy()
	obj.Spec.NodeName, obj.Labels = "n", map[string]string{"a": "b"}
	obj.Status = corev1.PodStatus{Phase: "Running", PodIP: "10.0.0.1", HostIP: "10.0.0.2", ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}
	k.OnStatus(obj, old)
	if obj.Spec.NodeName != "" || obj.Labels != nil || obj.Status.QOSClass != "BestEffort" || len(obj.Status.PodIPs) != 1 || len(obj.Status.HostIPs) != 1 {
		t.Errorf("after a write of the status the pod is %+v", obj)
	}
	match(t, k.ValidateStatus(obj, old), "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state")
	obj.Status.ContainerStatuses = old.Status.ContainerStatuses
	match(t, k.ValidateStatus(obj, old))
	obj.Status.PodIPs = []corev1.PodIP{{IP: "x"}, {IP: "x"}}
	obj.Status.NominatedNodeName = "A"
	match(t, k.ValidateStatus(obj, old), `status.nominatedNodeName: Invalid value: "A"`, `status.podIPs[0]: Invalid value: "x"`, `status.podIPs[1]: Invalid value: "x"`, "status.podIPs[1]: Duplicate value")
}

func TestPodGrace(t *testing.T) {
	k := core.Pod()
	for _, tt := range []struct {
		name  string
		node  string
		phase corev1.PodPhase
		own   int64
		asked *int64
		want  int64
	}{
		{"own", "n", "Running", 30, nil, 30},
		{"asked", "n", "Running", 30, ptr(5), 5},
		{"now", "n", "Running", 30, ptr(0), 0},
		{"negative", "n", "Running", -5, nil, 1},
		{"asked negative", "n", "Running", 30, ptr(-5), 1},
		{"not bound", "", "Pending", 30, nil, 0},
		{"done", "n", "Succeeded", 30, nil, 0},
		{"failed", "n", "Failed", 30, ptr(9), 0},
	} {
		p := &corev1.Pod{Spec: corev1.PodSpec{NodeName: tt.node, TerminationGracePeriodSeconds: &tt.own}, Status: corev1.PodStatus{Phase: tt.phase}}
		if got := k.Grace(p, tt.asked); got != tt.want {
			t.Errorf("%s: grace is %d, want %d", tt.name, got, tt.want)
		}
	}
}

func ptr(n int64) *int64 { return &n }

// TestPodCells has a row for every way in which kubectl get pods describes a
// pod.
func TestPodCells(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const two = `spec: {containers: [{name: a}, {name: b}]}`
	const init = `spec: {containers: [{name: a}], initContainers: [{name: i}, {name: s, restartPolicy: Always}]}`
	for _, tt := range []struct{ name, text, ready, status, restarts string }{
		{"pending", `{` + two + `, status: {phase: Pending}}`, "0/2", "Pending", "0"},
		{"reason", `{` + two + `, status: {phase: Failed, reason: Evicted}}`, "0/2", "Evicted", "0"},
		{"gated", `{` + two + `, status: {phase: Pending, conditions: [{type: PodScheduled, status: "False", reason: SchedulingGated}]}}`, "0/2", "SchedulingGated", "0"},
		{"creating", `{` + two + `, status: {phase: Pending, containerStatuses: [{name: a, state: {waiting: {reason: ContainerCreating}}}]}}`, "0/2", "ContainerCreating", "0"},
		{"running", `{` + two + `, status: {phase: Running, conditions: [{type: Ready, status: "True"}], containerStatuses: [{name: a, ready: true, state: {running: {}}}, {name: b, ready: true, state: {running: {}}}]}}`, "2/2", "Running", "0"},
		{"restarted", `{` + two + `, status: {phase: Running, containerStatuses: [{name: a, ready: true, restartCount: 2, state: {running: {}}, lastState: {terminated: {finishedAt: "2026-01-02T03:01:05Z"}}}, {name: b, restartCount: 1, state: {running: {}}}]}}`, "1/2", "Running", "3 (3m ago)"},
		{"restarts without time", `{` + two + `, status: {phase: Running, containerStatuses: [{name: a, restartCount: 2, state: {running: {}}}]}}`, "0/2", "Running", "2"},
		{"crash loop", `{` + two + `, status: {phase: Running, containerStatuses: [{name: a, state: {waiting: {reason: CrashLoopBackOff}}}, {name: b, state: {terminated: {reason: Error}}}]}}`, "0/2", "CrashLoopBackOff", "0"},
		{"exit code", `{` + two + `, status: {phase: Failed, containerStatuses: [{name: a, state: {terminated: {exitCode: 3}}}]}}`, "0/2", "ExitCode:3", "0"},
		{"signal", `{` + two + `, status: {phase: Failed, containerStatuses: [{name: a, state: {terminated: {exitCode: 137, signal: 9}}}]}}`, "0/2", "Signal:9", "0"},
		{"half done but ready", `{` + two + `, status: {phase: Running, conditions: [{type: Ready, status: "True"}], containerStatuses: [{name: a, state: {terminated: {reason: Completed}}}, {name: b, ready: true, state: {running: {}}}]}}`, "1/2", "Running", "0"},
		{"half done", `{` + two + `, status: {phase: Running, containerStatuses: [{name: a, state: {terminated: {reason: Completed}}}, {name: b, ready: true, state: {running: {}}}]}}`, "1/2", "NotReady", "0"},
		{"terminating", `{metadata: {deletionTimestamp: "2026-01-02T03:04:05Z"}, ` + two + `, status: {phase: Running}}`, "0/2", "Terminating", "0"},
		{"done and being deleted", `{metadata: {deletionTimestamp: "2026-01-02T03:04:05Z"}, ` + two + `, status: {phase: Succeeded, containerStatuses: [{name: a, state: {terminated: {reason: Completed}}}]}}`, "0/2", "Completed", "0"},
		{"lost", `{metadata: {deletionTimestamp: "2026-01-02T03:04:05Z"}, ` + two + `, status: {phase: Running, reason: NodeLost}}`, "0/2", "Unknown", "0"},
		{"init", `{` + init + `, status: {phase: Pending, initContainerStatuses: [{name: i, state: {running: {}}}]}}`, "0/2", "Init:0/2", "0"},
		{"init waits for the sandbox", `{` + init + `, status: {phase: Pending, initContainerStatuses: [{name: i, state: {waiting: {reason: PodInitializing}}}]}}`, "0/2", "Init:0/2", "0"},
		{"init second", `{` + init + `, status: {phase: Pending, initContainerStatuses: [{name: i, state: {terminated: {exitCode: 0}}}, {name: s, state: {running: {}}}]}}`, "0/2", "Init:1/2", "0"},
		{"init error", `{` + init + `, status: {phase: Pending, initContainerStatuses: [{name: i, restartCount: 2, state: {terminated: {exitCode: 1, reason: Error}}}]}}`, "0/2", "Init:Error", "2"},
		{"init exit code", `{` + init + `, status: {phase: Pending, initContainerStatuses: [{name: i, state: {terminated: {exitCode: 4}}}]}}`, "0/2", "Init:ExitCode:4", "0"},
		{"init signal", `{` + init + `, status: {phase: Pending, initContainerStatuses: [{name: i, state: {terminated: {exitCode: 4, signal: 2}}}]}}`, "0/2", "Init:Signal:2", "0"},
		{"init loop", `{` + init + `, status: {phase: Pending, initContainerStatuses: [{name: i, state: {waiting: {reason: CrashLoopBackOff}}}]}}`, "0/2", "Init:CrashLoopBackOff", "0"},
		{"sidecar", `{` + init + `, status: {phase: Running, conditions: [{type: Ready, status: "True"}], initContainerStatuses: [{name: i, restartCount: 5, state: {terminated: {exitCode: 0}}}, {name: s, restartCount: 1, started: true, ready: true, state: {running: {}}}], containerStatuses: [{name: a, ready: true, state: {running: {}}}]}}`, "2/2", "Running", "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &corev1.Pod{}
			if err := yaml.UnmarshalStrict([]byte(tt.text), p); err != nil {
				t.Fatal(err)
			}
			cells, conditions := core.Pod().Cells(p, now)
			if cells[1] != tt.ready || cells[2] != tt.status || cells[3] != tt.restarts {
				t.Errorf("cells are %q, want %s %s %s", cells, tt.ready, tt.status, tt.restarts)
			}
			terminal := p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed"
			if terminal != (len(conditions) == 1) {
				t.Errorf("conditions are %v", conditions)
			}
			if terminal && (conditions[0].Type != metav1.RowCompleted || conditions[0].Reason != string(p.Status.Phase)) {
				t.Errorf("condition is %v", conditions[0])
			}
		})
	}
}
