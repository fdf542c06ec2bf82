package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const chaosYAML = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists, effect: NoExecute}]
      containers:
      - name: web
        image: ` + helloImage + `
        args: [serve, "8080", chaos]
        env: [{name: ROUND, value: "0"}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
`

// TestChaos breaks things at random beside writes, updates and scaling. When
// all is mended, what was acknowledged is there, what should run runs, and
// nothing else does. $WHERRY_E2E_CHAOS says for how long, and $WHERRY_E2E_SEED
// repeats a run as far as such runs can be repeated.
func TestChaos(t *testing.T) {
	breaks(t)
	length, err := time.ParseDuration(os.Getenv("WHERRY_E2E_CHAOS"))
	if err != nil {
		length = 15 * time.Second
	}
	seed, err := strconv.ParseUint(os.Getenv("WHERRY_E2E_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	ns := namespace(t)
	apply(t, ns, chaosYAML+podYAML("near", "n1", helloImage, "args: [sleep]")+podYAML("far", "n2", helloImage, "args: [sleep]"))
	wherry(t, "-n", ns, "rollout", "status", "deployment", "web", "--timeout=120s")
	w := startWriter(t, ns)
	replicas := 4
	for until := time.Now().Add(length); time.Now().Before(until); {
		fault := chaos(t.Context(), r)
		t.Logf("%s, %d writes so far", fault, w.count.Load())
		switch r.IntN(3) {
		case 0:
			n := r.IntN(8)
			if _, err := kubectlSoon("-n", ns, "scale", "deployment", "web", "--replicas="+strconv.Itoa(n)); err == nil {
				replicas = n
			}
		case 1:
			_, _ = kubectlSoon("-n", ns, "set", "env", "deployment/web", "ROUND="+strconv.Itoa(r.Int()))
		}
		time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
		if r.IntN(3) == 0 {
			begun := time.Now()
			if err := mendSoon(); err != nil {
				t.Fatalf("mend: %v", err)
			}
			took := time.Since(begun)
			more(t, w, 1)
			t.Logf("mended in %v, next write after %v", took.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
		}
	}
	if err := mendSoon(); err != nil {
		t.Fatalf("mend: %v", err)
	}
	w.end()
	t.Logf("%d writes acknowledged, %d not, longest pause %v", len(w.acked), len(w.errs), w.worst.Round(time.Millisecond))
	w.check(t)
	if got := says(t, "", "-n", ns, "get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"); got != strconv.Itoa(replicas) {
		t.Logf("the last acknowledged scale was to %d, and it is %s: one without an answer was done", replicas, got)
		replicas, _ = strconv.Atoi(got)
	}
	says(t, "scaled", "-n", ns, "scale", "deployment", "web", "--replicas=4")
	wherry(t, "-n", ns, "rollout", "status", "deployment", "web", "--timeout=120s")
	awaitReady(t, ns, "near", "far")
	settled(t, ns, 4)
	// The nodes' rules follow the endpoints: then all of them answer.
	for _, client := range []string{"near", "far"} {
		answersAlways(t, ns, client, 8, "http://web/hostname", func(string) bool { return true })
	}
}

// chaos does one thing that breaks something, and says what.
func chaos(ctx context.Context, r *rand.Rand) string {
	all := append(append([]string{}, controls...), nodes...)
	host := all[r.IntN(len(all))]
	var what string
	var err error
	switch r.IntN(6) {
	case 0, 1:
		what = "kill the daemon of " + host
		err = suite.Kill(ctx, host, "")
	case 2:
		what = "stop the daemon of " + host
		err = suite.Stop(ctx, host, "")
	case 3:
		what = "cut " + host
		err = suite.Cut(ctx, host)
	case 4:
		what = "power-off " + host
		err = suite.PowerOff(ctx, host)
	case 5:
		what = "restart " + host
		err = errors.Join(suite.PowerOff(ctx, host), suite.PowerOn(ctx, host))
	}
	if err != nil {
		what += " (" + err.Error() + ")"
	}
	return what
}

func kubectlSoon(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	return on(ctx, "client", "", append([]string{"wherry", "--request-timeout=3s"}, args...)...)
}

func mendSoon() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	return mend(ctx)
}

// settled waits until what runs on the nodes is exactly what the API says.
func settled(t *testing.T, ns string, replicas int) {
	t.Helper()
	eventually(t, func() error {
		pods, err := kube(t, "").CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		want, web := map[string]int{}, map[string]int{}
		for _, p := range pods.Items {
			if p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed {
				return fmt.Errorf("pod %s is %s and being deleted: %v", p.Name, p.Status.Phase, p.DeletionTimestamp)
			}
			want[p.Spec.NodeName]++
			if p.Namespace == ns && p.Labels["app"] == "web" {
				web[p.Spec.NodeName]++
			}
		}
		if web["n1"]+web["n2"] != replicas {
			return fmt.Errorf("pods of web: %v", web)
		}
		for _, node := range nodes {
			if got := processes(t, node, "serve 8080 chaos"); len(got) != web[node] {
				return fmt.Errorf("%d containers of web run on %s, %d should", len(got), node, web[node])
			}
			if err := onlyThese(t, node, want[node]); err != nil {
				return err
			}
		}
		return nil
	})
	awaitEndpointCount(t, ns, "web", replicas)
}

// onlyThese looks for what pods that are gone have left on a node.
func onlyThese(t *testing.T, node string, pods int) error {
	t.Helper()
	for what, command := range map[string]string{
		"shims":             `grep -lz ^podshim /proc/[0-9]*/cmdline 2>/dev/null | wc -l`,
		"links":             `ls /sys/class/net | grep -c ^whp`,
		"pinned namespaces": `ls /run/wherry/netns | wc -l`,
		"mounts":            `grep -c ' /run/wherry/pods/' /proc/self/mountinfo`,
		"run folders":       `ls -d /run/wherry/pods/*-*-*-*-* 2>/dev/null | wc -l`,
		"pods' folders":     `ls /var/lib/wherry/noded/pods | wc -l`,
		"runtime's folders": `ls -d /var/lib/wherry/noded/runtime/*-*-*-*-* 2>/dev/null | wc -l`,
		"log folders":       `ls /var/log/pods | wc -l`,
		"cgroups":           `find /sys/fs/cgroup -path '*/wherry-pods/*' -name 'pod*-*-*-*-*' -type d -printf '%f\n' | sort -u | wc -l`,
	} {
		out, err := suite.Exec(t.Context(), node, "sh", "-c", command+"; true")
		if err != nil {
			return err
		}
		want := strconv.Itoa(pods)
		if got := strings.TrimSpace(out); got != want {
			return fmt.Errorf("%s: %s %s, with %s pods", node, got, what, want)
		}
	}
	return nil
}

// answersAlways waits until a page, fetched some times in a row from a pod, is
// good each time. A fetch has two seconds: it may not meet a pod that is gone.
func answersAlways(t *testing.T, ns, client string, times int, url string, good func(page string) bool) {
	t.Helper()
	eventually(t, func() error {
		for n := range times {
			page, err := tryWherry(t, "", "-n", ns, "exec", client, "--", "/hello", "fetch", url, "2s")
			if err != nil || !good(page) {
				return fmt.Errorf("fetch %d of %s from %s: %q, %w", n, url, client, page, err)
			}
		}
		return nil
	})
}

func awaitEndpointCount(t *testing.T, ns, service string, want int) {
	t.Helper()
	eventually(t, func() error {
		out, err := tryWherry(t, "", "-n", ns, "get", "endpointslices", "-l", "kubernetes.io/service-name="+service, "-o", `jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].targetRef.name}`)
		if err != nil {
			return err
		}
		if got := len(strings.Fields(out)); got != want {
			return fmt.Errorf("%d endpoints are ready, want %d: %s", got, want, out)
		}
		return nil
	})
}
