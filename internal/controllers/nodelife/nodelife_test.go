package nodelife

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func at(s int) time.Time { return time.Date(2026, 1, 1, 0, 0, s, 0, time.UTC) }

func node(ready corev1.ConditionStatus, taints ...corev1.Taint) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{Taints: taints}}
	if ready != "" {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	}
	return n
}

func text(list []corev1.Taint) string {
	var out []string
	for _, t := range list {
		one := strings.TrimPrefix(t.Key, "node.kubernetes.io/") + ":" + string(t.Effect)
		if t.TimeAdded != nil {
			one += t.TimeAdded.Format("@5")
		}
		out = append(out, one)
	}
	return strings.Join(out, " ")
}

func TestTaints(t *testing.T) {
	user := corev1.Taint{Key: "dedicated", Value: "x", Effect: corev1.TaintEffectNoSchedule}
	fresh := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	stamp := metav1.Time{Time: at(1)}
	evicting := corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute, TimeAdded: &stamp}
	for name, c := range map[string]struct {
		node  *corev1.Node
		evict bool
		want  string
	}{
		"new":                  {node("", fresh), false, "not-ready:NoSchedule"},
		"ready":                {node(corev1.ConditionTrue, fresh, user), false, "dedicated:NoSchedule"},
		"not ready, its turn":  {node(corev1.ConditionFalse, user), true, "dedicated:NoSchedule not-ready:NoExecute@9 not-ready:NoSchedule"},
		"not ready, must wait": {node(corev1.ConditionFalse), false, "not-ready:NoSchedule"},
		"silent":               {node(corev1.ConditionUnknown, fresh), true, "unreachable:NoExecute@9 unreachable:NoSchedule"},
		"silent for longer":    {node(corev1.ConditionUnknown, evicting), false, "unreachable:NoExecute@1 unreachable:NoSchedule"},
		"back":                 {node(corev1.ConditionTrue, evicting), false, ""},
		"cordoned": {func() *corev1.Node {
			n := node(corev1.ConditionTrue)
			n.Spec.Unschedulable = true
			return n
		}(), false, "unschedulable:NoSchedule"},
		"pressure": {func() *corev1.Node {
			n := node(corev1.ConditionTrue)
			n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue})
			return n
		}(), false, "disk-pressure:NoSchedule"},
	} {
		got := taints(c.node, at(9), c.evict)
		if text(got) != c.want {
			t.Errorf("%s: %s; want %s", name, text(got), c.want)
		}
		c.node.Spec.Taints = got
		if again := taints(c.node, at(10), false); text(again) != c.want {
			t.Errorf("%s: the same again gives %s", name, text(again))
		}
	}
}

func TestForget(t *testing.T) {
	n := node(corev1.ConditionTrue)
	if !forget(n, at(1)) {
		t.Fatal("a ready node that is silent did not change")
	}
	ready := condition(n, corev1.NodeReady)
	if ready.Status != corev1.ConditionUnknown || ready.Reason != "NodeStatusUnknown" || ready.Message != "Kubelet stopped posting node status." {
		t.Errorf("Ready is %+v", ready)
	}
	if c := condition(n, corev1.NodeDiskPressure); c == nil || c.Reason != "NodeStatusNeverUpdated" {
		t.Errorf("DiskPressure is %+v", c)
	}
	if forget(n, at(2)) {
		t.Error("doing it again changed something")
	}
}

func TestUntil(t *testing.T) {
	stamp := metav1.Time{Time: at(0)}
	taint := func(key string) corev1.Taint {
		return corev1.Taint{Key: key, Value: "v", Effect: corev1.TaintEffectNoExecute, TimeAdded: &stamp}
	}
	seconds := func(n int64) *int64 { return &n }
	exists := func(key string, s *int64) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: s}
	}
	for name, c := range map[string]struct {
		tolerations []corev1.Toleration
		taints      []corev1.Taint
		want        int // seconds; -1 for ever, -2 at once
	}{
		"none":              {nil, []corev1.Taint{taint("a")}, -2},
		"for ever":          {[]corev1.Toleration{exists("a", nil)}, []corev1.Taint{taint("a")}, -1},
		"for a while":       {[]corev1.Toleration{exists("a", seconds(30))}, []corev1.Taint{taint("a")}, 30},
		"everything":        {[]corev1.Toleration{{Operator: corev1.TolerationOpExists}}, []corev1.Taint{taint("a"), taint("b")}, -1},
		"one of two":        {[]corev1.Toleration{exists("a", nil)}, []corev1.Taint{taint("a"), taint("b")}, -2},
		"shortest of two":   {[]corev1.Toleration{exists("a", seconds(30)), exists("b", seconds(10))}, []corev1.Taint{taint("a"), taint("b")}, 10},
		"equal value":       {[]corev1.Toleration{{Key: "a", Value: "v", Effect: corev1.TaintEffectNoExecute}}, []corev1.Taint{taint("a")}, -1},
		"other value":       {[]corev1.Toleration{{Key: "a", Value: "w"}}, []corev1.Taint{taint("a")}, -2},
		"other effect":      {[]corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}, []corev1.Taint{taint("a")}, -2},
		"negative is now":   {[]corev1.Toleration{exists("a", seconds(-5))}, []corev1.Taint{taint("a")}, 0},
		"no key, not equal": {[]corev1.Toleration{{Value: "v"}}, []corev1.Taint{taint("a")}, -2},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: c.tolerations}}
		end, limited := until(pod, c.taints, at(5))
		got := -1
		if limited {
			got = int(end.Sub(at(0)) / time.Second)
			if end.Equal(at(5)) {
				got = -2
			}
		}
		if got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
