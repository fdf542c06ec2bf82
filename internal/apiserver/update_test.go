package apiserver_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

const modified = `the object has been modified; please apply your changes to the latest version and try again`

func TestUpdate(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		tests := []struct {
			name   string
			change func(m *corev1.ConfigMap)
			target func(t *api.Target)
			body   runtime.Object
			user   *api.User
			o      api.WriteOptions
			kind   error
			text   string
			same   bool // nothing is written
		}{
			{name: "data", change: func(m *corev1.ConfigMap) { m.Data = map[string]string{"k": "w"} }},
			{name: "without a revision", change: func(m *corev1.ConfigMap) { m.ResourceVersion = ""; m.Data = nil }},
			{name: "revision 0", change: func(m *corev1.ConfigMap) { m.ResourceVersion = "0"; m.Data = nil }},
			{name: "without uid, times and namespace", change: func(m *corev1.ConfigMap) {
				m.UID, m.CreationTimestamp, m.Namespace = "", metav1.Time{}, ""
				m.Labels = map[string]string{"a": "b"}
			}},
			{name: "nothing", change: func(*corev1.ConfigMap) {}, same: true},
			{name: "nothing, without a revision", change: func(m *corev1.ConfigMap) { m.ResourceVersion = "" }, same: true},
			{name: "what only the server sets", change: func(m *corev1.ConfigMap) {
				now := metav1.Now()
				m.CreationTimestamp, m.DeletionTimestamp, m.Generation, m.SelfLink = metav1.Unix(1, 0), &now, 7, "/x"
			}, same: true},
			{name: "stale", change: func(m *corev1.ConfigMap) { m.ResourceVersion = "1" }, kind: apierr.ErrConflict, text: `Operation cannot be fulfilled on configmaps "a": ` + modified},
			{name: "from the future", change: func(m *corev1.ConfigMap) { m.ResourceVersion = "999999" }, kind: apierr.ErrConflict, text: `Operation cannot be fulfilled on configmaps "a": ` + modified},
			{name: "no revision at all", change: func(m *corev1.ConfigMap) { m.ResourceVersion = "x" }, kind: apierr.ErrInvalid, text: `ConfigMap "a" is invalid: metadata.resourceVersion: Invalid value: "x"`},
			{name: "another uid", change: func(m *corev1.ConfigMap) { m.UID = "other" }, kind: apierr.ErrConflict, text: `Operation cannot be fulfilled on configmaps "a": Precondition failed: UID in precondition: other, UID in object meta: `},
			{name: "another name", change: func(m *corev1.ConfigMap) { m.Name = "b" }, kind: apierr.ErrBadRequest, text: `the name of the object (b) does not match the name on the URL (a)`},
			{name: "no name", change: func(m *corev1.ConfigMap) { m.Name = "" }, kind: apierr.ErrBadRequest, text: `name must be provided`},
			{name: "another namespace", change: func(m *corev1.ConfigMap) { m.Namespace = "default" }, kind: apierr.ErrBadRequest, text: `the namespace of the provided object does not match the namespace sent on the request`},
			{name: "not there", change: func(m *corev1.ConfigMap) { m.Name = "none" }, target: func(t *api.Target) { t.Name = "none" }, kind: apierr.ErrNotFound, text: `configmaps "none" not found`},
			{name: "nowhere", change: func(*corev1.ConfigMap) {}, target: func(t *api.Target) { t.Namespace = "" }, kind: apierr.ErrNotFound, text: `the server could not find the requested resource`},
			{name: "no target", change: func(*corev1.ConfigMap) {}, target: func(t *api.Target) { t.Name = "" }, kind: apierr.ErrBadRequest, text: `resource name may not be empty`},
			{name: "another kind", body: c.read("secrets", `metadata: {name: a}`), kind: apierr.ErrBadRequest, text: `Secret in version "v1" cannot be handled as a ConfigMap`},
			{name: "invalid", change: func(m *corev1.ConfigMap) { m.Data = map[string]string{"a/b": "c"} }, kind: apierr.ErrInvalid, text: `ConfigMap "a" is invalid: data[a/b]: Invalid value: "a/b"`},
			{name: "not allowed", change: func(*corev1.ConfigMap) {}, user: &jane, kind: apierr.ErrForbidden, text: `configmaps "a" is forbidden: User "jane" cannot update resource "configmaps"`},
			{name: "long manager", change: func(*corev1.ConfigMap) {}, o: api.WriteOptions{FieldManager: strings.Repeat("m", 129)}, kind: apierr.ErrInvalid, text: `UpdateOptions.meta.k8s.io "" is invalid: fieldManager: Too long`},
			{name: "dry", change: func(m *corev1.ConfigMap) { m.Data = map[string]string{"dry": "run"} }, o: api.WriteOptions{DryRun: true}, same: true},
		}
		for i, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				name := "a"
				before := c.must(c.create("configmaps", "demo", fmt.Sprintf(`{metadata: {name: %s, annotations: {i: "%d"}}, data: {k: v}}`, name, i))).(*corev1.ConfigMap)
				defer c.delete("configmaps", "demo", name, metav1.DeleteOptions{})
				target := c.at("configmaps", "demo", name, "")
				if tt.target != nil {
					tt.target(&target)
				}
				body := tt.body
				if body == nil {
					m := before.DeepCopy()
					tt.change(m)
					body = m
				}
				user := admin
				if tt.user != nil {
					user = *tt.user
				}
				revision := c.snapshot().Revision()
				v, err := c.api.Update(t.Context(), user, target, body, tt.o)
				wants(t, err, tt.kind, tt.text)
				now := c.snapshot().Revision()
				if (now == revision) != (tt.same || tt.kind != nil) {
					t.Errorf("revision went from %d to %d", revision, now)
				}
				if err != nil {
					return
				}
				obj := c.object(v)
				if obj.GetUID() != before.UID || obj.GetCreationTimestamp() != before.CreationTimestamp || obj.GetDeletionTimestamp() != nil || obj.GetGeneration() != 0 {
					t.Errorf("metadata %+v", obj)
				}
				if tt.same && obj.GetResourceVersion() != before.ResourceVersion {
					t.Errorf("revision of the answer %s, want %s", obj.GetResourceVersion(), before.ResourceVersion)
				}
			})
		}
	})
}

func TestGenerationCountsSpecsAndDeletion(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		steps := []struct {
			name   string
			change func(d *appsv1.Deployment)
			sub    string
			want   int64
		}{
			{"labels", func(d *appsv1.Deployment) { d.Labels = map[string]string{"a": "b"} }, "", 1},
			{"spec", func(d *appsv1.Deployment) { d.Spec.Paused = true }, "", 2},
			{"status by the main resource", func(d *appsv1.Deployment) { d.Status.Replicas = 5 }, "", 2},
			{"status", func(d *appsv1.Deployment) { d.Status.Replicas, d.Spec.Paused = 3, false }, "status", 2},
			{"its own", func(d *appsv1.Deployment) { d.Generation = 1; d.Labels = nil }, "", 2},
			{"finalizer", func(d *appsv1.Deployment) { d.Finalizers = []string{"example.com/f"} }, "", 2},
		}
		c.must(c.create("deployments.apps", "demo", aDeployment))
		for _, s := range steps {
			obj, err := c.get("deployments.apps", "demo", "web")
			if err != nil {
				t.Fatal(err)
			}
			d := obj.DeepCopyObject().(*appsv1.Deployment)
			s.change(d)
			got := c.must(c.update("deployments.apps", d, s.sub)).(*appsv1.Deployment)
			if got.Generation != s.want {
				t.Errorf("%s: generation %d, want %d", s.name, got.Generation, s.want)
			}
			if want := int32(0); s.sub == "" && s.name != "its own" && s.name != "finalizer" && got.Status.Replicas != want {
				t.Errorf("%s: status %+v", s.name, got.Status)
			}
			if s.sub == "status" && (got.Status.Replicas != 3 || !got.Spec.Paused) {
				t.Errorf("%s: status %+v, paused %v", s.name, got.Status, got.Spec.Paused)
			}
		}
		d, err := c.delete("deployments.apps", "demo", "web", metav1.DeleteOptions{})
		if err != nil || d.Gone || c.object(d.Value).GetGeneration() != 3 {
			t.Errorf("being deleted: %+v, %v", c.object(d.Value), err)
		}
	})
}

func TestPatch(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		const apply = "apiVersion: v1\nkind: ConfigMap\n"
		tests := []struct {
			name     string
			user     *api.User
			to       string // the object's name; empty is a
			sub      string
			pt       types.PatchType
			body     string
			o        api.WriteOptions
			kind     error
			text     string
			same     bool
			created  bool
			warnings int
			data     string
		}{
			{name: "merge", pt: types.MergePatchType, body: `{"data":{"k":"w"}}`, data: "w"},
			{name: "json", pt: types.JSONPatchType, body: `[{"op":"replace","path":"/data/k","value":"w"}]`, data: "w"},
			{name: "strategic", pt: types.StrategicMergePatchType, body: `{"data":{"k":"w"}}`, data: "w"},
			{name: "nothing", pt: types.MergePatchType, body: `{"data":{"k":"v"}}`, same: true, data: "v"},
			{name: "dry", pt: types.MergePatchType, body: `{"data":{"k":"w"}}`, o: api.WriteOptions{DryRun: true}, same: true, data: "w"},
			{name: "uid of its own", pt: types.MergePatchType, body: `{"metadata":{"uid":"x"}}`, kind: apierr.ErrConflict, text: `Operation cannot be fulfilled on configmaps "a": Precondition failed`},
			{name: "stale", pt: types.MergePatchType, body: `{"metadata":{"resourceVersion":"1"},"data":{"k":"w"}}`, kind: apierr.ErrConflict, text: `Operation cannot be fulfilled on configmaps "a": ` + modified},
			{name: "without a revision", pt: types.JSONPatchType, body: `[{"op":"remove","path":"/metadata/resourceVersion"},{"op":"replace","path":"/data/k","value":"w"}]`, data: "w"},
			{name: "renames", pt: types.MergePatchType, body: `{"metadata":{"name":"b"}}`, kind: apierr.ErrBadRequest, text: `the name of the object (b) does not match the name on the URL (a)`},
			{name: "moves", pt: types.MergePatchType, body: `{"metadata":{"namespace":"default"}}`, kind: apierr.ErrBadRequest, text: `the namespace of the provided object does not match`},
			{name: "unknown field", pt: types.MergePatchType, body: `{"foo":1}`, o: api.WriteOptions{FieldValidation: "Strict"}, kind: apierr.ErrInvalid, text: ` "" is invalid: patch: Invalid value`},
			{name: "unknown field warns", pt: types.MergePatchType, body: `{"foo":1}`, warnings: 1, same: true, data: "v"},
			{name: "invalid", pt: types.MergePatchType, body: `{"data":{"a/b":"c"}}`, kind: apierr.ErrInvalid, text: `ConfigMap "a" is invalid: data[a/b]`},
			{name: "no JSON", pt: types.MergePatchType, body: `{`, kind: apierr.ErrBadRequest, text: `error decoding patch`},
			{name: "no such type", pt: "application/x", body: `{}`, kind: apierr.ErrUnsupportedMediaType},
			{name: "not there", to: "none", pt: types.MergePatchType, body: `{}`, kind: apierr.ErrNotFound, text: `configmaps "none" not found`},
			{name: "not allowed", user: &jane, pt: types.MergePatchType, body: `{}`, kind: apierr.ErrForbidden, text: `configmaps "a" is forbidden: User "jane" cannot patch`},
			{name: "forced", pt: types.MergePatchType, body: `{}`, o: api.WriteOptions{Force: true}, kind: apierr.ErrInvalid, text: `PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch`},
			{name: "apply of nobody", pt: types.ApplyPatchType, body: apply, kind: apierr.ErrInvalid, text: `PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch`},
			{name: "apply takes", pt: types.ApplyPatchType, body: apply + "data: {k: w}", o: api.WriteOptions{FieldManager: "me", Force: true}, data: "w"},
			{name: "apply in conflict", pt: types.ApplyPatchType, body: apply + "data: {k: w}", o: api.WriteOptions{FieldManager: "me"}, kind: apierr.ErrConflict, text: `Apply failed with 1 conflict: conflict with "kubernetes-admin" using v1: .data.k`},
			{name: "apply makes", to: "new", pt: types.ApplyPatchType, body: apply + "data: {k: m}", o: api.WriteOptions{FieldManager: "me"}, created: true, data: "m"},
			{name: "apply would make", to: "dry", pt: types.ApplyPatchType, body: apply + "data: {k: m}", o: api.WriteOptions{FieldManager: "me", DryRun: true}, created: true, same: true, data: "m"},
			{name: "apply makes another", to: "new2", pt: types.ApplyPatchType, body: apply + "metadata: {name: other}", o: api.WriteOptions{FieldManager: "me"}, kind: apierr.ErrBadRequest, text: `the name of the object (other) does not match the name on the URL (new2)`},
			{name: "apply makes elsewhere", to: "new2", pt: types.ApplyPatchType, body: apply + "metadata: {namespace: default}", o: api.WriteOptions{FieldManager: "me"}, kind: apierr.ErrBadRequest, text: `the namespace of the provided object does not match`},
			{name: "apply renames", pt: types.ApplyPatchType, body: apply + "metadata: {name: other}", o: api.WriteOptions{FieldManager: "me"}, kind: apierr.ErrBadRequest, text: `the name of the object (other) does not match the name on the URL (a)`},
			{name: "apply with a uid and no object", to: "new2", pt: types.ApplyPatchType, body: apply + "metadata: {uid: x}", o: api.WriteOptions{FieldManager: "me"}, kind: apierr.ErrConflict, text: `Operation cannot be fulfilled on configmaps "new2": uid mismatch`},
			{name: "apply with managed fields", pt: types.ApplyPatchType, body: apply + "metadata: {managedFields: [{}]}", o: api.WriteOptions{FieldManager: "me"}, kind: apierr.ErrBadRequest, text: `metadata.managedFields must be nil`},
			{name: "apply twice the same key", pt: types.ApplyPatchType, body: apply + "data: {k: w}\ndata: {k: w}", o: api.WriteOptions{FieldManager: "me", FieldValidation: "Strict"}, kind: apierr.ErrBadRequest, text: `error strict decoding YAML`},
			{name: "apply twice the same key warns", pt: types.ApplyPatchType, body: apply + "data: {k: w}\ndata: {k: w}", o: api.WriteOptions{FieldManager: "me", Force: true}, warnings: 1, data: "w"},
			{name: "apply to a status of none", to: "none", sub: "status", pt: types.ApplyPatchType, body: apply, o: api.WriteOptions{FieldManager: "me"}, kind: apierr.ErrNotFound},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				c.must(c.create("configmaps", "demo", `{metadata: {name: a}, data: {k: v}}`))
				defer c.delete("configmaps", "demo", "a", metav1.DeleteOptions{})
				name, user := "a", admin
				if tt.to != "" {
					name = tt.to
				}
				if tt.user != nil {
					user = *tt.user
				}
				before := c.snapshot().Revision()
				v, err := c.api.Patch(t.Context(), user, c.at("configmaps", "demo", name, tt.sub), tt.pt, []byte(tt.body), tt.o)
				wants(t, err, tt.kind, tt.text)
				if now := c.snapshot().Revision(); (now == before) != (tt.same || tt.kind != nil) {
					t.Errorf("revision went from %d to %d", before, now)
				}
				if err != nil {
					return
				}
				if got := c.object(v).(*corev1.ConfigMap).Data["k"]; got != tt.data || v.Created != tt.created || len(v.Warnings) != tt.warnings {
					t.Errorf("k is %q, created %v, warnings %q", got, v.Created, v.Warnings)
				}
			})
		}
	})
}

func TestScale(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		ctx := t.Context()
		web := c.must(c.create("deployments.apps", "demo", aDeployment)).(*appsv1.Deployment)
		at := c.at("deployments.apps", "demo", "web", "scale")
		v, err := c.api.Get(ctx, admin, at, api.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s := v.Object.(*autoscalingv1.Scale)
		if s.Spec.Replicas != 2 || s.Status.Selector != "app=web" || s.UID != web.UID || s.ResourceVersion != web.ResourceVersion || s.Kind != "Scale" {
			t.Errorf("scale %+v", s)
		}
		tests := []struct {
			name   string
			change func(s *autoscalingv1.Scale)
			kind   error
			text   string
		}{
			{name: "up", change: func(s *autoscalingv1.Scale) { s.Spec.Replicas = 4 }},
			{name: "without a revision", change: func(s *autoscalingv1.Scale) { s.Spec.Replicas, s.ResourceVersion, s.UID = 5, "", "" }},
			{name: "stale", change: func(s *autoscalingv1.Scale) { s.ResourceVersion = "1" }, kind: apierr.ErrConflict, text: `Operation cannot be fulfilled on deployments.apps "web": ` + modified},
			{name: "another's", change: func(s *autoscalingv1.Scale) { s.UID = "x" }, kind: apierr.ErrConflict},
			{name: "below zero", change: func(s *autoscalingv1.Scale) { s.Spec.Replicas = -1 }, kind: apierr.ErrInvalid, text: `Scale.autoscaling "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0`},
			{name: "another name", change: func(s *autoscalingv1.Scale) { s.Name = "x" }, kind: apierr.ErrBadRequest, text: `the name of the object (x) does not match the name on the URL (web)`},
			{name: "another namespace", change: func(s *autoscalingv1.Scale) { s.Namespace = "x" }, kind: apierr.ErrBadRequest},
		}
		for _, tt := range tests {
			v, err := c.api.Get(ctx, admin, at, api.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			s := v.Object.(*autoscalingv1.Scale)
			tt.change(s)
			want := s.Spec.Replicas
			v, err = c.api.Update(ctx, admin, at, s, api.WriteOptions{})
			wants(t, err, tt.kind, tt.text)
			if err == nil && v.Object.(*autoscalingv1.Scale).Spec.Replicas != want {
				t.Errorf("%s: %+v", tt.name, v.Object)
			}
		}
		v, err = c.api.Patch(ctx, admin, at, types.MergePatchType, []byte(`{"spec":{"replicas":7}}`), api.WriteOptions{})
		if err != nil || v.Object.(*autoscalingv1.Scale).Spec.Replicas != 7 {
			t.Errorf("patched %+v, %v", v.Object, err)
		}
		dry := api.WriteOptions{DryRun: true}
		if v, err = c.api.Patch(ctx, admin, at, types.MergePatchType, []byte(`{"spec":{"replicas":9}}`), dry); err != nil || v.Object.(*autoscalingv1.Scale).Spec.Replicas != 9 {
			t.Errorf("would be %+v, %v", v.Object, err)
		}
		obj, err := c.get("deployments.apps", "demo", "web")
		if err != nil || *obj.(*appsv1.Deployment).Spec.Replicas != 7 || obj.GetGeneration() != 4 {
			t.Errorf("deployment %+v, %v", obj, err)
		}
		_, err = c.api.Update(ctx, admin, at, web.DeepCopy(), api.WriteOptions{})
		wants(t, err, apierr.ErrBadRequest, `the API version in the data (apps/v1) does not match the expected API version (autoscaling/v1)`)
		_, err = c.api.Get(ctx, admin, c.at("deployments.apps", "demo", "none", "scale"), api.GetOptions{})
		wants(t, err, apierr.ErrNotFound, `deployments.apps "none" not found`)
		_, err = c.api.Update(ctx, jane, at, s, api.WriteOptions{})
		wants(t, err, apierr.ErrForbidden, `deployments.apps "web" is forbidden: User "jane" cannot update resource "deployments/scale"`)
	})
}

// Who scales an applied object owns its replicas, as of the subresource.
func TestScaleIsManaged(t *testing.T) {
	c := local(t)
	ctx := t.Context()
	apply := []byte("apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 1, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: b}]}}}")
	at := c.at("deployments.apps", "demo", "web", "")
	me := api.WriteOptions{FieldManager: "me"}
	c.must(c.api.Patch(ctx, admin, at, types.ApplyPatchType, apply, me))
	scale := c.at("deployments.apps", "demo", "web", "scale")
	if _, err := c.api.Patch(ctx, admin, scale, types.MergePatchType, []byte(`{"spec":{"replicas":3}}`), api.WriteOptions{FieldManager: "kubectl"}); err != nil {
		t.Fatal(err)
	}
	obj, err := c.get("deployments.apps", "demo", "web")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range obj.GetManagedFields() {
		got = append(got, fmt.Sprintf("%s %s %q", m.Manager, m.Operation, m.Subresource))
	}
	if want := `me Apply "", kubectl Update "scale"`; strings.Join(got, ", ") != want {
		t.Errorf("managers %s, want %s", strings.Join(got, ", "), want)
	}
	_, err = c.api.Patch(ctx, admin, at, types.ApplyPatchType, apply, me)
	wants(t, err, apierr.ErrConflict, `Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas`)
	// A status write belongs to its own subresource, and a second apply of the
	// same writes nothing.
	me.Force = true
	c.must(c.api.Patch(ctx, admin, at, types.ApplyPatchType, apply, me))
	revision := c.snapshot().Revision()
	c.must(c.api.Patch(ctx, admin, at, types.ApplyPatchType, apply, me))
	if now := c.snapshot().Revision(); now != revision {
		t.Errorf("the same again went from %d to %d", revision, now)
	}
}

func TestStatus(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		pod := c.must(c.create("pods", "demo", aPod)).(*corev1.Pod).DeepCopy()
		pod.Status.Phase = corev1.PodRunning
		pod.Labels = map[string]string{"a": "b"}
		pod.Spec.NodeName = "elsewhere"
		pod.ResourceVersion = "" // a status needs none
		got := c.must(c.update("pods", pod, "status")).(*corev1.Pod)
		if got.Status.Phase != corev1.PodRunning || got.Labels != nil || got.Spec.NodeName != "" {
			t.Errorf("pod %+v", got)
		}
		revision := c.snapshot().Revision()
		c.must(c.update("pods", pod, "status"))
		if now := c.snapshot().Revision(); now != revision {
			t.Errorf("the same status again went from %d to %d", revision, now)
		}
		stale := got.DeepCopy()
		stale.ResourceVersion = "1"
		_, err := c.update("pods", stale, "status")
		wants(t, err, apierr.ErrConflict, `Operation cannot be fulfilled on pods "p": `+modified)
		bad := got.DeepCopy()
		bad.Status.PodIPs = []corev1.PodIP{{IP: "x"}}
		_, err = c.update("pods", bad, "status")
		wants(t, err, apierr.ErrInvalid, `Pod "p" is invalid: status.podIPs[0]: Invalid value: "x"`)
		_, err = c.update("configmaps", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "demo"}}, "status")
		wants(t, err, apierr.ErrNotFound, `the server could not find the requested resource`)
		v, err := c.api.Get(t.Context(), admin, c.at("pods", "demo", "p", "status"), api.GetOptions{})
		if err != nil || c.object(v).(*corev1.Pod).Status.Phase != corev1.PodRunning {
			t.Errorf("status %+v, %v", v, err)
		}
		for _, sub := range []string{"log", "exec", "attach", "portforward"} {
			_, err := c.api.Get(t.Context(), admin, c.at("pods", "demo", "p", sub), api.GetOptions{})
			wants(t, err, apierr.ErrBadRequest, "pods/"+sub+" is a stream")
		}
	})
}

func TestBinding(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		ctx := t.Context()
		pod := c.must(c.create("pods", "demo", aPod)).(*corev1.Pod)
		c.must(c.create("pods", "demo", `{metadata: {name: gated}, spec: {schedulingGates: [{name: example.com/a}], containers: [{name: a, image: b}]}}`))
		going := c.boundPod(`{metadata: {name: going}, spec: {containers: [{name: a, image: b}]}}`, "n1")
		if _, err := c.delete("pods", "demo", going.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		bind := func(name, target string) *corev1.Binding {
			return &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name}, Target: corev1.ObjectReference{Kind: "Node", Name: target}}
		}
		with := func(b *corev1.Binding, f func(b *corev1.Binding)) *corev1.Binding { f(b); return b }
		tests := []struct {
			name, pod string
			body      runtime.Object
			kind      error
			text      string
		}{
			{"no node", "p", bind("p", ""), apierr.ErrInvalid, `Binding "p" is invalid: target.name: Required value`},
			{"no such kind", "p", with(bind("p", "n1"), func(b *corev1.Binding) { b.Target.Kind = "Pod" }), apierr.ErrInvalid, `Binding "p" is invalid: target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>"`},
			{"another name", "p", bind("q", "n1"), apierr.ErrBadRequest, `name in URL does not match name in Binding object`},
			{"another namespace", "p", with(bind("p", "n1"), func(b *corev1.Binding) { b.Namespace = "default" }), apierr.ErrBadRequest, ""},
			{"another pod", "p", with(bind("p", "n1"), func(b *corev1.Binding) { b.UID = "x" }), apierr.ErrConflict, `Operation cannot be fulfilled on pods/binding "p": Precondition failed: UID in precondition: x`},
			{"another state", "p", with(bind("p", "n1"), func(b *corev1.Binding) { b.ResourceVersion = "1" }), apierr.ErrConflict, `Operation cannot be fulfilled on pods/binding "p": Precondition failed: ResourceVersion`},
			{"another kind of body", "p", pod.DeepCopy(), apierr.ErrBadRequest, `Pod in version "v1" cannot be handled as a Binding`},
			{"not there", "none", bind("none", "n1"), apierr.ErrNotFound, `pods "none" not found`},
			{"gated", "gated", bind("gated", "n1"), apierr.ErrConflict, `Operation cannot be fulfilled on pods/binding "gated": pod gated has non-empty .spec.schedulingGates`},
			{"going", "going", bind("going", "n1"), apierr.ErrConflict, `Operation cannot be fulfilled on pods/binding "going": pod going is being deleted, cannot be assigned to a host`},
			{"bound", "p", with(bind("p", "n1"), func(b *corev1.Binding) {
				b.UID, b.ResourceVersion, b.Annotations = pod.UID, pod.ResourceVersion, map[string]string{"a": "b"}
			}), nil, ""},
			{"bound again", "p", bind("p", "n2"), apierr.ErrConflict, `Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1"`},
		}
		for _, tt := range tests {
			v, err := c.api.Create(ctx, admin, c.at("pods", "demo", tt.pod, "binding"), tt.body, api.WriteOptions{})
			wants(t, err, tt.kind, tt.text)
			if err == nil {
				if s, ok := v.Object.(*metav1.Status); !ok || s.Status != metav1.StatusSuccess || s.Code != 201 {
					t.Errorf("%s: answered %+v", tt.name, v.Object)
				}
			}
		}
		obj, err := c.get("pods", "demo", "p")
		if err != nil {
			t.Fatal(err)
		}
		p := obj.(*corev1.Pod)
		if p.Spec.NodeName != "n1" || p.Annotations["a"] != "b" || p.Generation != 1 || len(p.Status.Conditions) != 1 || p.Status.Conditions[0].Type != corev1.PodScheduled {
			t.Errorf("bound pod %+v", p)
		}
	})
}

func TestLeaseNeedsARevision(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		l := c.must(c.create("leases.coordination.k8s.io", "demo", `{metadata: {name: l}, spec: {holderIdentity: a}}`)).(*coordinationv1.Lease).DeepCopy()
		held := l.ResourceVersion
		for _, none := range []string{"", "0"} {
			l.ResourceVersion = none
			_, err := c.update("leases.coordination.k8s.io", l, "")
			wants(t, err, apierr.ErrInvalid, `Lease.coordination.k8s.io "l" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update`)
		}
		l.ResourceVersion = held
		b := "b"
		l.Spec.HolderIdentity = &b
		c.must(c.update("leases.coordination.k8s.io", l, ""))
		_, err := c.update("leases.coordination.k8s.io", l, "")
		wants(t, err, apierr.ErrConflict, "")
		at := c.at("leases.coordination.k8s.io", "demo", "l", "")
		if _, err := c.api.Patch(t.Context(), admin, at, types.MergePatchType, []byte(`{"spec":{"holderIdentity":"c"}}`), api.WriteOptions{}); err != nil {
			t.Errorf("a patch needs none: %v", err)
		}
		l.Name = "none"
		_, err = c.update("leases.coordination.k8s.io", l, "")
		wants(t, err, apierr.ErrConflict, `Operation cannot be fulfilled on leases.coordination.k8s.io "none": Precondition failed: UID in precondition: `+string(l.UID)+`, UID in object meta: `)
	})
}

// A replaced pod need not repeat its priority and what the server has set; its
// account is another matter, as on Kubernetes.
func TestReplacePodByItsManifest(t *testing.T) {
	c := local(t)
	was := c.must(c.create("pods", "demo", `{metadata: {name: p}, spec: {serviceAccountName: default, automountServiceAccountToken: false, priorityClassName: system-node-critical, containers: [{name: a, image: a:1}]}}`))
	next := c.read("pods", `{metadata: {name: p, namespace: demo}, spec: {serviceAccountName: default, automountServiceAccountToken: false, priorityClassName: system-node-critical, containers: [{name: a, image: a:2}]}}`)
	got := c.must(c.update("pods", next, "")).(*corev1.Pod)
	if got.Spec.Containers[0].Image != "a:2" || got.UID != was.GetUID() || *got.Spec.Priority != 2000001000 || got.Generation != 2 {
		t.Errorf("pod %+v", got)
	}
}
