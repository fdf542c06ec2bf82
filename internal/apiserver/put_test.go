package apiserver_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// What Kubernetes 1.34 says of an update: for which kinds it must name a
// revision, and for which it makes an object that is not there.
var (
	needRevision = []string{
		"customresourcedefinitions.apiextensions.k8s.io", "poddisruptionbudgets.policy", "leases.coordination.k8s.io",
		"validatingwebhookconfigurations.admissionregistration.k8s.io", "mutatingwebhookconfigurations.admissionregistration.k8s.io",
		"validatingadmissionpolicies.admissionregistration.k8s.io", "validatingadmissionpolicybindings.admissionregistration.k8s.io",
		"mutatingadmissionpolicies.admissionregistration.k8s.io", "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
		"csidrivers.storage.k8s.io", "csinodes.storage.k8s.io", "csistoragecapacities.storage.k8s.io", "volumeattachments.storage.k8s.io",
		"apiservices.apiregistration.k8s.io", "runtimeclasses.node.k8s.io",
	}
	makeOnUpdate = []string{
		"endpoints", "events", "events.events.k8s.io", "limitranges", "services", "leases.coordination.k8s.io", "runtimeclasses.node.k8s.io",
		"roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io",
		"clusterroles.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io",
	}
)

// TestUpdatesOfEveryKind puts each example: where there is nothing, and over
// itself without a revision, in the object and in its status.
func TestUpdatesOfEveryKind(t *testing.T) {
	c := local(t)
	for _, d := range manifests(t, c) {
		k := d.kind(t, c)
		if !slices.Contains(k.Verbs, "update") {
			continue
		}
		what := fmt.Sprintf("%s %s", k.GVK(), d.meta("name"))
		name := k.GroupResource().String()
		at := d.target(k, "")
		v, err := c.api.Update(t.Context(), admin, at, d.object(t, k), api.WriteOptions{})
		if !slices.Contains(makeOnUpdate, name) {
			if !errors.Is(err, apierr.ErrNotFound) {
				t.Errorf("%s: an update of what is not there answers %v", what, err)
			}
			at.Name = ""
			if _, err := c.api.Create(t.Context(), admin, at, d.object(t, k), api.WriteOptions{}); err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
		} else if err != nil || !v.Created {
			t.Errorf("%s: an update of what is not there answers %v, created %v", what, err, v.Created)
			continue
		}
		for _, sub := range []string{"", "status"} {
			if way, ok := k.Subresource(sub); sub != "" && (!ok || !slices.Contains(way.Verbs, "update")) {
				continue
			}
			v, err := c.api.Update(t.Context(), admin, d.target(k, sub), d.object(t, k), api.WriteOptions{})
			if !slices.Contains(needRevision, name) {
				if err != nil && strings.Contains(err.Error(), "resourceVersion") || v.Created {
					t.Errorf("%s %s: an update without a revision answers %v, created %v", what, sub, err, v.Created)
				}
				continue
			}
			if want := `metadata.resourceVersion: Invalid value: 0: must be specified for an update`; !errors.Is(err, apierr.ErrInvalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: an update without a revision answers %v", what, sub, err)
			}
		}
	}
}

func TestUpdateMakes(t *testing.T) {
	c := local(t)
	c.must(c.create("roles.rbac.authorization.k8s.io", "demo", `{metadata: {name: holder}, rules: [{apiGroups: [coordination.k8s.io], resources: [leases], verbs: [update]}]}`))
	c.must(c.create("rolebindings.rbac.authorization.k8s.io", "demo", `{metadata: {name: jane}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: holder}, subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: jane}]}`))
	k, _ := c.codec.Kinds().Resource("coordination.k8s.io", "v1", "leases")
	lease := func(meta string) (api.Target, api.Object) {
		d := document{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}.with(map[string]any{"metadata": map[string]any{"name": meta, "namespace": "demo"}, "spec": map[string]any{"holderIdentity": "me"}})
		return d.target(k, ""), d.object(t, k)
	}
	at, obj := lease("dry")
	if v, err := c.api.Update(t.Context(), admin, at, obj, api.WriteOptions{DryRun: true}); err != nil || !v.Created {
		t.Errorf("a dry run answers %v, created %v", err, v.Created)
	}
	if _, err := c.api.Get(t.Context(), admin, at, api.GetOptions{}); !errors.Is(err, apierr.ErrNotFound) {
		t.Errorf("a dry run made it: %v", err)
	}
	obj.SetUID("1234")
	if _, err := c.api.Update(t.Context(), admin, at, obj, api.WriteOptions{}); !errors.Is(err, apierr.ErrConflict) {
		t.Errorf("another object that is gone is made anew: %v", err)
	}
	at, obj = lease("mine")
	obj.SetResourceVersion("77")
	v, err := c.api.Update(t.Context(), admin, at, obj, api.WriteOptions{FieldManager: "me"})
	if err != nil || !v.Created {
		t.Fatalf("%v, created %v", err, v.Created)
	}
	made := c.object(v)
	if f := made.GetManagedFields(); made.GetUID() == "" || len(f) != 1 || f[0].Manager != "me" || f[0].Operation != "Update" {
		t.Errorf("it is made as %v", made)
	}
	v, err = c.api.Update(t.Context(), admin, at, made.DeepCopyObject(), api.WriteOptions{})
	if err != nil || v.Created {
		t.Errorf("the second time it answers %v, created %v", err, v.Created)
	}
	at, obj = lease("not-mine")
	_, err = c.api.Update(t.Context(), jane, at, obj, api.WriteOptions{})
	wants(t, err, apierr.ErrForbidden, `leases.coordination.k8s.io "not-mine" is forbidden: User "jane" cannot create resource "leases" in API group "coordination.k8s.io" in the namespace "demo"`)
}
