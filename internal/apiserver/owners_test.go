package apiserver_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// owners are the managers of an object, as "NAME OPERATION SUBRESOURCE".
func owners(obj api.Object) (out []string) {
	for _, m := range obj.GetManagedFields() {
		out = append(out, strings.TrimSpace(m.Manager+" "+string(m.Operation)+" "+m.Subresource))
	}
	return out
}

// fieldsOf are the fields of one manager of an object.
func fieldsOf(obj api.Object, manager string) string {
	for _, m := range obj.GetManagedFields() {
		if m.Manager == manager {
			return string(m.FieldsV1.Raw)
		}
	}
	return ""
}

// TestOwnersFromTheCreation makes objects as kubectl's client-side apply does:
// what the user wrote, and the defaults, are the manager's; what admission and
// the server add are nobody's, so that a later server-side apply leaves them.
func TestOwnersFromTheCreation(t *testing.T) {
	const pod = `{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {a: b}}, spec: {containers: [{name: a, image: "a:1"}]}}`
	const deployment = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: "a:1"}]}}}}`
	const service = `{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}`
	tests := []struct {
		resource, name, text string
		theirs, nobodys      []string
	}{
		{"pods", "p", pod, []string{`f:dnsPolicy`, `k:{\"name\":\"a\"}`, `f:labels`}, []string{"tolerations", "f:phase", "volumes", "f:status"}},
		{"deployments.apps", "web", deployment, []string{`f:revisionHistoryLimit`, `f:template`}, []string{"f:generation", "f:status"}},
		{"services", "web", service, []string{`k:{\"port\":80,\"protocol\":\"TCP\"}`, `f:selector`}, []string{"clusterIP", "f:status"}},
	}
	both(t, func(t *testing.T, c *cluster) {
		for _, tt := range tests {
			t.Run(tt.resource, func(t *testing.T) {
				at := c.at(tt.resource, "demo", tt.name, "")
				made := c.must(c.api.Create(t.Context(), admin, c.at(tt.resource, "demo", "", ""), c.read(tt.resource, tt.text), api.WriteOptions{FieldManager: "kubectl-client-side-apply"}))
				if got := owners(made); !slices.Equal(got, []string{"kubectl-client-side-apply Update"}) {
					t.Fatalf("managers %q", got)
				}
				set := fieldsOf(made, "kubectl-client-side-apply")
				for _, part := range tt.theirs {
					if !strings.Contains(set, part) {
						t.Errorf("%s is not the manager's: %s", part, set)
					}
				}
				for _, part := range tt.nobodys {
					if strings.Contains(set, part) {
						t.Errorf("%s is the manager's: %s", part, set)
					}
				}
				// kubectl apply --server-side, then its migration of the owner.
				applied := c.must(c.api.Patch(t.Context(), admin, at, types.ApplyPatchType, []byte(tt.text), api.WriteOptions{FieldManager: "kubectl"}))
				migrated := applied.DeepCopyObject().(api.Object)
				entries := slices.DeleteFunc(slices.Clone(migrated.GetManagedFields()), func(m metav1.ManagedFieldsEntry) bool { return m.Manager != "kubectl" })
				migrated.SetManagedFields(entries)
				c.must(c.update(tt.resource, migrated, ""))
				last := c.must(c.api.Patch(t.Context(), admin, at, types.ApplyPatchType, []byte(tt.text), api.WriteOptions{FieldManager: "kubectl"}))
				if got := owners(last); !slices.Equal(got, []string{"kubectl Apply"}) {
					t.Errorf("managers after the migration %q", got)
				}
				again := c.must(c.api.Patch(t.Context(), admin, at, types.ApplyPatchType, []byte(tt.text), api.WriteOptions{FieldManager: "kubectl"}))
				if again.GetResourceVersion() != last.GetResourceVersion() {
					t.Errorf("the same applied again wrote: %s, then %s", last.GetResourceVersion(), again.GetResourceVersion())
				}
			})
		}
	})
}

// TestScaleOwners sees who owns spec.replicas: by /scale too, and with
// Kubernetes' texts where two want it.
func TestScaleOwners(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		c.must(c.api.Create(t.Context(), admin, c.at("deployments.apps", "demo", "", ""), c.read("deployments.apps", aDeployment), api.WriteOptions{FieldManager: "maker"}))
		at := c.at("deployments.apps", "demo", "web", "scale")
		apply := func(manager string, replicas int, force bool) (api.Value, error) {
			body := fmt.Sprintf(`{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: web, namespace: demo}, spec: {replicas: %d}}`, replicas)
			return c.api.Patch(t.Context(), admin, at, types.ApplyPatchType, []byte(body), api.WriteOptions{FieldManager: manager, Force: force})
		}
		_, err := apply("hpa", 5, false)
		wants(t, err, apierr.ErrConflict, `Apply failed with 1 conflict: conflict with "maker" using autoscaling/v1: .spec.replicas`)
		v, err := apply("hpa", 5, true)
		if err != nil || v.Object.(*autoscalingv1.Scale).Spec.Replicas != 5 {
			t.Fatalf("taken by force: %+v, %v", v.Object, err)
		}
		obj, err := c.get("deployments.apps", "demo", "web")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := owners(obj), []string{"hpa Apply scale", "maker Update"}; !slices.Equal(got, want) {
			t.Errorf("managers %q, want %q", got, want)
		}
		if got := fieldsOf(obj, "hpa"); got != `{"f:spec":{"f:replicas":{}}}` {
			t.Errorf("of /scale: %s", got)
		}
		_, err = c.api.Patch(t.Context(), admin, c.at("deployments.apps", "demo", "web", ""), types.ApplyPatchType,
			[]byte(`{apiVersion: apps/v1, kind: Deployment, spec: {replicas: 2}}`), api.WriteOptions{FieldManager: "kubectl"})
		wants(t, err, apierr.ErrConflict, `Apply failed with 1 conflict: conflict with "hpa" with subresource "scale": .spec.replicas`)
		for _, bad := range []string{"{", `{apiVersion: apps/v1, kind: Scale}`, `{apiVersion: autoscaling/v1, kind: Scale, metadata: {managedFields: [{}]}}`} {
			if _, err := c.api.Patch(t.Context(), admin, at, types.ApplyPatchType, []byte(bad), api.WriteOptions{FieldManager: "x"}); apierr.KindOf(err) != apierr.ErrBadRequest {
				t.Errorf("%s: %v", bad, err)
			}
		}
	})
}

// TestOwnersOfOurOwn sees Wherry's parts under the names that they have in
// Kubernetes.
func TestOwnersOfOurOwn(t *testing.T) {
	c := local(t)
	pod := c.boundPod(aPod, "n1")
	for user, want := range map[string]string{
		"system:kube-scheduler":                                   "kube-scheduler",
		"system:serviceaccount:kube-system:deployment-controller": "kube-controller-manager",
		"jane": "jane",
	} {
		u := admin
		u.Name = user
		next := pod.DeepCopy()
		next.ResourceVersion = ""
		next.Labels = map[string]string{"by": want}
		obj, err := c.api.As(u).Update(t.Context(), next)
		if err != nil || fieldsOf(obj, want) == "" {
			t.Errorf("%s is one of %q, %v", want, owners(obj), err)
		}
	}
}
