package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/wherry-project/wherry/internal/testkit"
)

const webYAML = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: ` + helloImage + `
        ports: [{name: http, containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data: {colour: red}
`

// TestKubectl runs kubectl's commands against each control in turn.
func TestKubectl(t *testing.T) {
	for _, control := range controls {
		t.Run(control, func(t *testing.T) {
			ns := namespace(t)
			k := kubectl{t: t, to: []string{"--server", "https://" + control + ":6443", "-n", ns}}
			k.applies()
			k.shows()
			k.scales()
			k.reads()
			k.watches()
			k.deletes()
		})
	}
}

// kubectl speaks to one control, about one namespace.
type kubectl struct {
	t  *testing.T
	to []string
}

func (k kubectl) do(args ...string) string {
	k.t.Helper()
	return wherry(k.t, append(k.to[:len(k.to):len(k.to)], args...)...)
}

// prints runs a command and looks for each text in what it prints.
func (k kubectl) prints(args string, want ...string) {
	k.t.Helper()
	out := k.do(strings.Fields(args)...)
	for _, w := range want {
		if !strings.Contains(out, w) {
			k.t.Errorf("%s printed\n%s\nwithout %q", args, out, w)
		}
	}
}

// comes is prints for what is there a moment later.
func (k kubectl) comes(args string, want ...string) {
	k.t.Helper()
	eventually(k.t, func() error {
		out, err := k.input("", strings.Fields(args)...)
		for _, w := range want {
			if err != nil || !strings.Contains(out, w) {
				return fmt.Errorf("%s printed\n%s\nwithout %q: %w", args, out, w, err)
			}
		}
		return nil
	})
}

// table runs a get and checks the columns, as they are told apart by spaces.
func (k kubectl) table(args, columns string) [][]string {
	k.t.Helper()
	lines := strings.Split(strings.TrimSpace(k.do(strings.Fields(args)...)), "\n")
	if got := strings.Join(strings.Fields(lines[0]), " "); got != columns {
		k.t.Errorf("%s has columns\n%s\nwant\n%s", args, got, columns)
	}
	var rows [][]string
	for _, l := range lines[1:] {
		rows = append(rows, strings.Fields(l))
	}
	return rows
}

func (k kubectl) input(stdin string, args ...string) (string, error) {
	return tryWherry(k.t, stdin, append(k.to[:len(k.to):len(k.to)], args...)...)
}

func (k kubectl) applies() {
	k.t.Helper()
	out, err := k.input(webYAML, "apply", "-f", "-")
	if want := "deployment.apps/web created\nservice/web created\nconfigmap/web created\n"; err != nil || out != want {
		k.t.Fatalf("apply: %v\n%s\nwant\n%s", err, out, want)
	}
	out, err = k.input(webYAML, "apply", "-f", "-")
	if want := "deployment.apps/web unchanged\nservice/web unchanged\nconfigmap/web unchanged\n"; err != nil || out != want {
		k.t.Errorf("second apply: %v\n%s\nwant\n%s", err, out, want)
	}
	if out, err := k.input(webYAML, "diff", "-f", "-"); err != nil || out != "" {
		k.t.Errorf("diff of what is so already: %v\n%s", err, out)
	}
	blue := strings.Replace(webYAML, "colour: red", "colour: blue", 1)
	if out, err := k.input(blue, "diff", "-f", "-"); err == nil || !strings.Contains(out, "-  colour: red\n+  colour: blue\n") {
		k.t.Errorf("diff of a change: %v\n%s", err, out)
	}
	out, err = k.input(blue, "apply", "--server-side", "--force-conflicts", "-f", "-")
	if want := "configmap/web serverside-applied\n"; err != nil || !strings.HasSuffix(out, want) {
		k.t.Errorf("apply --server-side: %v\n%s\nwant\n%s", err, out, want)
	}
	if got := k.do("get", "configmap", "web", "-o", "jsonpath={.data.colour}"); got != "blue" {
		k.t.Errorf("the colour is %q", got)
	}
	k.do("rollout", "status", "deployment", "web", "--timeout=120s")
	k.do("wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=120s")
}

func (k kubectl) shows() {
	k.t.Helper()
	rows := k.table("get nodes -o wide", "NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME")
	for i, node := range nodes {
		if len(rows) != len(nodes) || rows[i][0] != node || rows[i][1] != "Ready" || !strings.HasPrefix(rows[i][5], "10.99.2.") {
			k.t.Fatalf("nodes are %v", rows)
		}
	}
	rows = k.table("get pods -o wide", "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES")
	on := map[string]int{}
	for _, r := range rows {
		if on[r[6]]++; r[1] != "1/1" || r[2] != "Running" || !strings.HasPrefix(r[5], "10.244.") {
			k.t.Errorf("pod %v", r)
		}
	}
	if len(rows) != 2 || on["n1"] != 1 || on["n2"] != 1 {
		k.t.Errorf("pods are %v, not one on each node", rows)
	}
	rows = k.table("get deployments -o wide", "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR")
	if len(rows) != 1 || fmt.Sprint(rows[0][:4]) != "[web 2/2 2 2]" || fmt.Sprint(rows[0][5:]) != "[web "+helloImage+" app=web]" {
		k.t.Errorf("deployments are %v", rows)
	}
	rows = k.table("get rs -o wide", "NAME DESIRED CURRENT READY AGE CONTAINERS IMAGES SELECTOR")
	if len(rows) != 1 || fmt.Sprint(rows[0][1:4]) != "[2 2 2]" || !strings.HasPrefix(rows[0][7], "app=web,pod-template-hash=") {
		k.t.Errorf("replica sets are %v", rows)
	}
	rows = k.table("get svc -o wide", "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR")
	if len(rows) != 1 || rows[0][1] != "ClusterIP" || !strings.HasPrefix(rows[0][2], "10.96.") || rows[0][4] != "80/TCP" {
		k.t.Errorf("services are %v", rows)
	}
	k.prints("get pods,deploy,rs,svc -o wide", "pod/web-", "deployment.apps/web", "replicaset.apps/web-", "service/web")
	k.prints("get all", "pod/web-", "deployment.apps/web", "replicaset.apps/web-", "service/web")
	k.prints("get deployment web -o yaml", "kind: Deployment", "observedGeneration:", "type: Available")
	k.prints("get nodes,pods -A -o name", "node/n1", "pod/web-")
	k.prints("explain pod.spec.containers.image", "KIND:       Pod", "FIELD: image <string>", "Container image name")
	k.prints("api-resources", "deployments", "apps/v1")
	k.prints("version", "Wherry Version: ", "Server Version: v1.34.")
	k.prints("cluster-info", "is running at")
}

func (k kubectl) scales() {
	k.t.Helper()
	k.prints("scale deployment web --replicas=3", "deployment.apps/web scaled")
	k.do("rollout", "status", "deployment", "web", "--timeout=120s")
	if rows := k.table("get pods", "NAME READY STATUS RESTARTS AGE"); len(rows) != 3 {
		k.t.Errorf("scaled to 3, there are %v", rows)
	}
	refusal := []string{"scale", "deployment", "web", "--replicas=1", "--current-replicas=7"}
	if out, err := k.input("", refusal...); err == nil {
		k.t.Errorf("scaled from 7, of which there are 3: %s", out)
	}
	k.prints("scale deployment web --replicas=1", "scaled")
	k.do("wait", "--for=jsonpath={.status.replicas}=1", "deployment", "web", "--timeout=120s")
}

func (k kubectl) reads() {
	k.t.Helper()
	out, err := k.input(podYAML("count", "n1", busyboxImage, `command: [sh, -c, "for i in 1 2 3 4 5; do echo line $i; done; sleep 600"]`)+
		podYAML("again", "n2", busyboxImage, `command: [sh, -c, "echo run; [ -e /seen/x ] && sleep 600; touch /seen/x; exit 3"]`,
			"volumeMounts: [{name: seen, mountPath: /seen}]", "spec.volumes: [{name: seen, emptyDir: {}}]"), "apply", "-f", "-")
	if err != nil {
		k.t.Fatalf("%v\n%s", err, out)
	}
	k.do("wait", "--for=condition=Ready", "pod/count", "--timeout=120s")
	k.comes("logs count", "line 5\n") // Ready is not yet having said something
	if got := k.do("logs", "count"); got != "line 1\nline 2\nline 3\nline 4\nline 5\n" {
		k.t.Errorf("logs: %q", got)
	}
	if got := k.do("logs", "count", "--tail=2"); got != "line 4\nline 5\n" {
		k.t.Errorf("logs --tail=2: %q", got)
	}
	if got := k.do("logs", "count", "--limit-bytes=8"); got != "line 1\nl" {
		k.t.Errorf("logs --limit-bytes=8: %q", got)
	}
	if got := k.do("logs", "count", "--tail=1", "--timestamps"); !strings.HasSuffix(got, "Z line 5\n") {
		k.t.Errorf("logs --timestamps: %q", got)
	}
	follow := start(k.t, append([]string{"logs", "-f", "count", "--tail=1"}, k.to...)...)
	follow.prints(k.t, "line 5\n")
	k.do("exec", "count", "--", "sh", "-c", "echo line 6 >/proc/1/fd/1")
	follow.prints(k.t, "line 5\nline 6\n")
	k.prints("exec count -- hostname", "count\n")
	if out, err := k.input("to be read", "exec", "-i", "count", "--", "cat"); err != nil || out != "to be read" {
		k.t.Errorf("exec -i: %v, %q", err, out)
	}
	_, err = k.input("", "exec", "count", "--", "sh", "-c", "echo trouble >&2; exit 7")
	checkRefused(k.t, "", err, "trouble", "command terminated with exit code 7")
	k.do("wait", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "pod/again", "--timeout=120s")
	k.do("wait", "--for=condition=Ready", "pod/again", "--timeout=120s")
	if got := k.do("logs", "again", "--previous"); got != "run\n" {
		k.t.Errorf("logs --previous: %q", got)
	}
	k.prints("get pod again", "1/1", "Running", "1 (")
	k.comes("describe pod again", "Restart Count:  1", "Exit Code:    3", "Reason:       Error", "Events:", "Started")
	k.comes("describe deployment web", "Replicas:", "ScalingReplicaSet", "Scaled up replica set web-")
	k.comes("describe node n1", "Allocatable:", "PodCIDR:", "KubeletReady", "count")
	k.comes("describe service web", "Endpoints:", ":8080", "Port:")
	k.comes("get events", "Scheduled", "Started", "ScalingReplicaSet")
	k.prints("port-forward --help", "Forward one or more local ports")
}

func (k kubectl) watches() {
	k.t.Helper()
	w := start(k.t, append([]string{"get", "configmaps", "-w", "-o", "name"}, k.to...)...)
	w.prints(k.t, "configmap/web\n")
	k.do("create", "configmap", "seen", "--from-literal=a=b")
	w.prints(k.t, "configmap/seen\n")
	table := start(k.t, append([]string{"get", "pods", "-w"}, k.to...)...)
	table.prints(k.t, "count ")
	k.do("delete", "pod", "count", "--now")
	eventually(k.t, func() error {
		for line := range strings.Lines(table.out.String()) {
			if f := strings.Fields(line); len(f) > 3 && f[0] == "count" && f[2] != "Running" {
				return nil
			}
		}
		return fmt.Errorf("the watch has shown\n%s\nand no end of count", table.out.String())
	})
	if strings.Count(table.out.String(), "NAME ") != 1 {
		k.t.Errorf("the header is not there once:\n%s", table.out.String())
	}
}

func (k kubectl) deletes() {
	k.t.Helper()
	k.prints("label configmap web tier=front", "configmap/web labeled")
	k.prints("annotate configmap web note=seen", "configmap/web annotated")
	k.prints("get configmaps -l tier=front -o name", "configmap/web")
	k.prints("get pods --field-selector status.phase=Running -o name", "pod/again")
	if out, err := k.input("", "patch", "configmap", "web", "-p", `{"data":{"colour":"green"}}`); err != nil || !strings.Contains(out, "configmap/web patched") {
		k.t.Errorf("patch: %v %s", err, out)
	}
	out, err := k.input(webYAML, "delete", "-f", "-", "--timeout=120s")
	if err != nil || strings.Count(out, "deleted") != 3 {
		k.t.Errorf("delete -f: %v\n%s", err, out)
	}
	k.do("wait", "--for=delete", "pod", "-l", "app=web", "--timeout=120s")
	_, err = k.input("", "get", "deployment", "web")
	checkRefused(k.t, "", err, `Error from server (NotFound): deployments.apps "web" not found`)
	if out := k.do("get", "rs", "-o", "name"); out != "" {
		k.t.Errorf("replica sets outlive their deployment: %s", out)
	}
}

// TestPortForward carries a connection to a port of a pod.
func TestPortForward(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, podYAML("web", "n2", helloImage, "readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, timeoutSeconds: 10}"))
	awaitReady(t, ns, "web")
	b := start(t, "-n", ns, "port-forward", "pod/web", "18080:8080")
	b.prints(t, "Forwarding from 127.0.0.1:18080")
	conn, err := suite.Dial(t.Context(), "client", "tcp", "127.0.0.1:18080")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /hostname HTTP/1.0\r\n\r\n")
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(answer), "\r\nweb\n") {
		t.Errorf("%v: %q", err, answer)
	}
}

// TestCopy copies a file into a pod and out of it again, with tar in the pod.
func TestCopy(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, podYAML("box", "n1", busyboxImage, "command: [sleep, '600']"))
	awaitReady(t, ns, "box")
	text := strings.Repeat("0123456789abcdef\n", 50_000)
	if err := suite.WriteFile("client", "/run/copy", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	wherry(t, "-n", ns, "cp", "/run/copy", "box:/tmp/copy")
	wherry(t, "-n", ns, "cp", "box:/tmp/copy", "/run/copied")
	if got, err := suite.ReadFile("client", "/run/copied"); err != nil || string(got) != text {
		t.Errorf("%v, %d bytes, want %d", err, len(got), len(text))
	}
}

// TestStockKubectl looks at the cluster with the machine's own kubectl, if it
// has one that is new enough.
func TestStockKubectl(t *testing.T) {
	out, err := on(context.Background(), "client", "", "sh", "-c", "command -v kubectl && kubectl version")
	testkit.Needs(t, err == nil || os.Getenv("CI") != "", "there is no kubectl on this machine")
	if err != nil {
		t.Skip("there is no kubectl on this machine")
	}
	t.Log(out)
	if out, err := on(t.Context(), "client", "", "kubectl", "get", "nodes", "-o", "wide"); err != nil || !strings.Contains(out, "n2") {
		t.Errorf("%v\n%s", err, out)
	}
}
