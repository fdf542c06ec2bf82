package e2e

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/testkit"
)

// waits is a shell program that ends with a code when it is told to, and does
// nothing else; it is Ready when it listens. The name tells its process from
// others.
func waits(name string, code int) string {
	return fmt.Sprintf(`command: [sh, -c, "trap 'exit %d' TERM; : %s; touch /tmp/waits; while :; do sleep 0.05; done"]`+"\n"+
		`    readinessProbe: {exec: {command: [test, -e, /tmp/waits]}, periodSeconds: 1, timeoutSeconds: 10}`, code, name)
}

// TestNodedKilled kills noded under running pods. Nothing happens to them; what
// ended meanwhile is known afterwards, and no line of a log is lost.
func TestNodedKilled(t *testing.T) {
	breaks(t)
	ns := namespace(t)
	apply(t, ns, podYAML("web", "n1", helloImage, `args: [serve, "8080"]`)+
		podYAML("talks", "n1", busyboxImage, `command: [sh, -c, "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done"]`)+
		podYAML("ends", "n1", busyboxImage, waits("ends-"+ns, 7), "spec.restartPolicy: Never")+
		podYAML("again", "n1", busyboxImage, waits("again-"+ns, 9))+
		podYAML("goes", "n1", busyboxImage, "command: [sleep, '1000']"))
	awaitReady(t, ns, "web", "talks", "ends", "again", "goes")
	before := processes(t, "n1", "serve 8080")
	talks := processes(t, "n1", "echo line")
	if len(before) != 1 || len(talks) != 1 {
		t.Fatalf("processes of the containers: %v, %v", before, talks)
	}
	for range 3 {
		if err := suite.Kill(t.Context(), "n1", ""); err != nil {
			t.Fatal(err)
		}
		if err := suite.Start(t.Context(), "n1", ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := suite.Kill(t.Context(), "n1", ""); err != nil {
		t.Fatal(err)
	}
	end(t, "n1", "ends-"+ns)
	end(t, "n1", "again-"+ns)
	wherry(t, "-n", ns, "delete", "pod", "goes", "--wait=false")
	says(t, "ok", "get", "--raw", "/readyz")
	if err := suite.Start(t.Context(), "n1", ""); err != nil {
		t.Fatal(err)
	}
	p := awaitPod(t, ns, "ends", patience, func(p *corev1.Pod) error {
		if p.Status.Phase != corev1.PodFailed {
			return fmt.Errorf("pod ends is %s: %+v", p.Status.Phase, status(p))
		}
		return nil
	})
	if s := status(p).State.Terminated; s == nil || s.ExitCode != 7 || s.Reason != "Error" || s.FinishedAt.IsZero() {
		t.Errorf("what ended while noded was dead: %+v", status(p))
	}
	awaitPod(t, ns, "again", patience, func(p *corev1.Pod) error {
		s := status(p)
		if s.RestartCount != 1 || s.State.Running == nil || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 9 {
			return fmt.Errorf("pod again: %+v", s)
		}
		return nil
	})
	wherry(t, "-n", ns, "wait", "--for=delete", "pod/goes", "--timeout=120s")
	if now := processes(t, "n1", "serve 8080"); !maps.Equal(before, now) {
		t.Errorf("the container's process was %v, is %v", before, now)
	}
	if now := processes(t, "n1", "echo line"); !maps.Equal(talks, now) {
		t.Errorf("the container's process was %v, is %v", talks, now)
	}
	for _, name := range []string{"web", "talks"} {
		awaitPod(t, ns, name, patience, func(p *corev1.Pod) error {
			if s := status(p); s.RestartCount != 0 || !s.Ready {
				return fmt.Errorf("pod %s: %+v", name, s)
			}
			return nil
		})
	}
	checkLines(t, wherry(t, "-n", ns, "logs", "talks"))
	if out := wherry(t, "-n", ns, "exec", "web", "--", "/hello", "echo", "still", "here"); out != "still here\n" {
		t.Errorf("exec: %q", out)
	}
}

// end sends SIGTERM to a container's process, past everything that could know.
func end(t *testing.T, host, name string) {
	t.Helper()
	var found map[string]string
	eventually(t, func() error {
		if found = processes(t, host, name); len(found) != 1 {
			return fmt.Errorf("processes of %s: %v", name, found)
		}
		return nil
	})
	for pid := range found {
		if out, err := suite.Exec(t.Context(), host, "kill", "-TERM", pid); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	eventually(t, func() error {
		left := processes(t, host, name)
		for pid, started := range found {
			if left[pid] == started {
				return fmt.Errorf("%s still runs: %v", name, left)
			}
		}
		return nil
	})
}

// checkLines looks whether "line 1", "line 2" … is complete.
func checkLines(t *testing.T, log string) {
	t.Helper()
	n := 0
	for line := range strings.Lines(log) {
		if n++; line != "line "+strconv.Itoa(n)+"\n" {
			t.Fatalf("line %d of the log is %q", n, line)
		}
	}
	if n < 10 {
		t.Errorf("only %d lines", n)
	}
	t.Logf("%d lines of log, none lost", n)
}

const pairYAML = `
apiVersion: v1
kind: Service
metadata: {name: pair}
spec:
  selector: {pair: "yes"}
  ports: [{port: 80, targetPort: 8080}]
---
`

// pairPod is one of the two pods behind the service pair.
func pairPod(name, node string) string {
	return strings.Replace(podYAML(name, node, helloImage, `args: [serve, "8080"]`), "{app: "+name+"}", `{app: `+name+`, pair: "yes"}`, 1)
}

// TestNodeCutOff takes a node off the network. It is NotReady after the grace,
// its pods get no traffic of services; they run on, and are the same when the
// node is back.
func TestNodeCutOff(t *testing.T) {
	breaks(t)
	ns := namespace(t)
	apply(t, ns, pairYAML+pairPod("one", "n1")+pairPod("two", "n2")+podYAML("client", "n1", helloImage, "args: [sleep]"))
	awaitReady(t, ns, "one", "two", "client")
	awaitAnswers(t, ns, "one", "two")
	before := processes(t, "n2", "serve 8080")
	two := awaitPod(t, ns, "two", patience, func(*corev1.Pod) error { return nil })
	begun := time.Now()
	if err := suite.Cut(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, nodeGrace+patience, func() error {
		c, err := nodeReady(t.Context(), t, "n2")
		if err == nil && c.Status == corev1.ConditionTrue {
			err = fmt.Errorf("n2 is Ready: %s", c.Message)
		}
		return err
	})
	took := time.Since(begun)
	t.Logf("n2 NotReady %v after the cut, with a grace of %v", took.Round(time.Millisecond), nodeGrace)
	if took < nodeGrace/2 {
		t.Errorf("that was before its grace was over")
	}
	if c, err := nodeReady(t.Context(), t, "n2"); err != nil || c.Status != corev1.ConditionUnknown || c.Reason != "NodeStatusUnknown" {
		t.Errorf("%v: %+v", err, c)
	}
	if out := wherry(t, "get", "node", "n2"); !strings.Contains(out, " NotReady ") {
		t.Errorf("get node: %s", out)
	}
	awaitPod(t, ns, "two", patience, func(p *corev1.Pod) error {
		if c := condition(p, corev1.PodReady); c.Status != corev1.ConditionFalse {
			return fmt.Errorf("pod two's Ready is %+v", c)
		}
		return nil
	})
	awaitEndpoints(t, ns, "pair", "one")
	awaitAnswers(t, ns, "one")
	// None of it goes to the pod that cannot be reached, once n1's rules follow.
	answersAlways(t, ns, "client", 20, "http://pair/hostname", func(page string) bool { return page == "one\n" })
	eventually(t, func() error { // it may have been late
		c, err := nodeReady(t.Context(), t, "n1")
		if err == nil && c.Status != corev1.ConditionTrue {
			err = fmt.Errorf("n1: %+v", c)
		}
		return err
	})
	begun = time.Now()
	if err := suite.Heal(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	if err := suite.AwaitNodes(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	t.Logf("Ready %v after it was healed", time.Since(begun).Round(time.Millisecond))
	awaitReady(t, ns, "two")
	awaitEndpoints(t, ns, "pair", "one", "two")
	awaitAnswers(t, ns, "one", "two")
	if now := processes(t, "n2", "serve 8080"); !maps.Equal(before, now) {
		t.Errorf("the container's process was %v, is %v", before, now)
	}
	again := awaitPod(t, ns, "two", patience, func(*corev1.Pod) error { return nil })
	if again.UID != two.UID || status(again).RestartCount != 0 || again.Status.PodIP != two.Status.PodIP {
		t.Errorf("pod two was %+v, is %+v", two.Status, again.Status)
	}
}

// TestNodeCutOffFromLeader leaves a node the followers only: it stays Ready, and
// its pods come and go, through them.
func TestNodeCutOffFromLeader(t *testing.T) {
	breaks(t)
	ns := namespace(t)
	// Nothing was tested if another leads at the end, as may happen on a busy
	// machine.
	for try := range 10 {
		if first := leader(t); throughFollowers(t, ns, fmt.Sprint("try", try), first) {
			return
		}
	}
	t.Fatal("the leaders change all the time")
}

// throughFollowers lets pods of a node that does not reach the leader come and
// go for a while. It reports whether the leader has stayed the same.
func throughFollowers(t *testing.T, ns, prefix, first string) bool {
	t.Helper()
	address := "10.99.1." + strings.TrimPrefix(first, "c")
	route := func(ctx context.Context, what string) error {
		out, err := suite.Exec(ctx, "n1", "ip", "route", what, "blackhole", address)
		if err != nil {
			return fmt.Errorf("%w %s", err, out)
		}
		return nil
	}
	if err := route(t.Context(), "add"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := route(context.Background(), "del"); err != nil {
			t.Error(err)
		}
	}()
	begun, n := time.Now(), 0
	for ; time.Since(begun) < 2*nodeGrace; n++ {
		name := fmt.Sprintf("%s-p%d", prefix, n)
		apply(t, ns, podYAML(name, "n1", busyboxImage, waits(name+"-"+ns, 0), "spec.restartPolicy: Never"))
		awaitReady(t, ns, name)
		if c, err := nodeReady(t.Context(), t, "n1"); err != nil || c.Status != corev1.ConditionTrue {
			if leader(t) != first {
				return false
			}
			t.Fatalf("n1, %v after it lost the leader: %v %+v", time.Since(begun), err, c)
		}
		end(t, "n1", name+"-"+ns)
		awaitPod(t, ns, name, patience, func(p *corev1.Pod) error {
			if p.Status.Phase != corev1.PodSucceeded {
				return fmt.Errorf("pod %s is %s", name, p.Status.Phase)
			}
			return nil
		})
	}
	t.Logf("%d pods came and went through the followers", n)
	return leader(t) == first
}

// awaitEndpoints waits until exactly these pods are a service's ready endpoints.
func awaitEndpoints(t *testing.T, ns, service string, want ...string) {
	t.Helper()
	eventually(t, func() error {
		list, err := kube(t, "").DiscoveryV1().EndpointSlices(ns).List(t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
		if err != nil {
			return err
		}
		ready := map[string]bool{}
		for _, s := range list.Items {
			for _, e := range s.Endpoints {
				if e.Conditions.Ready != nil && *e.Conditions.Ready && e.TargetRef != nil {
					ready[e.TargetRef.Name] = true
				}
			}
		}
		for _, w := range want {
			if !ready[w] {
				return fmt.Errorf("ready endpoints are %v, want %v", ready, want)
			}
		}
		if len(ready) != len(want) {
			return fmt.Errorf("ready endpoints are %v, want %v", ready, want)
		}
		return nil
	})
}

// awaitAnswers fetches by the service pair's name from the pod client until all
// of these pods have answered.
func awaitAnswers(t *testing.T, ns string, want ...string) {
	t.Helper()
	answered := map[string]bool{}
	eventually(t, func() error {
		out, err := tryWherry(t, "", "-n", ns, "exec", "client", "--", "/hello", "fetch", "http://pair."+ns+"/hostname")
		if err != nil {
			return err
		}
		answered[strings.TrimSpace(out)] = true
		for _, w := range want {
			if !answered[w] {
				return fmt.Errorf("answered have %v, want %v", answered, want)
			}
		}
		return nil
	})
}

// TestNodePowerCut pulls the plug of a node and puts it back: its pods start
// anew, as the same pods.
func TestNodePowerCut(t *testing.T) {
	breaks(t)
	ns := namespace(t)
	apply(t, ns, pairYAML+pairPod("one", "n1")+pairPod("two", "n2")+podYAML("client", "n1", helloImage, "args: [sleep]")+
		podYAML("once", "n2", busyboxImage, "command: [sleep, '1000']", "spec.restartPolicy: Never"))
	awaitReady(t, ns, "one", "two", "client", "once")
	two := awaitPod(t, ns, "two", patience, func(*corev1.Pod) error { return nil })
	if err := suite.PowerOff(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	awaitAnswers(t, ns, "one")
	begun := time.Now()
	if err := suite.PowerOn(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	awaitPod(t, ns, "two", patience, func(p *corev1.Pod) error {
		if s := status(p); p.UID != two.UID || s.RestartCount != 1 || !s.Ready {
			return fmt.Errorf("pod two: %+v", s)
		}
		return nil
	})
	t.Logf("pod two runs again %v after power-on", time.Since(begun).Round(time.Millisecond))
	awaitPod(t, ns, "once", patience, func(p *corev1.Pod) error {
		if s := status(p).State.Terminated; p.Status.Phase != corev1.PodFailed || s == nil || s.ExitCode == 0 {
			return fmt.Errorf("pod once is %s: %+v", p.Status.Phase, status(p))
		}
		return nil
	})
	awaitAnswers(t, ns, "one", "two")
}

// TestColdStart pulls the plug of every machine at once. When they are powered
// on again everything returns by itself, and nothing is lost.
func TestColdStart(t *testing.T) {
	breaks(t)
	ns := namespace(t)
	apply(t, ns, webYAML+"---"+pairYAML+pairPod("one", "n1")+pairPod("two", "n2")+podYAML("client", "n1", helloImage, "args: [sleep]"))
	wherry(t, "-n", ns, "rollout", "status", "deployment", "web", "--timeout=120s")
	awaitReady(t, ns, "one", "two", "client")
	before := wherry(t, "-n", ns, "get", "pods,services,configmaps,deployments", "-o", `jsonpath={range .items[*]}{.metadata.uid} {.kind}/{.metadata.name}{"\n"}{end}`)
	all := append(append([]string{}, nodes...), controls...)
	for _, h := range all {
		if err := suite.PowerOff(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	for _, h := range all { // the nodes first: they find nobody
		if err := suite.PowerOn(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	says(t, "n1", "get", "nodes", "--request-timeout=30s") // PowerOn does not wait for those it starts
	t.Logf("the API answers %v after power-on", time.Since(begun).Round(time.Millisecond))
	if err := suite.AwaitNodes(t.Context(), nodes...); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, ns, "one", "two", "client")
	awaitAnswers(t, ns, "one", "two")
	wherry(t, "-n", ns, "rollout", "status", "deployment", "web", "--timeout=120s")
	t.Logf("all pods are Ready and served %v after power-on", time.Since(begun).Round(time.Millisecond))
	after := wherry(t, "-n", ns, "get", "pods,services,configmaps,deployments", "-o", `jsonpath={range .items[*]}{.metadata.uid} {.kind}/{.metadata.name}{"\n"}{end}`)
	if before != after {
		t.Errorf("there was\n%s\nthere is\n%s", before, after)
	}
}

// TestWithoutControls has no control plane at all, and a node that is powered
// off and on meanwhile: pods, names and services go on without it.
func TestWithoutControls(t *testing.T) {
	breaks(t)
	ns := namespace(t)
	apply(t, ns, pairYAML+pairPod("one", "n1")+pairPod("two", "n2")+
		podYAML("asks", "n1", helloImage, "args: [ask, http://pair/hostname]")+podYAML("ends", "n1", busyboxImage, waits("ends-"+ns, 3)))
	awaitReady(t, ns, "one", "two", "asks", "ends")
	t.Log(wherry(t, "-n", ns, "get", "pods", "-o", "wide"))
	for _, c := range controls {
		if err := suite.PowerOff(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, err := suite.Exec(context.Background(), "n1", "sh", "-c", "ps -ef; ip route; ls -l /var/lib/wherry/noded/checkpoint; date; tail /var/log/pods/"+ns+"_*/*/*")
			t.Logf("n1: %v\n%s", err, out)
		}
	})
	end(t, "n1", "ends-"+ns)
	eventually(t, func() error {
		if now := processes(t, "n1", "ends-"+ns); len(now) != 1 {
			return fmt.Errorf("the container was not restarted: %v", now)
		}
		return nil
	})
	eventually(t, func() error { // n1 knows both ends of the service
		answered, err := suite.Exec(t.Context(), "n1", "sh", "-c", "cat /var/log/pods/"+ns+"_asks_*/main/0.log")
		if err != nil || !strings.Contains(answered, "one\n") || !strings.Contains(answered, "two\n") {
			return fmt.Errorf("the pod's log is %v %q", err, answered)
		}
		return nil
	})
	time.Sleep(3 * time.Second) // noded saves what it must know once a second
	if err := suite.PowerOff(t.Context(), "n1"); err != nil {
		t.Fatal(err)
	}
	if err := suite.PowerOn(t.Context(), "n1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		answered, err := suite.Exec(t.Context(), "n1", "sh", "-c", "cat /var/log/pods/"+ns+"_asks_*/main/1.log")
		if err != nil || !strings.Contains(answered, "one\n") || !strings.Contains(answered, "two\n") {
			return fmt.Errorf("after a reboot without controls the pod's log is %v %q", err, answered)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	if err := mend(ctx); err != nil {
		t.Fatal(err)
	}
	awaitPod(t, ns, "ends", patience, func(p *corev1.Pod) error {
		if s := status(p); s.RestartCount < 1 || s.State.Running == nil {
			return fmt.Errorf("pod ends: %+v", s)
		}
		return nil
	})
	awaitReady(t, ns, "one", "two", "asks")
}
