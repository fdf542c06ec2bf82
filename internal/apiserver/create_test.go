package apiserver_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

func TestCreate(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		c.must(c.create("configmaps", "demo", `metadata: {name: there}`))
		tests := []struct {
			name      string
			user      *api.User
			target    api.Target
			body      runtime.Object
			o         api.WriteOptions
			kind      error
			text      string
			generated string // how the name begins
		}{
			{name: "plain", target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `{metadata: {name: a}, data: {k: v}}`)},
			{name: "with the namespace named twice", target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `metadata: {name: b, namespace: demo}`)},
			{name: "with the name in the target", target: c.at("configmaps", "demo", "c", ""), body: c.read("configmaps", `metadata: {name: c}`)},
			{name: "what the server sets cannot be set", target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `metadata: {name: d, uid: mine, generation: 9, selfLink: /x, creationTimestamp: "2001-01-01T00:00:00Z", deletionTimestamp: "2001-01-01T00:00:00Z", deletionGracePeriodSeconds: 3}`)},
			{name: "generated name", target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `metadata: {generateName: gen-}`), generated: "gen-"},
			{name: "generated name of a long prefix", target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `metadata: {generateName: `+strings.Repeat("x", 70)+`}`), generated: strings.Repeat("x", 58)},
			{name: "a name beats a prefix", target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `metadata: {name: e, generateName: gen-}`)},
			{name: "cluster-scoped in a namespace is taken out", target: c.at("nodes", "", "", ""), body: c.read("nodes", `metadata: {name: n, namespace: demo}`)},
			{name: "exists", target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `metadata: {name: there}`), kind: apierr.ErrAlreadyExists, text: `configmaps "there" already exists`},
			{name: "no name", target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `{}`), kind: apierr.ErrInvalid, text: `ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required`},
			{name: "bad name", target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `metadata: {name: A_}`), kind: apierr.ErrInvalid, text: `ConfigMap "A_" is invalid: metadata.name: Invalid value: "A_": a lowercase RFC 1123 subdomain must consist of`},
			{name: "two names", target: c.at("configmaps", "demo", "x", ""), body: c.read("configmaps", `metadata: {name: other}`), kind: apierr.ErrBadRequest, text: `the name of the object (other) does not match the name on the URL (x)`},
			{name: "two namespaces", target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `metadata: {name: x, namespace: default}`), kind: apierr.ErrBadRequest, text: `the namespace of the provided object does not match the namespace sent on the request`},
			{name: "all namespaces", target: c.at("configmaps", "", "", ""), body: c.read("configmaps", `metadata: {name: x}`), kind: apierr.ErrBadRequest, text: `an empty namespace may not be set during creation`},
			{name: "no namespace", target: c.at("configmaps", "gone", "", ""), body: c.read("configmaps", `metadata: {name: x}`), kind: apierr.ErrNotFound, text: `namespaces "gone" not found`},
			{name: "revision", target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `metadata: {name: x, resourceVersion: "1"}`), kind: apierr.ErrBadRequest, text: `resourceVersion should not be set on objects to be created`},
			{name: "another kind", target: c.at("configmaps", "demo", "", ""), body: c.read("secrets", `metadata: {name: x}`), kind: apierr.ErrBadRequest, text: `Secret in version "v1" cannot be handled as a ConfigMap: no conversion from Secret to ConfigMap`},
			{name: "another group", target: c.at("configmaps", "demo", "", ""), body: c.read("deployments.apps", aDeployment), kind: apierr.ErrBadRequest, text: `the API version in the data (apps/v1) does not match the expected API version (v1)`},
			{name: "nothing", target: c.at("configmaps", "demo", "", ""), kind: apierr.ErrBadRequest, text: `the object provided is unrecognized (must be of type ConfigMap)`},
			{name: "invalid", target: c.at("pods", "demo", "", ""), body: c.read("pods", `metadata: {name: x}`), kind: apierr.ErrInvalid, text: `Pod "x" is invalid: spec.containers: Required value`},
			{name: "unknown resource", target: c.at("nothings", "demo", "", ""), body: c.read("configmaps", `{}`), kind: apierr.ErrNotFound, text: `the server could not find the requested resource`},
			{name: "a namespace of what has none", target: api.Target{Version: "v1", Resource: "nodes", Namespace: "demo"}, body: c.read("nodes", `{}`), kind: apierr.ErrNotFound, text: `the server could not find the requested resource`},
			{name: "unknown subresource", target: c.at("configmaps", "demo", "there", "x"), body: c.read("configmaps", `{}`), kind: apierr.ErrNotFound, text: `the server could not find the requested resource`},
			{name: "a subresource that is not created", target: c.at("pods", "demo", "there", "status"), body: c.read("pods", `{}`), kind: apierr.ErrMethodNotAllowed, text: `the server does not allow this method on the requested resource`},
			{name: "a stream", target: c.at("pods", "demo", "there", "exec"), body: c.read("pods", `{}`), kind: apierr.ErrBadRequest, text: `pods/exec is a stream and has no object`},
			{name: "not allowed", user: &jane, target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `metadata: {name: x}`), kind: apierr.ErrForbidden, text: `configmaps is forbidden: User "jane" cannot create resource "configmaps" in API group "" in the namespace "demo"`},
			{name: "not allowed what there is not", user: &jane, target: c.at("nothings", "demo", "", ""), kind: apierr.ErrForbidden, text: `nothings is forbidden: User "jane" cannot create`},
			{name: "long manager", target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `metadata: {name: x}`), o: api.WriteOptions{FieldManager: strings.Repeat("m", 129)}, kind: apierr.ErrInvalid, text: `CreateOptions.meta.k8s.io "" is invalid: fieldManager: Too long`},
			{name: "odd validation", target: c.at("configmaps", "demo", "", ""), body: c.read("configmaps", `metadata: {name: x}`), o: api.WriteOptions{FieldValidation: "Maybe"}, kind: apierr.ErrInvalid, text: `CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Maybe": supported values: "", "Ignore", "Strict", "Warn"`},
			{name: "too large", target: c.at("configmaps", "demo", "", ""), body: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x", ManagedFields: huge()}}, kind: apierr.ErrTooLarge, text: `Request entity too large`},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				user := admin
				if tt.user != nil {
					user = *tt.user
				}
				before := c.snapshot().Revision()
				v, err := c.api.Create(t.Context(), user, tt.target, tt.body, tt.o)
				wants(t, err, tt.kind, tt.text)
				if err != nil {
					if now := c.snapshot().Revision(); now != before {
						t.Errorf("a refused create took revision %d", now)
					}
					return
				}
				obj := c.object(v)
				if obj.GetUID() == "" || obj.GetUID() == "mine" || obj.GetCreationTimestamp().Year() < 2024 || obj.GetDeletionTimestamp() != nil ||
					obj.GetDeletionGracePeriodSeconds() != nil || obj.GetSelfLink() != "" || obj.GetGeneration() != 0 {
					t.Errorf("metadata %+v", obj)
				}
				if v.Record.Revision != before+1 || obj.GetResourceVersion() != fmt.Sprint(before+1) {
					t.Errorf("revision %d, want %d", v.Record.Revision, before+1)
				}
				if tt.generated != "" && (!strings.HasPrefix(obj.GetName(), tt.generated) || len(obj.GetName()) != len(tt.generated)+5) {
					t.Errorf("name %q", obj.GetName())
				}
				if stored, err := c.get(tt.target.Resource, tt.target.Namespace, obj.GetName()); err != nil || stored.GetUID() != obj.GetUID() {
					t.Errorf("stored %+v, %v", stored, err)
				}
			})
		}
	})
}

// huge is a list of managed fields that is valid, and larger than a command.
func huge() []metav1.ManagedFieldsEntry {
	field := `{"f:data":{"f:` + strings.Repeat("x", 2<<20) + `":{}}}`
	now := metav1.Now()
	return []metav1.ManagedFieldsEntry{{Manager: "m", Operation: "Update", APIVersion: "v1", Time: &now, FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: []byte(field)}}}
}

func TestCreateSetsGenerationAndDefaults(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		pod := c.must(c.create("pods", "demo", aPod)).(*corev1.Pod)
		if pod.Generation != 1 || pod.Status.Phase != corev1.PodPending || pod.Spec.RestartPolicy != corev1.RestartPolicyAlways ||
			len(pod.Spec.Tolerations) != 2 || pod.Spec.Priority == nil || pod.Spec.Containers[0].Resources.Requests.Memory().String() != "64Mi" {
			t.Errorf("pod %+v", pod)
		}
		svc := c.must(c.create("services", "demo", `{metadata: {name: s}, spec: {ports: [{port: 80}]}}`)).(*corev1.Service)
		if svc.Spec.ClusterIP == "" || svc.Spec.ClusterIPs[0] != svc.Spec.ClusterIP || svc.Spec.Ports[0].TargetPort.IntValue() != 80 {
			t.Errorf("service %+v", svc.Spec)
		}
		n := c.must(c.create("nodes", "", `metadata: {name: n1}`)).(*corev1.Node)
		if n.Spec.PodCIDR != "10.244.0.0/24" || len(n.Spec.Taints) != 1 {
			t.Errorf("node %+v", n.Spec)
		}
	})
}

func TestCreateDryRun(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		dry := api.WriteOptions{DryRun: true}
		before := c.snapshot().Revision()
		v, err := c.api.Create(t.Context(), admin, c.at("services", "demo", "", ""), c.read("services", `{metadata: {generateName: s-}, spec: {ports: [{port: 80}]}}`), dry)
		if err != nil {
			t.Fatal(err)
		}
		svc := v.Object.(*corev1.Service)
		if v.Record != nil || svc.UID == "" || svc.Spec.ClusterIP == "" || svc.ResourceVersion != "" || svc.Kind != "Service" {
			t.Errorf("would be %+v", svc)
		}
		if _, err := c.api.Create(t.Context(), admin, c.at("pods", "demo", "", ""), c.read("pods", `metadata: {name: x}`), dry); err == nil {
			t.Error("what is invalid would be created")
		}
		if _, err := c.api.Create(t.Context(), admin, c.at("pods", "gone", "", ""), c.read("pods", aPod), dry); err == nil {
			t.Error("what has no namespace would be created")
		}
		if now := c.snapshot().Revision(); now != before {
			t.Errorf("a dry run wrote revision %d", now)
		}
	})
}
