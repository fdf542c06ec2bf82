package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/wherry-project/wherry/internal/testbed"
)

const loadedYAML = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxUnavailable: 1, maxSurge: 1}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: ` + helloImage + `
        env: [{name: PAGE, value: one}, {name: LINGER, value: 5s}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, timeoutSeconds: 10}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
`

// TestRollingUpdate replaces all pods of a Deployment under a load through its
// Service, and back: no request fails.
func TestRollingUpdate(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, loadedYAML+podYAML("client", "", helloImage, "args: [sleep]"))
	wherry(t, "-n", ns, "rollout", "status", "deployment", "web", "--timeout=120s")
	awaitReady(t, ns, "client")
	load := start(t, "-n", ns, "exec", "client", "--", "/hello", "load", "http://web/", "5m")
	wherry(t, "-n", ns, "set", "env", "deployment/web", "PAGE=two")
	wherry(t, "-n", ns, "rollout", "status", "deployment", "web", "--timeout=120s")
	// Those that are to end may answer until the nodes have heard of it.
	says(t, "\ntwo\n", "-n", ns, "exec", "client", "--", "/hello", "fetch", "http://web/")
	if out := wherry(t, "-n", ns, "rollout", "history", "deployment", "web"); !regexp.MustCompile(`(?m)^2 `).MatchString(out) {
		t.Errorf("history: %s", out)
	}
	wherry(t, "-n", ns, "rollout", "undo", "deployment", "web")
	wherry(t, "-n", ns, "rollout", "status", "deployment", "web", "--timeout=120s")
	wherry(t, "-n", ns, "rollout", "restart", "deployment", "web")
	wherry(t, "-n", ns, "rollout", "status", "deployment", "web", "--timeout=120s")
	says(t, "\none\n", "-n", ns, "exec", "client", "--", "/hello", "fetch", "http://web/")
	inPod(t, ns, "end", "load")
	load.prints(t, " failures\n")
	m := regexp.MustCompile(`(\d+) answers, (\d+) failures\n`).FindStringSubmatch(load.out.String())
	if m == nil || m[2] != "0" {
		t.Errorf("the load had failures:\n%s", load.out.String())
	} else if n, _ := strconv.Atoi(m[1]); n < 100 {
		t.Errorf("the load was %s", m[0])
	}
	t.Logf("%s", load.out.String())
}

// TestStuckRollout stops at pods that cannot run, keeps the old ones, and says
// so when its time is over.
func TestStuckRollout(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, loadedYAML)
	wherry(t, "-n", ns, "rollout", "status", "deployment", "web", "--timeout=120s")
	deadline := func(seconds int) { // for what cannot be done only: the rest may take its time
		wherry(t, "-n", ns, "patch", "deployment", "web", "-p", fmt.Sprintf(`{"spec":{"progressDeadlineSeconds":%d}}`, seconds))
	}
	wherry(t, "-n", ns, "set", "image", "deployment/web", "web="+registryHost+"/none:1")
	deadline(3)
	refused(t, "", []string{"-n", ns, "rollout", "status", "deployment", "web", "--timeout=120s"}, `deployment "web" exceeded its progress deadline`)
	// The 3 that maxUnavailable leaves, and no fewer.
	wherry(t, "-n", ns, "wait", "--for=jsonpath={.status.availableReplicas}=3", "deployment", "web", "--timeout=60s")
	deadline(600)
	wherry(t, "-n", ns, "rollout", "undo", "deployment", "web")
	wherry(t, "-n", ns, "rollout", "status", "deployment", "web", "--timeout=120s")
}

// inPod runs the client pod's program.
func inPod(t *testing.T, ns string, args ...string) string {
	t.Helper()
	return wherry(t, append([]string{"-n", ns, "exec", "client", "--", "/hello"}, args...)...)
}

// TestServices are refused at once without endpoints, reached by name, address
// and node port's absence, from both nodes and by a pod from itself.
func TestServices(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, pairYAML+podYAML("client", "n1", helloImage, `args: [serve, "8080"]`)+`
apiVersion: v1
kind: Service
metadata: {name: self}
spec:
  selector: {app: client}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: other, port: 81, targetPort: 8081}]
`)
	awaitReady(t, ns, "client")
	took := regexp.MustCompile(`^refused after (\d+) ms\n$`)
	for _, at := range []string{"pair:80", "self:81"} {
		eventually(t, func() error { // a node hears of a service a moment later
			if out, err := tryWherry(t, "", "-n", ns, "exec", "client", "--", "/hello", "dial", at); err != nil || !took.MatchString(out) {
				return fmt.Errorf("%s, where nobody listens: %s, %w", at, out, err)
			}
			return nil
		})
	}
	if out := says(t, "client\n", "-n", ns, "exec", "client", "--", "/hello", "fetch", "http://self/hostname"); out != "client\n" {
		t.Errorf("a pod that reaches itself by its service: %q", out)
	}
	apply(t, ns, pairPod("one", "n1")+pairPod("two", "n2"))
	awaitReady(t, ns, "one", "two")
	awaitAnswers(t, ns, "one", "two")
	// The pods see each other's own addresses, through a service and without.
	own := wherry(t, "-n", ns, "get", "pod", "client", "-o", "jsonpath={.status.podIP}")
	for range 6 {
		if out := inPod(t, ns, "fetch", "http://pair/client"); !strings.HasPrefix(out, own+":") {
			t.Errorf("the service's pods see %q, the client is %s", out, own)
		}
	}
	// Machines reach pods and services too.
	ip := wherry(t, "-n", ns, "get", "service", "pair", "-o", "jsonpath={.spec.clusterIP}")
	for _, node := range nodes {
		out, err := on(t.Context(), node, "", "curl", "-sS", "-m", "30", "http://"+ip+"/hostname")
		if err != nil && strings.Contains(err.Error(), "not found") {
			t.Log("no curl on this machine")
			break
		}
		if err != nil || out != "one\n" && out != "two\n" {
			t.Errorf("from %s: %v %q", node, err, out)
		}
	}
	// The API itself is a service.
	if out := inPod(t, ns, "dial", "kubernetes.default:443"); !strings.HasPrefix(out, "connected") {
		t.Errorf("the API's service: %s", out)
	}
	wherry(t, "-n", ns, "delete", "pod", "one", "two", "--now")
	awaitEndpoints(t, ns, "pair")
	eventually(t, func() error {
		if out, err := tryWherry(t, "", "-n", ns, "exec", "client", "--", "/hello", "dial", "pair:80"); err != nil || !took.MatchString(out) {
			return fmt.Errorf("after its pods went: %s, %w", out, err)
		}
		return nil
	})
	wherry(t, "-n", ns, "delete", "service", "pair")
	eventually(t, func() error {
		out, err := tryWherry(t, "", "-n", ns, "exec", "client", "--", "/hello", "lookup", "pair", "A")
		var exit *testbed.ExitError
		if !errors.As(err, &exit) || !strings.Contains(exit.Stderr, "lookup pair") {
			return fmt.Errorf("the name of a deleted service: %s, %w", out, err)
		}
		return nil
	})
}

// TestNames asks for everything that has a name.
func TestNames(t *testing.T) {
	serveNames(t) // or a name that nobody has would be asked in vain
	ns := namespace(t)
	apply(t, ns, pairYAML+pairPod("one", "n1")+pairPod("two", "n2")+podYAML("client", "n2", helloImage, "args: [sleep]")+`
apiVersion: v1
kind: Service
metadata: {name: none}
spec:
  clusterIP: None
  selector: {pair: "yes"}
  ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: named}
spec:
  selector: {pair: "yes"}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: ExternalName, externalName: there.example.test}
---
`+podYAML("hosted", "n1", helloImage, "spec.hostname: db-0", "spec.subdomain: none", `args: [serve, "8080"]`))
	wherry(t, "-n", ns, "label", "pod", "hosted", "pair=yes")
	awaitReady(t, ns, "one", "two", "client", "hosted")
	awaitEndpoints(t, ns, "none", "one", "two", "hosted")
	ip := func(kind, name, path string) string {
		return wherry(t, "-n", ns, "get", kind, name, "-o", "jsonpath={"+path+"}")
	}
	one, two, hosted := ip("pod", "one", ".status.podIP"), ip("pod", "two", ".status.podIP"), ip("pod", "hosted", ".status.podIP")
	named := ip("service", "named", ".spec.clusterIP")
	dashed := strings.ReplaceAll(one, ".", "-")
	full := ns + ".svc.cluster.local"
	for _, c := range []struct {
		name, kind string
		want       []string
	}{
		{"named", "HOST", []string{named}},
		{"named." + ns, "HOST", []string{named}},
		{"named." + ns + ".svc", "HOST", []string{named}},
		{"named." + full, "A", []string{named}},
		{"named." + full + ".", "A", []string{named}},
		{"NAMED." + full, "A", []string{named}},
		{"none." + full, "A", []string{one, two, hosted}},
		{"db-0.none." + full, "A", []string{hosted}},
		{dashed + "." + ns + ".pod.cluster.local", "A", []string{one}},
		{"_http._tcp.named." + full, "SRV", []string{"0 100 80 named." + full + "."}},
		{named, "PTR", []string{"named." + full + "."}},
		{"kubernetes.default", "HOST", []string{"10.96.0.1"}},
		{"kube-dns.kube-system", "HOST", []string{"10.96.0.10"}},
		{"client", "HOST", []string{ip("pod", "client", ".status.podIP")}},
	} {
		want := slices.Sorted(slices.Values(c.want)) // lookup sorts too
		eventually(t, func() error {                 // a node hears of a name a moment later
			out, err := tryWherry(t, "", "-n", ns, "exec", "client", "--", "/hello", "lookup", c.name, c.kind)
			if got := strings.Split(strings.TrimSpace(out), "\n"); err != nil || !slices.Equal(got, want) {
				return fmt.Errorf("%s %s: %v, want %v: %w", c.kind, c.name, got, want, err)
			}
			return nil
		})
	}
	for _, name := range []string{"nobody", "nobody." + full, "db-1.none." + full, "named.elsewhere.svc.cluster.local"} {
		refused(t, "", []string{"-n", ns, "exec", "client", "--", "/hello", "lookup", name, "A"}, "no such host")
	}
}

// TestOtherNames are asked of the node's resolver.
func TestOtherNames(t *testing.T) {
	seen, stop := serveNames(t)
	ns := namespace(t)
	apply(t, ns, podYAML("client", "n2", helloImage, "args: [sleep]")+`
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: ExternalName, externalName: there.example.test}
`)
	awaitReady(t, ns, "client")
	if got := inPod(t, ns, "lookup", "there.example.test", "A"); got != "192.0.2.77\n" {
		t.Errorf("a name outside: %q", got)
	}
	says(t, "192.0.2.77\n", "-n", ns, "exec", "client", "--", "/hello", "lookup", "outside."+ns+".svc.cluster.local", "A")
	if got := inPod(t, ns, "lookup", "outside."+ns+".svc.cluster.local", "A"); got != "192.0.2.77\n" {
		t.Errorf("an external name: %q", got)
	}
	if got := inPod(t, ns, "lookup", "outside."+ns+".svc.cluster.local", "CNAME"); got != "there.example.test.\n" {
		t.Errorf("an external name's CNAME: %q", got)
	}
	refused(t, "", []string{"-n", ns, "exec", "client", "--", "/hello", "lookup", "nobody.example.test", "A"}, "no such host")
	stop()
	for _, name := range seen() {
		if strings.HasSuffix(name, "cluster.local.") {
			t.Errorf("the cluster's own name %s went outside", name)
		}
	}
	if len(seen()) == 0 {
		t.Error("the resolver was not asked")
	}
}

// serveNames is a resolver on the client host that knows there.example.test.
func serveNames(t *testing.T) (seen func() []string, stop func()) {
	t.Helper()
	conn, err := suite.ListenPacket(t.Context(), testbed.Client, "udp", upstream)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			name, answer := answerName(b[:n])
			names = append(names, name)
			_, _ = conn.WriteTo(answer, from)
		}
	}()
	stop = func() { conn.Close(); <-done }
	t.Cleanup(stop)
	return func() []string { return names }, stop
}

// answerName answers a query: an address for there.example.test, nothing for
// its other types, NXDOMAIN for other names.
func answerName(query []byte) (name string, answer []byte) {
	end := 12
	for end < len(query) && query[end] != 0 {
		l := int(query[end])
		name += string(query[end+1:min(end+1+l, len(query))]) + "."
		end += 1 + l
	}
	if end+5 > len(query) {
		return name, nil
	}
	kind := binary.BigEndian.Uint16(query[end+1:])
	answer = append([]byte{}, query[:end+5]...)
	flags, answers := uint16(0x8180), uint16(0)
	there := strings.EqualFold(name, "there.example.test.")
	if !there {
		flags |= 3
	} else if kind == 1 {
		answers = 1
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4)
		answer = append(answer, net.IPv4(192, 0, 2, 77).To4()...)
	}
	binary.BigEndian.PutUint16(answer[2:], flags)
	binary.BigEndian.PutUint16(answer[4:], 1)
	binary.BigEndian.PutUint16(answer[6:], answers)
	binary.BigEndian.PutUint16(answer[8:], 0)
	binary.BigEndian.PutUint16(answer[10:], 0)
	return name, answer
}

// TestProbes restart a container that is not alive, and keep traffic from one
// that is not ready.
func TestProbes(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, podYAML("lives", "n1", busyboxImage, "command: [sleep, '1000']",
		"livenessProbe: {exec: {command: [sh, -c, '! [ -e /tmp/ill ]']}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 2}")+
		podYAML("ready", "n2", busyboxImage, "command: [sleep, '1000']",
			"readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1, timeoutSeconds: 30}")+`
apiVersion: v1
kind: Service
metadata: {name: ready}
spec:
  selector: {app: ready}
  ports: [{port: 80}]
`)
	awaitReady(t, ns, "lives")
	awaitEndpoints(t, ns, "ready")
	eventually(t, func() error { // before it is made ready
		events, err := tryWherry(t, "", "-n", ns, "get", "events")
		if err == nil && !strings.Contains(events, "Readiness probe failed") {
			err = fmt.Errorf("no event says that a readiness probe failed:\n%s", events)
		}
		return err
	})
	wherry(t, "-n", ns, "exec", "ready", "--", "touch", "/tmp/ready")
	awaitReady(t, ns, "ready")
	awaitEndpoints(t, ns, "ready", "ready")
	wherry(t, "-n", ns, "exec", "lives", "--", "touch", "/tmp/ill")
	wherry(t, "-n", ns, "wait", "pod/lives", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "--timeout=120s")
	awaitReady(t, ns, "lives")
	for _, want := range []string{"Unhealthy", "Liveness probe failed", "Readiness probe failed", "Killing"} {
		says(t, want, "-n", ns, "get", "events")
	}
}
