package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/testbed"
	"github.com/wherry-project/wherry/internal/testkit"
)

const accountYAML = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: v1
kind: Pod
metadata: {name: inside, labels: {app: inside}}
spec:
  serviceAccountName: reader
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
  containers:
  - {name: main, image: "` + helloImage + `", command: [/hello, sleep]}
---
apiVersion: v1
kind: Pod
metadata: {name: bare}
spec:
  automountServiceAccountToken: false
  containers:
  - {name: main, image: "` + busyboxImage + `", command: [sleep, "3600"]}
---
apiVersion: v1
kind: Pod
metadata: {name: looks}
spec:
  volumes:
  - name: tokens
    projected:
      defaultMode: 0440
      sources:
      - serviceAccountToken: {path: vault, audience: vault.example.test, expirationSeconds: 600}
  containers:
  - name: main
    image: "` + busyboxImage + `"
    command: [sleep, "3600"]
    volumeMounts: [{name: tokens, mountPath: /tokens}]
`

// TestInCluster: a program in a pod finds the API by its name, is known by its
// token, is refused what nobody gave it, and gets it after a RoleBinding, until
// that is taken back.
func TestInCluster(t *testing.T) {
	ns := namespace(t)
	k := func(args ...string) string { return wherry(t, append([]string{"-n", ns}, args...)...) }
	apply(t, ns, accountYAML)
	k("wait", "--for=condition=Ready", "pod", "inside", "bare", "looks", "--timeout=120s")
	api := func(path string) (string, error) {
		return tryWherry(t, "", "-n", ns, "exec", "inside", "--", "/hello", "api", path)
	}
	pods := "/api/v1/namespaces/" + ns + "/pods"
	who := "system:serviceaccount:" + ns + ":reader"
	answers := func(path, want string) {
		t.Helper()
		eventually(t, func() error {
			out, err := api(path)
			if !strings.Contains(fmt.Sprint(out, err), want) {
				return fmt.Errorf("%s: %w: %s; want %s", path, err, out, want)
			}
			return nil
		})
	}
	refusal := fmt.Sprintf(`pods is forbidden: User \"%s\" cannot list resource \"pods\" in API group \"\" in the namespace \"%s\"`, who, ns)
	answers("/version", `"major": "1"`)
	answers(pods, refusal)
	answers("/openid/v1/jwks", `"alg":"ES256"`)
	answers("/.well-known/openid-configuration", `"issuer":"https://kubernetes.default.svc.cluster.local"`)
	k("create", "rolebinding", "read", "--clusterrole=view", "--serviceaccount="+ns+":reader")
	answers(pods, `"name":"inside"`)
	answers("/api/v1/namespaces/default/pods", `is forbidden`)
	answers("/api/v1/namespaces/"+ns+"/secrets", `is forbidden`)
	// Each control hears of a binding by itself, a moment later.
	says(t, "yes", "-n", ns, "auth", "can-i", "list", "pods", "--as="+who)
	k("delete", "rolebinding", "read")
	answers(pods, refusal)

	// The files are the pod's user's, and each token is for whom it says.
	looks := func(pod, script string) string {
		return k("exec", pod, "--", "sh", "-c", script)
	}
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount"
	if got := looks("looks", "cat "+dir+"/namespace; head -n1 "+dir+"/ca.crt; ls "+dir+" | wc -l"); got != ns+"-----BEGIN CERTIFICATE-----\n3\n" && got != ns+"-----BEGIN CERTIFICATE-----\n3" {
		t.Errorf("mounted: %q", got)
	}
	if got := looks("looks", "stat -Lc %a /tokens/vault"); strings.TrimSpace(got) != "440" {
		t.Errorf("mode of the projected token: %s", got)
	}
	if got := strings.TrimSpace(looks("bare", "ls "+dir+" 2>&1 || true")); !strings.Contains(got, "No such file") {
		t.Errorf("a pod without token has %s", got)
	}
	vault := strings.TrimSpace(looks("looks", "cat /tokens/vault"))
	if out, err := tryWherry(t, "", "--token="+vault, "auth", "whoami"); err == nil || !strings.Contains(out+err.Error(), "Unauthorized") {
		t.Errorf("a token for another audience: %v %s", err, out)
	}
	own := strings.TrimSpace(looks("looks", "cat "+dir+"/token"))
	if out := wherry(t, "--token="+own, "auth", "whoami"); !strings.Contains(out, "system:serviceaccount:"+ns+":default") || !strings.Contains(out, "pod-name") {
		t.Errorf("whoami with the pod's token: %s", out)
	}
	// The token ends with its pod.
	k("delete", "pod", "looks", "--grace-period=0", "--force")
	testkit.Eventually(t, 2*patience, func() error {
		if out, err := tryWherry(t, "", "--token="+own, "auth", "whoami"); err == nil {
			return fmt.Errorf("the pod is gone, and its token is good: %s", out)
		}
		return nil
	})
}

const rolesYAML = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: maps}
rules:
- {apiGroups: [""], resources: [configmaps], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: maps}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: maps}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: mara}
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: cartographers}
`

// TestAuthCommands: kubectl's auth commands, tokens and impersonation.
func TestAuthCommands(t *testing.T) {
	ns := namespace(t)
	ok := func(want string, args ...string) {
		t.Helper()
		out, err := tryWherry(t, "", append([]string{"-n", ns}, args...)...)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v: %v\n%s\nwant %q", args, err, out, want)
		}
	}
	no := func(want string, args ...string) {
		t.Helper()
		out, err := tryWherry(t, "", append([]string{"-n", ns}, args...)...)
		if err == nil || !strings.Contains(out+err.Error(), want) {
			t.Errorf("%v: %v\n%s\nwant %q", args, err, out, want)
		}
	}
	// never is no of one whose rights the control that is asked may not know yet.
	never := func(want string, args ...string) {
		t.Helper()
		eventually(t, func() error {
			out, err := tryWherry(t, "", append([]string{"-n", ns}, args...)...)
			if err == nil {
				t.Fatalf("%v was done: %s", args, out)
			}
			if !strings.Contains(out+err.Error(), want) {
				return fmt.Errorf("%v: %w\n%s\nwant %q", args, err, out, want)
			}
			return nil
		})
	}
	ok("kubernetes-admin", "auth", "whoami")
	ok("[cartographers system:authenticated]", "auth", "whoami", "--as=ina", "--as-group=cartographers")
	placed := strings.ReplaceAll(rolesYAML, "{name: maps}", "{name: maps, namespace: "+ns+"}") // it takes no other word for it
	out, err := tryWherry(t, placed, "-n", ns, "auth", "reconcile", "-f", "-")
	if err != nil || !strings.Contains(out, "role.rbac.authorization.k8s.io/maps reconciled") || !strings.Contains(out, "rolebinding.rbac.authorization.k8s.io/maps reconciled") {
		t.Errorf("auth reconcile: %v\n%s", err, out)
	}
	if out, err := tryWherry(t, rolesYAML, "-n", ns, "apply", "-f", "-"); err != nil {
		t.Errorf("apply: %v\n%s", err, out)
	}
	// Each control hears of a binding by itself, a moment later.
	soon := func(want string, args ...string) {
		t.Helper()
		says(t, want, append([]string{"-n", ns}, args...)...)
	}
	soon("yes", "auth", "can-i", "list", "configmaps", "--as=mara")
	soon("yes", "auth", "can-i", "get", "configmaps/x", "--as=ina", "--as-group=cartographers")
	no("no", "auth", "can-i", "delete", "configmaps", "--as=mara")
	no("no", "auth", "can-i", "list", "configmaps", "--as=mara", "-n", "default")
	no("no", "auth", "can-i", "get", "/metrics", "--as=mara")
	ok("yes", "auth", "can-i", "get", "/version", "--as=mara")
	soon("configmaps", "auth", "can-i", "--list", "--as=mara")
	soon("kube-root-ca.crt", "get", "configmaps", "--as=mara")
	no(`Error from server (Forbidden): pods is forbidden: User "mara" cannot list resource "pods" in API group "" in the namespace "`+ns+`"`, "get", "pods", "--as=mara")
	no(`users "x" is forbidden: User "system:serviceaccount:`+ns+`:default" cannot impersonate resource "users" in API group "" at the cluster scope`,
		"get", "pods", "--as=x", "--token="+strings.TrimSpace(wherry(t, "-n", ns, "create", "token", "default")))
	ok("created", "create", "rolebinding", "admins", "--clusterrole=admin", "--user=ada")
	soon("yes", "auth", "can-i", "create", "roles", "--as=ada")
	soon("created", "create", "role", "more", "--verb=get", "--resource=secrets", "--as=ada")
	never(`attempting to grant RBAC permissions not currently held`, "create", "role", "most", "--verb=get", "--resource=nodes", "--as=ada")
	never(`attempting to grant RBAC permissions not currently held`, "create", "rolebinding", "most", "--clusterrole=cluster-admin", "--user=ada", "--as=ada")
	ok("created", "create", "clusterrolebinding", ns, "--clusterrole=view", "--group="+ns)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if out, err := on(ctx, testbed.Client, "", "wherry", "delete", "clusterrolebinding", ns); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	soon("configmaps", "auth", "can-i", "--list", "--as=ina", "--as-group="+ns)
	no("may not specify a duration less than 10 minutes", "create", "token", "default", "--duration=1m")
	no(`serviceaccounts "nobody" not found`, "create", "token", "nobody")
	ok("ey", "create", "token", "default", "--audience=vault", "--duration=10m")
}
