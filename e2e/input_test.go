package e2e

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/testbed"
)

// TestBadInput sends what cannot be: the answer is a Status that says why and
// where, and nothing changes.
func TestBadInput(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, webYAML)
	k := kube(t, "")
	before := revision(t, ns)
	deployments := "/apis/apps/v1/namespaces/" + ns + "/deployments"
	pods := "/api/v1/namespaces/" + ns + "/pods"
	const container = `"spec":{"containers":[{"name":"c","image":"i"}]}`
	for _, c := range []struct {
		name, verb, path, body string
		code                   int32
		reason                 metav1.StatusReason
		causes                 []string // "field: reason", of which each must be there
		says                   []string
	}{
		{"unknown field", "POST", pods, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"},"spec":{"colour":"red","containers":[{"name":"c","imagee":"y"}]}}`,
			400, metav1.StatusReasonBadRequest, nil, []string{`strict decoding error: unknown field "spec.colour"`, `unknown field "spec.containers[0].imagee"`}},
		{"field twice", "POST", pods, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x","name":"y"},` + container + `}`,
			400, metav1.StatusReasonBadRequest, nil, []string{`duplicate field "metadata.name"`}},
		{"wrong type", "POST", pods, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"},"spec":{"containers":[{"name":"c","image":5}]}}`,
			400, metav1.StatusReasonBadRequest, nil, []string{"cannot unmarshal number into Go struct field", "spec.containers.image of type string"}},
		{"no JSON", "POST", pods, `{"kind":`, 400, metav1.StatusReasonBadRequest, nil, []string{"unexpected end of JSON input"}},
		{"another kind", "POST", pods, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x"}}`,
			400, metav1.StatusReasonBadRequest, nil, []string{"ConfigMap"}},
		{"another namespace", "POST", pods, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x","namespace":"default"},` + container + `}`,
			400, metav1.StatusReasonBadRequest, nil, []string{"the namespace of the provided object does not match the namespace sent on the request"}},
		{"invalid values", "POST", pods, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"X_y"},"spec":{"restartPolicy":"Sometimes","containers":[{"name":"c","ports":[{"containerPort":99999}]}]}}`,
			422, metav1.StatusReasonInvalid, []string{"metadata.name: FieldValueInvalid", "spec.restartPolicy: FieldValueNotSupported",
				"spec.containers[0].image: FieldValueRequired", "spec.containers[0].ports[0].containerPort: FieldValueInvalid"}, []string{`Pod "X_y" is invalid`}},
		{"selector that misses its template", "POST", deployments, `{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"x"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"c"}},` + container + `}}}`,
			422, metav1.StatusReasonInvalid, []string{"spec.template.metadata.labels: FieldValueInvalid"}, []string{"`selector` does not match template `labels`"}},
		{"what is there", "POST", deployments, `{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"web"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},` + container + `}}}`,
			409, metav1.StatusReasonAlreadyExists, nil, []string{`deployments.apps "web" already exists`}},
		{"stale update", "PUT", "/api/v1/namespaces/" + ns + "/configmaps/web", `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"web","resourceVersion":"1"},"data":{"colour":"stale"}}`,
			409, metav1.StatusReasonConflict, nil, []string{"the object has been modified; please apply your changes to the latest version and try again"}},
		{"fixed field", "PATCH", deployments + "/web", `{"spec":{"selector":{"matchLabels":{"app":"other"}}}}`,
			422, metav1.StatusReasonInvalid, []string{"spec.selector: FieldValueInvalid"}, []string{"field is immutable"}},
		{"service address of another range", "POST", "/api/v1/namespaces/" + ns + "/services", `{"kind":"Service","apiVersion":"v1","metadata":{"name":"x"},"spec":{"clusterIP":"192.0.2.1","ports":[{"port":80}]}}`,
			422, metav1.StatusReasonInvalid, []string{"spec.clusterIPs: FieldValueInvalid"}, []string{"192.0.2.1"}},
		{"nothing there", "DELETE", pods + "/none", ``, 404, metav1.StatusReasonNotFound, nil, []string{`pods "none" not found`}},
		{"no such namespace", "POST", "/api/v1/namespaces/none/pods", `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"},` + container + `}`,
			404, metav1.StatusReasonNotFound, nil, []string{`namespaces "none" not found`}},
		{"no such path", "GET", "/apis/none/v1/things", ``, 404, metav1.StatusReasonNotFound, nil, nil},
		{"bad selector", "GET", pods + "?labelSelector=a%20b%20c", ``, 400, metav1.StatusReasonBadRequest, nil, nil},
		{"bad revision", "GET", pods + "?resourceVersion=new", ``, 400, metav1.StatusReasonBadRequest, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, query, _ := strings.Cut(c.path, "?")
			r := k.RESTClient().Verb(c.verb).AbsPath(path).Param("fieldValidation", "Strict")
			for pair := range strings.SplitSeq(query, "&") {
				if name, value, ok := strings.Cut(pair, "="); ok {
					r = r.Param(name, strings.ReplaceAll(value, "%20", " "))
				}
			}
			kind := "application/json"
			if c.verb == "PATCH" {
				kind = "application/merge-patch+json"
			}
			if c.body != "" {
				r = r.SetHeader("Content-Type", kind).Body([]byte(c.body))
			}
			err := r.Do(t.Context()).Error()
			if c.verb == "DELETE" || c.verb == "GET" {
				r.Param("fieldValidation", "")
			}
			checkStatus(t, err, c.code, c.reason, c.causes, c.says)
		})
	}
	if after := revision(t, ns); after != before {
		t.Errorf("what was refused has changed something:\n%s\nbefore, now\n%s", before, after)
	}
	refused(t, podYAML("x", "", "i", "colour: red"), []string{"-n", ns, "apply", "-f", "-"}, "Error from server (BadRequest)", `unknown field "spec.containers[0].colour"`)
	refused(t, "", []string{"-n", ns, "get", "things"}, `the server doesn't have a resource type "things"`)
	if after := revision(t, ns); after != before {
		t.Errorf("what was refused has changed something:\n%s\nbefore, now\n%s", before, after)
	}
}

func checkStatus(t *testing.T, err error, code int32, reason metav1.StatusReason, causes, says []string) {
	t.Helper()
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		t.Fatalf("not a Status: %v", err)
	}
	s := status.Status()
	if s.Code != code || s.Reason != reason {
		t.Errorf("%d %s: %s; want %d %s", s.Code, s.Reason, s.Message, code, reason)
	}
	has := map[string]bool{}
	if s.Details != nil {
		for _, c := range s.Details.Causes {
			has[c.Field+": "+string(c.Type)] = true
		}
	}
	for _, want := range causes {
		if !has[want] {
			t.Errorf("no cause %s in %v", want, has)
		}
	}
	for _, want := range says {
		if !strings.Contains(s.Message, want) {
			t.Errorf("the message is %q, without %q", s.Message, want)
		}
	}
}

// revision tells of every object that a user wrote in a namespace, when it was
// last written.
func revision(t *testing.T, ns string) string {
	t.Helper()
	return wherry(t, "-n", ns, "get", "configmaps,services,deployments", "-o",
		`jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.generation} {.data}{"\n"}{end}`)
}

// TestImageThatIsNotThere shows the registry's words.
func TestImageThatIsNotThere(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, podYAML("none", "n1", registryHost+"/nothing:here"))
	seen := map[string]string{}
	p := awaitPod(t, ns, "none", 3*patience, func(p *corev1.Pod) error {
		w := status(p).State.Waiting
		if w == nil {
			return fmt.Errorf("it is not waiting: %+v", status(p))
		}
		seen[w.Reason] = w.Message
		if len(seen["ErrImagePull"]) == 0 || len(seen["ImagePullBackOff"]) == 0 {
			return fmt.Errorf("seen %v", seen)
		}
		return nil
	})
	for reason, message := range seen {
		if reason != "ContainerCreating" && !strings.Contains(message, registryHost+"/nothing:here") {
			t.Errorf("%s says %q", reason, message)
		}
	}
	if !strings.Contains(seen["ErrImagePull"], "NAME_UNKNOWN") && !strings.Contains(seen["ErrImagePull"], "MANIFEST_UNKNOWN") {
		t.Errorf("ErrImagePull says %q, which the registry has not said", seen["ErrImagePull"])
	}
	if p.Status.Phase != corev1.PodPending {
		t.Errorf("the pod is %s", p.Status.Phase)
	}
	eventually(t, func() error {
		events, err := tryWherry(t, "", "-n", ns, "get", "events")
		if err != nil {
			return err
		}
		for _, want := range []string{"Pulling", "Failed to pull image", "Back-off pulling image"} {
			if !strings.Contains(events, want) {
				return fmt.Errorf("no event says %q:\n%s", want, events)
			}
		}
		return nil
	})
}

// TestImageThatComesLater is pulled once the registry has it.
func TestImageThatComesLater(t *testing.T) {
	ns := namespace(t)
	name := "late-" + fmt.Sprint(time.Now().UnixNano())
	apply(t, ns, podYAML("late", "n2", registryHost+"/"+name+":1"))
	awaitPod(t, ns, "late", patience, func(p *corev1.Pod) error {
		if w := status(p).State.Waiting; w == nil || !strings.Contains(w.Reason, "Image") {
			return fmt.Errorf("%+v", status(p))
		}
		return nil
	})
	if err := suite.registry.Push(name+":1", suite.hello); err != nil {
		t.Fatal(err)
	}
	awaitPod(t, ns, "late", 6*patience, func(p *corev1.Pod) error { // the back-off may have grown to minutes
		if c := condition(p, corev1.PodReady); c.Status != corev1.ConditionTrue {
			return fmt.Errorf("%+v", status(p))
		}
		return nil
	})
}

// TestCommandThatIsNotThere shows the runtime's words.
func TestCommandThatIsNotThere(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, podYAML("none", "n1", helloImage, "command: [/no/such/command]", "spec.restartPolicy: Never")+
		podYAML("again", "n1", helloImage, "command: [none]"))
	p := awaitPod(t, ns, "none", patience, func(p *corev1.Pod) error {
		if p.Status.Phase != corev1.PodFailed {
			return fmt.Errorf("it is %s: %+v", p.Status.Phase, status(p))
		}
		return nil
	})
	if s := status(p).State.Terminated; s == nil || s.Reason != "StartError" || s.ExitCode != 128 || !strings.Contains(s.Message, `"/no/such/command": stat /no/such/command: no such file or directory`) {
		t.Errorf("%+v", s)
	}
	awaitPod(t, ns, "again", 2*patience, func(p *corev1.Pod) error {
		w, last := status(p).State.Waiting, status(p).LastTerminationState.Terminated
		if w == nil || w.Reason != "CrashLoopBackOff" || last == nil || last.Reason != "StartError" || !strings.Contains(last.Message, `executable file not found in $PATH`) {
			return fmt.Errorf("%+v", status(p))
		}
		return nil
	})
}

// TestJoinRefused tries to join with tokens that do not open the cluster.
func TestJoinRefused(t *testing.T) {
	for _, role := range []string{"node", "control"} {
		good := strings.TrimSpace(wherry(t, "cluster", "token", "create", "--role", role, "--ttl", "1h"))
		other := strings.TrimSpace(wherry(t, "cluster", "token", "create", "--role", map[string]string{"node": "control", "control": "node"}[role]))
		expired := strings.TrimSpace(wherry(t, "cluster", "token", "create", "--role", role))
		past := base64.StdEncoding.EncodeToString([]byte(time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)))
		wherry(t, "-n", "kube-system", "patch", "secret", "bootstrap-token-"+strings.Split(expired, ".")[1], "-p", `{"data":{"expiration":"`+past+`"}}`)
		part := strings.Split(good, ".")
		for _, c := range []struct{ name, token, says string }{
			{"no token", "", "malformed join token"},
			{"half a token", strings.Join(part[:3], "."), "malformed join token"},
			{"wrong secret", strings.Join([]string{part[0], part[1], strings.Repeat("a", len(part[2])), part[3]}, "."), "unknown join token: wrong secret"},
			{"unknown token", strings.Join([]string{part[0], strings.Repeat("a", len(part[1])), part[2], part[3]}, "."), "unknown join token: no token"},
			{"wrong CA", strings.Join([]string{part[0], part[1], part[2], strings.Repeat("ab", 32)}, "."), "join token is for another cluster"},
			{"expired token", expired, "expired join token"},
			{"token for another role", other, "not as " + role},
		} {
			t.Run(role+" with "+c.name, func(t *testing.T) {
				if err := suite.WriteFile(testbed.Client, "/run/token", []byte(c.token), 0o600); err != nil {
					t.Fatal(err)
				}
				daemon := map[string]string{"node": "noded", "control": "controld"}[role]
				ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
				defer cancel()
				out, err := on(ctx, testbed.Client, "", daemon, "join", "c1:7443", "--token-file", "/run/token",
					"--name", "stranger", "--advertise-address", "10.99.0.2", "--data-dir", "/run/stranger", "--config", "/run/stranger.yaml")
				checkRefused(t, out, err, c.says)
				if left, err := on(ctx, testbed.Client, "", "ls", "/run/stranger.yaml", "/run/stranger/pki", "/run/stranger/member"); err == nil || left != "" {
					t.Errorf("the refused machine keeps %s", left)
				}
			})
		}
	}
	refused(t, "", []string{"get", "node", "stranger"}, `nodes "stranger" not found`)
}
