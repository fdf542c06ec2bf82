package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/testbed"
	"github.com/wherry-project/wherry/internal/testkit"
)

// breaks says that a test breaks things: whatever it leaves broken is mended at
// its end, and the next test begins with a whole cluster.
func breaks(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
		defer cancel()
		if err := mend(ctx); err != nil {
			t.Errorf("mend the testbed: %v", err)
		}
	})
}

func mend(ctx context.Context) error {
	hosts, err := suite.Status(ctx)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		daemon := h.Role.Daemon()
		if h.Cut {
			err = errors.Join(err, suite.Heal(ctx, h.Name))
		}
		if !h.On {
			err = errors.Join(err, suite.PowerOn(ctx, h.Name))
		} else if daemon != "" && !slices.ContainsFunc(h.Daemons, func(d testbed.DaemonStatus) bool { return d.Running }) {
			err = errors.Join(err, suite.Launch(ctx, h.Name, daemon))
		}
	}
	for _, h := range hosts {
		if daemon := h.Role.Daemon(); daemon != "" {
			err = errors.Join(err, suite.Start(ctx, h.Name, daemon))
		}
	}
	if err := errors.Join(err, suite.AwaitNodes(ctx, nodes...)); err != nil {
		return err
	}
	for {
		err := whole(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// whole says who of the controls is not there, votes not, or leads not.
func whole(ctx context.Context) error {
	all, err := members(ctx)
	if err != nil {
		return err
	}
	ok, leads := 0, 0
	for _, m := range all {
		if m.Voter && m.Reachable {
			ok++
		}
		if m.Leader {
			leads++
		}
	}
	if ok != len(controls) || leads != 1 {
		return fmt.Errorf("of the members %+v not all vote and are reachable, or not one leads", all)
	}
	return nil
}

// pod returns a Pod's manifest of one container. Whatever is given stands in
// the container, or where it begins with "spec." in the pod's spec.
func podYAML(name, node, image string, more ...string) string {
	var spec, container strings.Builder
	for _, line := range more {
		if s, ok := strings.CutPrefix(line, "spec."); ok {
			fmt.Fprintf(&spec, "  %s\n", s)
		} else {
			fmt.Fprintf(&container, "    %s\n", line)
		}
	}
	if node != "" {
		fmt.Fprintf(&spec, "  nodeName: %s\n", node)
	}
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\n  labels: {app: %s}\nspec:\n  terminationGracePeriodSeconds: 1\n%s"+
		"  containers:\n  - name: main\n    image: %s\n%s---\n", name, name, &spec, image, &container)
}

// awaitPod waits until a pod is as wanted.
func awaitPod(t testing.TB, namespace, name string, timeout time.Duration, ok func(p *corev1.Pod) error) (found *corev1.Pod) {
	t.Helper()
	k := kube(t, "")
	testkit.Eventually(t, timeout, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		p, err := k.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			found, err = p, ok(p)
		}
		return err
	})
	return found
}

// awaitReady waits until pods are Ready.
func awaitReady(t testing.TB, namespace string, names ...string) {
	t.Helper()
	for _, n := range names {
		awaitPod(t, namespace, n, 2*patience, func(p *corev1.Pod) error {
			if c := condition(p, corev1.PodReady); c.Status != corev1.ConditionTrue {
				return fmt.Errorf("pod %s is %s, not Ready: %s %s; %+v", n, p.Status.Phase, c.Reason, c.Message, p.Status.ContainerStatuses)
			}
			return nil
		})
	}
}

func condition(p *corev1.Pod, kind corev1.PodConditionType) corev1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return corev1.PodCondition{}
}

// status is that of the pod's only container.
func status(p *corev1.Pod) (s corev1.ContainerStatus) {
	if len(p.Status.ContainerStatuses) > 0 {
		s = p.Status.ContainerStatuses[0]
	}
	return s
}

func nodeReady(ctx context.Context, t testing.TB, node string) (corev1.NodeCondition, error) {
	n, err := kube(t, "").CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return corev1.NodeCondition{}, err
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c, nil
		}
	}
	return corev1.NodeCondition{}, fmt.Errorf("node %s has no condition Ready", node)
}

// processes returns the processes of a host, pods' too, whose command line
// contains text: their ids there, with the moments at which they began.
func processes(t testing.TB, host, text string) map[string]string {
	t.Helper()
	out, err := suite.Exec(t.Context(), host, "sh", "-c",
		`for p in /proc/[0-9]*; do c=$(tr '\0' ' ' <$p/cmdline 2>/dev/null) && s=$(cat $p/stat 2>/dev/null) && echo "${p#/proc/}|${s##*) }|$c"; done; true`)
	if err != nil {
		t.Fatal(err)
	}
	found, parents := map[string]string{}, map[string]string{}
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimSpace(line), "|", 3)
		if len(f) == 3 && strings.Contains(f[2], text) && !strings.Contains(f[2], "/proc/[0-9]") {
			if stat := strings.Fields(f[1]); len(stat) > 19 {
				found[f[0]], parents[f[0]] = stat[19], stat[1]
			}
		}
	}
	// Between its fork and its exec a child has its parent's command line.
	maps.DeleteFunc(found, func(pid, _ string) bool { _, child := parents[parents[pid]]; return child })
	return found
}
