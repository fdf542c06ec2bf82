package apiserver_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// documents are those of the kinds' own test files with a name like pattern.
func documents(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "kinds", "testdata", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.Split(string(b), "\n---\n")...)
	}
	return out
}

// document is an object as a file says it.
type document map[string]any

func (d document) kind(t *testing.T, c *cluster) *api.Kind {
	t.Helper()
	version, _ := d["apiVersion"].(string)
	kind, _ := d["kind"].(string)
	k, ok := c.codec.Kinds().ByGVK(schema.FromAPIVersionAndKind(version, kind))
	if !ok {
		t.Fatalf("no kind %s %s", version, kind)
	}
	return k
}

func (d document) json(t *testing.T) []byte {
	t.Helper()
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (d document) object(t *testing.T, k *api.Kind) api.Object {
	t.Helper()
	obj := k.New()
	if err := yaml.UnmarshalStrict(d.json(t), obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

func (d document) meta(name string) string {
	m, _ := d["metadata"].(map[string]any)
	s, _ := m[name].(string)
	return s
}

// target names the object, or with a subresource that.
func (d document) target(k *api.Kind, sub string) api.Target {
	return api.Target{Group: k.Group, Version: k.Version, Resource: k.Resource, Namespace: d.meta("namespace"), Name: d.meta("name"), Subresource: sub}
}

// with is d after a JSON merge patch.
func (d document) with(patch any) document {
	if patch == nil {
		return d
	}
	out, _ := mergePatch(map[string]any(d), patch).(map[string]any)
	return out
}

func mergePatch(doc, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := map[string]any{}
	if d, ok := doc.(map[string]any); ok {
		for name, value := range d {
			out[name] = value
		}
	}
	for name, value := range p {
		if value == nil {
			delete(out, name)
		} else {
			out[name] = mergePatch(out[name], value)
		}
	}
	return out
}

// badObject is a case of the kinds' invalid-*.yaml, see there.
type badObject struct {
	Set, Was       any
	Update, Status bool
	Want           string
}

// TestBadObjectsChangeNothing: each bad object is refused, for what is wrong
// with it, and nothing is written. Some are refused before they are looked at.
func TestBadObjectsChangeNothing(t *testing.T) {
	c := local(t)
	c.must(c.create("namespaces", "", `metadata: {name: shop}`))
	judged, refused := 0, 0
	for _, text := range documents(t, "invalid-*.yaml") {
		var all struct {
			Base document
			Bad  []badObject
		}
		if err := yaml.Unmarshal([]byte(text), &all); err != nil {
			t.Fatal(err)
		}
		k := all.Base.kind(t, c)
		if k.Virtual {
			continue
		}
		if ns, ok := all.Base["metadata"].(map[string]any); ok && k.Kind == "Namespace" {
			ns["name"] = "other"
		}
		for _, bad := range all.Bad {
			text, _ := json.Marshal(bad.Set)
			name := fmt.Sprintf("%s %s", k.Kind, text)
			var err error
			before := uint64(0)
			if bad.Update || bad.Status {
				before, err = c.badUpdate(t, k, all.Base, bad)
			} else {
				obj := all.Base.with(bad.Set).object(t, k)
				if k.Namespaced == (obj.GetNamespace() == "") {
					continue // the door mends that
				}
				target := all.Base.target(k, "")
				target.Name = ""
				before = c.snapshot().Revision()
				_, err = c.api.Create(t.Context(), admin, target, obj, api.WriteOptions{})
			}
			if after := c.snapshot().Revision(); after != before {
				t.Errorf("%s was written at %d, before was %d", name, after, before)
			}
			judged++
			switch {
			case err == nil:
				t.Errorf("%s is taken, want %s", name, bad.Want)
			case errors.Is(err, apierr.ErrInvalid):
				for _, want := range strings.Split(bad.Want, "; ") {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%s\n got  %v\n want %s", name, err, want)
					}
				}
			default:
				refused++
			}
			if bad.Update || bad.Status {
				c.forget(t, k, all.Base)
			}
		}
	}
	if judged < 200 || refused > judged/10 {
		t.Errorf("of %d bad objects %d were refused for something else", judged, refused)
	}
}

// badUpdate makes the good object, and replaces it by a bad one. It gives the
// revision between the two.
func (c *cluster) badUpdate(t *testing.T, k *api.Kind, base document, bad badObject) (uint64, error) {
	t.Helper()
	was := base.with(bad.Was)
	target := was.target(k, "")
	target.Name = ""
	created, err := c.api.Create(t.Context(), admin, target, was.object(t, k), api.WriteOptions{})
	if err != nil {
		t.Fatalf("%s: the good object is refused: %v", k.Kind, err)
	}
	if was["status"] != nil && !bad.Status {
		obj := was.object(t, k)
		if k.Stored().NeedsRevision {
			obj.SetResourceVersion(c.object(created).GetResourceVersion())
		}
		if created, err = c.api.Update(t.Context(), admin, was.target(k, "status"), obj, api.WriteOptions{}); err != nil {
			t.Fatalf("%s: its status is refused: %v", k.Kind, err)
		}
	}
	before := c.snapshot().Revision()
	sub := ""
	if bad.Status {
		sub = "status"
	}
	obj := was.with(bad.Set).object(t, k)
	if k.Stored().NeedsRevision {
		obj.SetResourceVersion(c.object(created).GetResourceVersion())
	}
	if _, sent := was["metadata"].(map[string]any)["uid"]; sent { // only for tests of rules
		obj.SetUID("")
	}
	_, err = c.api.Update(t.Context(), admin, was.target(k, sub), obj, api.WriteOptions{})
	return before, err
}

// forget removes an object, whatever holds it.
func (c *cluster) forget(t *testing.T, k *api.Kind, d document) {
	t.Helper()
	background := metav1.DeletePropagationBackground
	at := d.target(k, "")
	if _, err := c.api.Delete(t.Context(), admin, at, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatal(err)
	}
	if k.Kind != "Namespace" {
		return
	}
	obj, err := c.get("namespaces", "", at.Name)
	if err != nil {
		t.Fatal(err)
	}
	ns := obj.(*corev1.Namespace).DeepCopy()
	ns.Spec.Finalizers = nil
	c.must(c.update("namespaces", ns, "finalize"))
}

// manifests are the kinds' examples as a user would write them: without what
// the server says.
func manifests(t *testing.T, c *cluster) []document {
	t.Helper()
	c.must(c.create("namespaces", "", `metadata: {name: shop}`))
	var out []document
	for _, text := range documents(t, "examples*.yaml") {
		var d document
		if err := yaml.Unmarshal([]byte(text), &d); err != nil {
			t.Fatal(err)
		}
		k := d.kind(t, c)
		if !slices.Contains(k.Verbs, "create") || k.Virtual {
			continue
		}
		delete(d, "status")
		meta := d["metadata"].(map[string]any)
		delete(meta, "creationTimestamp")
		delete(meta, "uid")
		if k.Kind == "Namespace" {
			meta["name"] = "another"
		}
		for _, name := range []string{"kube-node-lease", "kube-system"} {
			if meta["namespace"] == name {
				meta["namespace"] = "demo"
			}
		}
		_, err := c.api.Get(t.Context(), admin, d.target(k, ""), api.GetOptions{})
		if len(d) > 3 && errors.Is(err, apierr.ErrNotFound) { // there is something to apply
			out = append(out, d)
		}
	}
	return out
}

// TestApplyTwice applies each example on the server and then again: the second
// time nothing is written, and a dry run gives what is there.
func TestApplyTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := local(t)
		for _, d := range manifests(t, c) {
			applyTwice(t, c, d)
		}
	})
}

func applyTwice(t *testing.T, c *cluster, d document) {
	t.Helper()
	k := d.kind(t, c)
	at, what := d.target(k, ""), fmt.Sprintf("%s %s", k.GVK(), d.meta("name"))
	apply := func(dry bool) (api.Value, error) {
		return c.api.Patch(t.Context(), admin, at, types.ApplyPatchType, d.json(t), api.WriteOptions{FieldManager: "kubectl", FieldValidation: "Strict", DryRun: dry})
	}
	once, err := apply(false)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	time.Sleep(2 * time.Second) // managed fields have times
	before := c.snapshot().Revision()
	twice, err := apply(false)
	if err != nil {
		t.Errorf("%s again: %v", what, err)
		return
	}
	if after := c.snapshot().Revision(); after != before {
		t.Errorf("%s: the second apply wrote\n%s\n%s", what, c.text(once), c.text(twice))
	}
	if dry, err := apply(true); err != nil || c.text(dry) != c.text(once) {
		t.Errorf("%s: a dry run gives %v\n%s\n%s", what, err, c.text(dry), c.text(once))
	}
}

// text is an object as JSON.
func (c *cluster) text(v api.Value) string {
	c.t.Helper()
	b, err := json.MarshalIndent(c.object(v), "", " ")
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

// TestClientSideApplyTwice does what kubectl apply does without --server-side:
// the object carries what was applied, and the patch is the difference of three.
// The second time there is no difference, but where a list is replaced as a
// whole; that then changes nothing.
func TestClientSideApplyTwice(t *testing.T) {
	c := local(t)
	for _, d := range manifests(t, c) {
		k := d.kind(t, c)
		what := fmt.Sprintf("%s %s", k.GVK(), d.meta("name"))
		meta := d["metadata"].(map[string]any)
		if meta["annotations"] == nil {
			meta["annotations"] = map[string]any{}
		}
		meta["annotations"].(map[string]any)[corev1.LastAppliedConfigAnnotation] = string(d.json(t)) + "\n"
		modified := d.json(t)
		at := d.target(k, "")
		at.Name = ""
		v, err := c.api.Create(t.Context(), admin, at, d.object(t, k), api.WriteOptions{})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		live := c.text(v)
		metaOf, err := strategicpatch.NewPatchMetaFromStruct(k.New())
		if err != nil {
			t.Fatal(err)
		}
		patch, err := strategicpatch.CreateThreeWayMergePatch(modified, modified, []byte(live), metaOf, true)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if string(patch) != "{}" && !slices.Contains(wholeLists, k.Kind+"/"+d.meta("name")) {
			t.Errorf("%s: a second apply sends %s", what, patch)
		}
		before := c.snapshot().Revision()
		after, err := c.api.Patch(t.Context(), admin, d.target(k, ""), types.StrategicMergePatchType, patch, api.WriteOptions{})
		if err != nil {
			t.Errorf("%s again: %v", what, err)
			continue
		}
		if now := c.snapshot().Revision(); now != before {
			t.Errorf("%s: the second apply wrote\n%s\n%s", what, live, c.text(after))
		}
	}
}

// wholeLists are examples with a list that is replaced as a whole, and has
// defaults inside, or with a field that is only for writing: kubectl says
// configured each time, as it does of Kubernetes.
var wholeLists = []string{
	"Endpoints/web", "LimitRange/sane", "StatefulSet/db", "Job/each", "PodDisruptionBudget/web", "PodDisruptionBudget/all", "Secret/key",
	"EndpointSlice/web-x1", "NetworkPolicy/web", "RoleBinding/readers", "ClusterRoleBinding/example:all", "RuntimeClass/sandboxed",
	"ResourceClaim/mine", "ResourceClaimTemplate/each", "ValidatingWebhookConfiguration/guard", "MutatingWebhookConfiguration/guard",
	"ValidatingAdmissionPolicy/few", "MutatingAdmissionPolicy/blue", "CertificateSigningRequest/ann",
}
