package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/testbed"
	"github.com/wherry-project/wherry/internal/testkit"
)

// TestKubectlCommands runs each command of kubectl that there is, as somebody
// would type it in a shell, with the embedded kubectl; those that use a protocol
// of their own also with the machine's, if it has one. The commands go to each
// control in turn. The groups are independent of one another.
func TestKubectlCommands(t *testing.T) {
	stock := hasKubectl(t)
	groups := []struct {
		name string
		both bool
		run  func(k *typist)
	}{
		{"discover", true, discovers}, {"get", true, gets}, {"create", false, creates}, {"change", false, changes},
		{"delete", false, removes}, {"rollout", false, rollouts}, {"logs", true, logs}, {"exec", true, execs}, {"copy", false, copies},
		{"forward", true, forwards}, {"proxy", false, proxies}, {"debug", false, debugs}, {"nodes", false, tendsNodes}, {"top", true, tops},
		{"auth", false, authorizes}, {"local", false, locals}, {"run", false, runs}, {"resize", false, resizes}, {"certificate", false, certifies},
	}
	n := 0
	for _, g := range groups {
		for _, program := range []string{"wherry", "kubectl"} {
			if program == "kubectl" && (!g.both || !stock) {
				continue
			}
			control := controls[n%len(controls)]
			n++
			t.Run(g.name+"-"+program, func(t *testing.T) {
				t.Parallel()
				ns := namespace(t)
				g.run(&typist{t: t, ns: ns, dir: "/run/" + ns, program: program, control: control})
			})
		}
	}
}

// hasKubectl reports whether the machine has a kubectl of its own. In CI it
// must.
func hasKubectl(t *testing.T) bool {
	_, err := on(t.Context(), testbed.Client, "", "sh", "-c", "command -v kubectl")
	return err == nil
}

// typist types commands into a shell of the client host, in a folder of its
// own. In what it types $K is the program with server and namespace, $N the
// namespace.
type typist struct {
	t                         testing.TB
	ns, dir, program, control string
}

// types runs a script and gives what it printed, on both streams, and its exit
// code.
func (k *typist) types(script string) (out string, code int) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 5*time.Minute)
	defer cancel()
	head := fmt.Sprintf("N=%s; K='%s --server https://%s:6443 -n '$N; mkdir -p %s && cd %s || exit 99; exec 2>&1; ", k.ns, k.program, k.control, k.dir, k.dir)
	// timeout ends all that the shell has started.
	out, err := on(ctx, testbed.Client, "", "timeout", "-k", "1", "240", "bash", "-c", head+script)
	if exit := (*testbed.ExitError)(nil); errors.As(err, &exit) {
		return out, exit.Code
	}
	if err != nil {
		k.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out, 0
}

// does runs a script that must succeed, and looks for each text in what it
// prints; one that begins with ! must not be there.
func (k *typist) does(script string, want ...string) string {
	k.t.Helper()
	out, code := k.types(script)
	k.check(script, out, code, 0, want)
	return out
}

// fails runs a script that must end with an exit code.
func (k *typist) fails(code int, script string, want ...string) {
	k.t.Helper()
	out, got := k.types(script)
	k.check(script, out, got, code, want)
}

func (k *typist) check(script, out string, code, want int, texts []string) {
	k.t.Helper()
	if code != want {
		k.t.Errorf("%s\nended with %d, want %d:\n%s", script, code, want, out)
		return
	}
	for _, w := range texts {
		if no, found := strings.CutPrefix(w, "!"); found == strings.Contains(out, no) {
			k.t.Errorf("%s\nprinted\n%s\nand that is not %q", script, out, w)
		}
	}
}

// is runs a script that must print exactly this, but for space around it.
func (k *typist) is(script, want string) {
	k.t.Helper()
	if got := strings.TrimSpace(k.does(script)); got != want {
		k.t.Errorf("%s\nprinted %q, want %q", script, got, want)
	}
}

// until repeats a script until it succeeds and prints all these texts: for what
// a controller or a node does a moment later.
func (k *typist) until(script string, want ...string) {
	k.t.Helper()
	testkit.Eventually(k.t, 2*patience, func() error {
		out, code := k.types(script)
		for _, w := range want {
			if code != 0 || !strings.Contains(out, w) {
				return fmt.Errorf("%s\nends with %d and prints\n%s\nwithout %q", script, code, out, w)
			}
		}
		return nil
	})
}

// has writes a file into the typist's folder.
func (k *typist) has(name, text string) {
	k.t.Helper()
	if err := suite.WriteFile(testbed.Client, k.dir+"/"+name, []byte(text), 0o644); err != nil {
		k.types("true") // makes the folder
		if err := suite.WriteFile(testbed.Client, k.dir+"/"+name, []byte(text), 0o644); err != nil {
			k.t.Fatal(err)
		}
	}
}

// sleeper is a pod that waits; command is what it does before.
func sleeper(name, labels, command string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {%s}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: %s
    command: [sh, -c, "%s; trap exit TERM; sleep 3600 & wait"]
    resources: {requests: {cpu: 1m, memory: 8Mi}, limits: {memory: 64Mi}}
---
`, name, labels, busyboxImage, command)
}

// deployment is one of the hello image.
func deployment(name string, replicas int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: %[3]s, ports: [{name: http, containerPort: 8080}], readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1, timeoutSeconds: 10}}
---
`, name, replicas, helloImage)
}
