package gateway_test

import (
	"cmp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
)

const (
	notFound  = metav1.StatusReasonNotFound
	bad       = metav1.StatusReasonBadRequest
	invalid   = metav1.StatusReasonInvalid
	conflict  = metav1.StatusReasonConflict
	exists    = metav1.StatusReasonAlreadyExists
	forbidden = metav1.StatusReasonForbidden
	notThere  = metav1.StatusReasonMethodNotAllowed

	cms     = "/v1/configmaps/demo"
	deploys = "apps/v1/deployments/demo"
	poded   = "/v1/pods/demo"

	// goOn as a continue token stands for the one that the front gave last.
	goOn = "(the last)"
)

// paritySteps walks every verb, and what each refuses.
func paritySteps() []step {
	cm := func(meta, rest string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {" + meta + "}\n" + rest
	}
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: b, resources: {limits: {cpu: 1500m, memory: 1Gi}}}]}"
	const web = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 2, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: b}]}}}"
	const applied = "apiVersion: v1\nkind: ConfigMap\n"
	zero, minus, one, uid := int64(0), int64(-1), "1", types.UID("x")
	back, fore, side := metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletionPropagation("Sideways")
	me := api.WriteOptions{FieldManager: "me"}
	return []step{
		// Create.
		{name: "create", verb: "create", at: cms, object: cm("name: a, labels: {is: old}", "data: {k: v}")},
		{name: "create a second", verb: "create", at: cms, object: cm("name: b, labels: {is: new}, finalizers: [example.com/f]", "binaryData: {k: AAEC}")},
		{name: "create with a generated name", verb: "create", at: cms, object: cm("generateName: gen-", "")},
		{name: "create dry", verb: "create", at: cms, object: cm("name: dry", ""), write: api.WriteOptions{DryRun: true}},
		{name: "create what is there", verb: "create", at: cms, object: cm("name: a", ""), reason: exists},
		{name: "create without a name", verb: "create", at: cms, object: cm("", ""), reason: invalid},
		{name: "create with a bad name", verb: "create", at: cms, object: cm("name: A_b", ""), reason: invalid},
		{name: "create with much that is bad", verb: "create", at: poded, object: "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {a b: c}}\nspec: {restartPolicy: Sometimes, containers: [{name: A, imagePullPolicy: X}]}", reason: invalid},
		{name: "create with a revision", verb: "create", at: cms, object: cm(`name: x, resourceVersion: "3"`, ""), reason: bad},
		{name: "create elsewhere", verb: "create", at: cms, object: cm("name: x, namespace: default", ""), reason: bad},
		{name: "create nowhere", verb: "create", at: "/v1/configmaps/gone", object: cm("name: x", ""), reason: notFound},
		{name: "create in all namespaces", verb: "create", at: "/v1/configmaps", object: cm("name: x", ""), reason: bad},
		{name: "create another kind", verb: "create", at: cms, object: "apiVersion: v1\nkind: Secret\nmetadata: {name: x}", reason: bad},
		{name: "create a kind of another group", verb: "create", at: cms, object: web, reason: bad},
		{name: "create with a long manager", verb: "create", at: cms, object: cm("name: x", ""), write: api.WriteOptions{FieldManager: strings.Repeat("m", 200)}, reason: invalid},
		{name: "create with odd validation", verb: "create", at: cms, object: cm("name: x", ""), write: api.WriteOptions{FieldValidation: "Maybe"}, reason: invalid},
		{name: "create by nobody special", verb: "create", user: "jane", at: cms, object: cm("name: x", ""), reason: forbidden},
		{name: "create a deployment", verb: "create", at: deploys, object: web},
		{name: "create a pod", verb: "create", at: poded, object: pod},
		{name: "create a service", verb: "create", at: "/v1/services/demo", object: "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: NodePort, ports: [{port: 80}]}"},
		{name: "create a service at no address", verb: "create", at: "/v1/services/demo", object: "apiVersion: v1\nkind: Service\nmetadata: {name: t}\nspec: {clusterIP: 192.0.2.1, ports: [{port: 80}]}", reason: invalid},
		{name: "create a namespace", verb: "create", at: "/v1/namespaces", object: "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}"},
		{name: "create a node", verb: "create", at: "/v1/nodes", object: "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {capacity: {cpu: 4, memory: 8Gi}}"},
		{name: "create a lease", verb: "create", at: "coordination.k8s.io/v1/leases/demo", object: "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: l}\nspec: {holderIdentity: me, renewTime: \"2030-01-02T03:04:05.000006Z\"}"},
		{name: "create an event", verb: "create", at: "/v1/events/demo", object: "apiVersion: v1\nkind: Event\nmetadata: {name: e}\ninvolvedObject: {kind: Pod, name: p, namespace: demo}\nreason: R"},
		{name: "create what is not served", verb: "create", at: "/v1/nothings/demo", object: cm("name: x", ""), reason: notFound},

		// Get.
		{name: "get", verb: "get", at: cms + "/a"},
		{name: "get any", verb: "get", at: cms + "/a", get: "0"},
		{name: "get none", verb: "get", at: cms + "/none", reason: notFound},
		{name: "get at no revision", verb: "get", at: cms + "/a", get: "x", reason: bad},
		{name: "get without a namespace", verb: "get", at: "/v1/configmaps//a", reason: notFound},
		{name: "get with a namespace too many", verb: "get", at: "/v1/nodes/demo/n1", reason: notFound},
		{name: "get of another version", verb: "get", at: "/v2/configmaps/demo/a", reason: notFound},
		{name: "get by nobody special", verb: "get", user: "jane", at: cms + "/a", reason: forbidden},
		{name: "get what nobody may", verb: "get", user: "jane", at: "/v1/nothings/demo/a", reason: forbidden},
		{name: "get a scale", verb: "get", at: deploys + "/web/scale"},
		{name: "get a status", verb: "get", at: poded + "/p/status"},
		{name: "get a scale of none", verb: "get", at: cms + "/a/scale", reason: notFound},
		{name: "get a binding", verb: "get", at: poded + "/p/binding", reason: notThere},

		// List.
		{name: "list", verb: "list", at: cms},
		{name: "list everywhere", verb: "list", at: "/v1/configmaps"},
		{name: "list by label", verb: "list", at: cms, list: metav1.ListOptions{LabelSelector: "is in (old,older)"}},
		{name: "list by field", verb: "list", at: cms, list: metav1.ListOptions{FieldSelector: "metadata.name=b"}},
		{name: "list a page", verb: "list", at: cms, list: metav1.ListOptions{Limit: 1}},
		{name: "list exactly", verb: "list", at: cms, list: metav1.ListOptions{ResourceVersion: "3", ResourceVersionMatch: "Exact"}},
		{name: "list a namespace of none", verb: "list", at: "/v1/configmaps/gone"},
		{name: "list by a bad label", verb: "list", at: cms, list: metav1.ListOptions{LabelSelector: "a b c"}, reason: bad},
		{name: "list by a bad field", verb: "list", at: cms, list: metav1.ListOptions{FieldSelector: "spec.x=1"}, reason: bad},
		{name: "list pods by a bad field", verb: "list", at: poded, list: metav1.ListOptions{FieldSelector: "spec.x=1"}, reason: bad},
		{name: "list by no field", verb: "list", at: cms, list: metav1.ListOptions{FieldSelector: "a"}, reason: bad},
		{name: "list with a match alone", verb: "list", at: cms, list: metav1.ListOptions{ResourceVersionMatch: "Exact"}, reason: invalid},
		{name: "list with an odd match", verb: "list", at: cms, list: metav1.ListOptions{ResourceVersion: "1", ResourceVersionMatch: "Near"}, reason: invalid},
		{name: "list exactly any", verb: "list", at: cms, list: metav1.ListOptions{ResourceVersion: "0", ResourceVersionMatch: "Exact"}, reason: invalid},
		{name: "list on from nothing", verb: "list", at: cms, list: metav1.ListOptions{Continue: "x"}, reason: bad},
		{name: "list on at a revision", verb: "list", at: cms, list: metav1.ListOptions{Continue: "x", ResourceVersion: "3"}, reason: bad},
		{name: "list less than none", verb: "list", at: cms, list: metav1.ListOptions{Limit: -1}, reason: bad},
		{name: "list by nobody special", verb: "list", user: "jane", at: cms, reason: forbidden},

		// Watches that are refused.
		{name: "watch at no revision", verb: "watch", at: cms, list: metav1.ListOptions{ResourceVersion: "x"}, reason: bad},
		{name: "watch with a match alone", verb: "watch", at: cms, list: metav1.ListOptions{ResourceVersion: "1", ResourceVersionMatch: "NotOlderThan"}, reason: invalid},
		{name: "watch with initial events alone", verb: "watch", at: cms, list: metav1.ListOptions{SendInitialEvents: &[]bool{true}[0]}, reason: invalid},
		{name: "watch by nobody special", verb: "watch", user: "jane", at: cms, reason: forbidden},
		{name: "watch from the future", verb: "watch", at: cms, list: metav1.ListOptions{ResourceVersion: "99999"}, reason: metav1.StatusReasonTimeout},

		// Update.
		{name: "update", verb: "update", at: cms + "/a", object: cm("name: a, labels: {is: new}", "data: {k: w}")},
		{name: "update the same", verb: "update", at: cms + "/a", object: cm("name: a, labels: {is: new}", "data: {k: w}")},
		{name: "update dry", verb: "update", at: cms + "/a", object: cm("name: a", ""), write: api.WriteOptions{DryRun: true}},
		{name: "update stale", verb: "update", at: cms + "/a", object: cm(`name: a, resourceVersion: "1"`, ""), reason: conflict},
		{name: "update at no revision", verb: "update", at: cms + "/a", object: cm(`name: a, resourceVersion: "x"`, ""), reason: invalid},
		{name: "update another", verb: "update", at: cms + "/a", object: cm("name: a, uid: x", ""), reason: conflict},
		{name: "update under another name", verb: "update", at: cms + "/a", object: cm("name: b", ""), reason: bad},
		{name: "update without a name", verb: "update", at: cms + "/a", object: cm("", ""), reason: bad},
		{name: "update none", verb: "update", at: cms + "/none", object: cm("name: none", ""), reason: notFound},
		{name: "update to what is invalid", verb: "update", at: cms + "/a", object: cm("name: a", "data: {a/b: c}"), reason: invalid},
		{name: "update another kind", verb: "update", at: cms + "/a", object: pod, reason: bad},
		{name: "update by nobody special", verb: "update", user: "jane", at: cms + "/a", object: cm("name: a", ""), reason: forbidden},
		{name: "update a lease without a revision", verb: "update", at: "coordination.k8s.io/v1/leases/demo/l", object: "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: l}", reason: invalid},
		{name: "update a selector", verb: "update", at: deploys + "/web", object: strings.ReplaceAll(web, "app: web", "app: other"), reason: invalid},
		{name: "update a status", verb: "update", at: deploys + "/web/status", object: web + "\nstatus: {replicas: 2, readyReplicas: 1}"},
		{name: "update a scale", verb: "update", at: deploys + "/web/scale", object: "apiVersion: autoscaling/v1\nkind: Scale\nmetadata: {name: web}\nspec: {replicas: 5}"},
		{name: "update a scale below zero", verb: "update", at: deploys + "/web/scale", object: "apiVersion: autoscaling/v1\nkind: Scale\nmetadata: {name: web}\nspec: {replicas: -5}", reason: invalid},
		{name: "update a scale with another kind", verb: "update", at: deploys + "/web/scale", object: web, reason: bad},
		{name: "update no subresource", verb: "update", at: cms + "/a/status", object: cm("name: a", ""), reason: notFound},

		// Patch.
		{name: "merge", verb: "patch", at: cms + "/a", patch: types.MergePatchType, body: `{"data":{"m":"1"}}`},
		{name: "merge nothing", verb: "patch", at: cms + "/a", patch: types.MergePatchType, body: `{}`},
		{name: "merge dry", verb: "patch", at: cms + "/a", patch: types.MergePatchType, body: `{"data":{"dry":"1"}}`, write: api.WriteOptions{DryRun: true}},
		{name: "merge what is unknown", verb: "patch", at: cms + "/a", patch: types.MergePatchType, body: `{"foo":1}`},
		{name: "merge strictly", verb: "patch", at: cms + "/a", patch: types.MergePatchType, body: `{"foo":1}`, write: api.WriteOptions{FieldValidation: "Strict"}, reason: invalid},
		{name: "merge no JSON", verb: "patch", at: cms + "/a", patch: types.MergePatchType, body: `{`, reason: bad},
		{name: "merge stale", verb: "patch", at: cms + "/a", patch: types.MergePatchType, body: `{"metadata":{"resourceVersion":"1"}}`, reason: conflict},
		{name: "merge another name", verb: "patch", at: cms + "/a", patch: types.MergePatchType, body: `{"metadata":{"name":"b"}}`, reason: bad},
		{name: "merge by force", verb: "patch", at: cms + "/a", patch: types.MergePatchType, body: `{}`, write: api.WriteOptions{Force: true}, reason: invalid},
		{name: "merge none", verb: "patch", at: cms + "/none", patch: types.MergePatchType, body: `{}`, reason: notFound},
		{name: "merge by nobody special", verb: "patch", user: "jane", at: cms + "/a", patch: types.MergePatchType, body: `{}`, reason: forbidden},
		{name: "operations", verb: "patch", at: cms + "/a", patch: types.JSONPatchType, body: `[{"op":"remove","path":"/data/m"}]`},
		{name: "operations that cannot be", verb: "patch", at: cms + "/a", patch: types.JSONPatchType, body: `[{"op":"remove","path":"/data/none"}]`, reason: invalid},
		{name: "strategic", verb: "patch", at: deploys + "/web", patch: types.StrategicMergePatchType, body: `{"spec":{"template":{"spec":{"containers":[{"name":"a","image":"c"}]}}}}`},
		{name: "strategic of a wrong type", verb: "patch", at: deploys + "/web", patch: types.StrategicMergePatchType, body: `{"spec":{"replicas":"x"}}`, reason: invalid},
		{name: "a scale", verb: "patch", at: deploys + "/web/scale", patch: types.MergePatchType, body: `{"spec":{"replicas":3}}`},
		{name: "a status", verb: "patch", at: poded + "/p/status", patch: types.StrategicMergePatchType, body: `{"status":{"phase":"Running"}}`},
		{name: "apply makes", verb: "patch", at: cms + "/made", patch: types.ApplyPatchType, body: applied + "data: {k: v}", write: me},
		{name: "apply again", verb: "patch", at: cms + "/made", patch: types.ApplyPatchType, body: applied + "data: {k: v}", write: me},
		{name: "apply in conflict", verb: "patch", at: cms + "/made", patch: types.ApplyPatchType, body: applied + "data: {k: w}", write: api.WriteOptions{FieldManager: "you"}, reason: conflict},
		{name: "apply by force", verb: "patch", at: cms + "/made", patch: types.ApplyPatchType, body: applied + "data: {k: w}", write: api.WriteOptions{FieldManager: "you", Force: true}},
		{name: "apply of nobody", verb: "patch", at: cms + "/made", patch: types.ApplyPatchType, body: applied, reason: invalid},
		{name: "apply what repeats", verb: "patch", at: cms + "/made", patch: types.ApplyPatchType, body: applied + "data: {k: w}\ndata: {k: w}", write: api.WriteOptions{FieldManager: "you"}},
		{name: "apply what repeats, strictly", verb: "patch", at: cms + "/made", patch: types.ApplyPatchType, body: applied + "data: {k: w}\ndata: {k: w}", write: api.WriteOptions{FieldManager: "you", FieldValidation: "Strict"}, reason: bad},
		{name: "apply no YAML", verb: "patch", at: cms + "/made", patch: types.ApplyPatchType, body: "a: [", write: me, reason: bad},
		{name: "apply under another name", verb: "patch", at: cms + "/made", patch: types.ApplyPatchType, body: applied + "metadata: {name: x}", write: me, reason: bad},
		{name: "apply with managed fields", verb: "patch", at: cms + "/made", patch: types.ApplyPatchType, body: applied + "metadata: {managedFields: [{}]}", write: me, reason: bad},
		{name: "apply an unknown field", verb: "patch", at: cms + "/made", patch: types.ApplyPatchType, body: applied + "foo: 1", write: me, reason: ""},

		// Bindings.
		{name: "bind to nothing", verb: "create", at: poded + "/p/binding", object: "apiVersion: v1\nkind: Binding\nmetadata: {name: p}\ntarget: {kind: Node}", reason: invalid},
		{name: "bind another", verb: "create", at: poded + "/p/binding", object: "apiVersion: v1\nkind: Binding\nmetadata: {name: q}\ntarget: {kind: Node, name: n1}", reason: bad},
		{name: "bind none", verb: "create", at: poded + "/none/binding", object: "apiVersion: v1\nkind: Binding\nmetadata: {name: none}\ntarget: {kind: Node, name: n1}", reason: notFound},
		{name: "bind with another kind", verb: "create", at: poded + "/p/binding", object: pod, reason: bad},
		{name: "bind", verb: "create", at: poded + "/p/binding", object: "apiVersion: v1\nkind: Binding\nmetadata: {name: p}\ntarget: {kind: Node, name: n1}"},
		{name: "bind again", verb: "create", at: poded + "/p/binding", object: "apiVersion: v1\nkind: Binding\nmetadata: {name: p}\ntarget: {kind: Node, name: n2}", reason: conflict},

		// Delete.
		{name: "delete with another uid", verb: "delete", at: cms + "/a", delete: metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}, reason: conflict},
		{name: "delete at another revision", verb: "delete", at: cms + "/a", delete: metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &one}}, reason: conflict},
		{name: "delete sideways", verb: "delete", at: cms + "/a", delete: metav1.DeleteOptions{PropagationPolicy: &side}, reason: invalid},
		{name: "delete dry", verb: "delete", at: cms + "/a", delete: metav1.DeleteOptions{DryRun: []string{"All"}}},
		{name: "delete by nobody special", verb: "delete", user: "jane", at: cms + "/a", reason: forbidden},
		{name: "delete", verb: "delete", at: cms + "/a", delete: metav1.DeleteOptions{PropagationPolicy: &back}},
		{name: "delete again", verb: "delete", at: cms + "/a", reason: notFound},
		{name: "delete what is held", verb: "delete", at: cms + "/b"},
		{name: "delete in the foreground", verb: "delete", at: deploys + "/web", delete: metav1.DeleteOptions{PropagationPolicy: &fore}},
		{name: "delete gracefully", verb: "delete", at: poded + "/p"},
		{name: "delete at once but for a second", verb: "delete", at: poded + "/p", delete: metav1.DeleteOptions{GracePeriodSeconds: &minus}},
		{name: "delete at once", verb: "delete", at: poded + "/p", delete: metav1.DeleteOptions{GracePeriodSeconds: &zero}},
		{name: "delete a service", verb: "delete", at: "/v1/services/demo/s"},
		{name: "delete as old clients do", verb: "delete", at: deploys + "/web", delete: metav1.DeleteOptions{OrphanDependents: &[]bool{true}[0]}},
		{name: "delete as older ones do", verb: "delete", at: deploys + "/web", delete: metav1.DeleteOptions{OrphanDependents: &[]bool{false}[0]}},
		{name: "delete with all policies", verb: "delete", at: cms + "/a", delete: metav1.DeleteOptions{OrphanDependents: &[]bool{true}[0], PropagationPolicy: &back}, reason: invalid},
		{name: "delete what must stay", verb: "delete", at: "/v1/namespaces//default", reason: notFound},
		{name: "delete all", verb: "deletecollection", at: cms, list: metav1.ListOptions{LabelSelector: "is=nothing"}},
		{name: "delete no more than one", verb: "deletecollection", at: cms, list: metav1.ListOptions{Limit: 1}, delete: metav1.DeleteOptions{DryRun: []string{"All"}}},
		{name: "delete the next", verb: "deletecollection", at: cms, list: metav1.ListOptions{Limit: 1, Continue: goOn}, delete: metav1.DeleteOptions{DryRun: []string{"All"}}},
		{name: "delete what was there once", verb: "deletecollection", at: cms, list: metav1.ListOptions{ResourceVersion: "2", ResourceVersionMatch: "Exact"}, delete: metav1.DeleteOptions{DryRun: []string{"All"}}},
		{name: "delete one for good", verb: "deletecollection", at: cms, list: metav1.ListOptions{Limit: 1, LabelSelector: "is=old"}},
		{name: "delete less than none", verb: "deletecollection", at: cms, list: metav1.ListOptions{Limit: -1}, reason: bad},
		{name: "delete on from nothing", verb: "deletecollection", at: cms, list: metav1.ListOptions{Continue: "x"}, reason: bad},
		{name: "delete at an odd match", verb: "deletecollection", at: cms, list: metav1.ListOptions{ResourceVersion: "1", ResourceVersionMatch: "Near"}, reason: invalid},
		{name: "delete all jobs", verb: "deletecollection", at: "batch/v1/jobs/demo"},
		{name: "delete all by a bad field", verb: "deletecollection", at: cms, list: metav1.ListOptions{FieldSelector: "spec.x=1"}, reason: bad},
		{name: "delete all sideways", verb: "deletecollection", at: cms, delete: metav1.DeleteOptions{PropagationPolicy: &side}, reason: invalid},
		{name: "delete all everywhere", verb: "deletecollection", at: "/v1/configmaps", reason: notThere},
		{name: "delete all namespaces", verb: "deletecollection", at: "/v1/namespaces", reason: notThere},
		{name: "delete all by nobody special", verb: "deletecollection", user: "jane", at: cms, reason: forbidden},
		{name: "delete a namespace", verb: "delete", at: "/v1/namespaces//other"},
		{name: "create in what ends", verb: "create", at: "/v1/configmaps/other", object: cm("name: x", ""), reason: forbidden},
		{name: "finalize", verb: "update", at: "/v1/namespaces//other/finalize", object: "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}"},
		{name: "what is left", verb: "list", at: cms},

		// Kinds that are served in several versions.
		{name: "create in another group", verb: "create", at: newEvents, object: aNewEvent},
		{name: "read what was made in another group", verb: "get", at: oldEvents + "/painted"},
		{name: "select by a name of its own", verb: "list", at: newEvents, list: metav1.ListOptions{FieldSelector: "regarding.name=web"}},
		{name: "select by the other's name", verb: "list", at: newEvents, list: metav1.ListOptions{FieldSelector: "involvedObject.name=web"}, reason: bad},
		{name: "merge in another group", verb: "patch", at: newEvents + "/painted", patch: types.MergePatchType, body: `{"series": {"count": 3, "lastObservedTime": "2026-01-02T03:05:00.000000Z"}}`},
		{name: "strategic in another group", verb: "patch", at: newEvents + "/painted", patch: types.StrategicMergePatchType, body: `{"series": {"count": 4}}`},
		{name: "operations in another group", verb: "patch", at: newEvents + "/painted", patch: types.JSONPatchType, body: `[{"op": "replace", "path": "/note", "value": "red"}]`, reason: invalid},
		{name: "an event without its time", verb: "create", at: newEvents, object: strings.Replace(aNewEvent, "eventTime", "#", 1), reason: invalid},
		{name: "apply in a version", verb: "patch", at: "autoscaling/v1/horizontalpodautoscalers/demo/h", patch: types.ApplyPatchType, write: me,
			body: hpa("v1") + "spec: {maxReplicas: 5, targetCPUUtilizationPercentage: 70, scaleTargetRef: {kind: Deployment, name: web}}"},
		{name: "apply in another version", verb: "patch", at: "autoscaling/v2/horizontalpodautoscalers/demo/h", patch: types.ApplyPatchType, write: api.WriteOptions{FieldManager: "you"},
			body: hpa("v2") + "spec: {maxReplicas: 6}", reason: conflict},
		{name: "read in another version", verb: "get", at: "autoscaling/v2/horizontalpodautoscalers/demo/h"},
		{name: "update in a version", verb: "update", at: "autoscaling/v1/horizontalpodautoscalers/demo/h",
			object: hpa("v1") + "spec: {maxReplicas: 7, targetCPUUtilizationPercentage: 60, scaleTargetRef: {kind: Deployment, name: web}}"},
		{name: "list in a version", verb: "list", at: "autoscaling/v1/horizontalpodautoscalers/demo"},
		{name: "delete in a version", verb: "delete", at: "autoscaling/v1/horizontalpodautoscalers/demo/h"},
		{name: "delete in another group", verb: "delete", at: newEvents + "/painted"},
		{name: "it is gone in both", verb: "get", at: oldEvents + "/painted", reason: notFound},
	}
}

const (
	newEvents = "events.k8s.io/v1/events/demo"
	oldEvents = "/v1/events/demo"
	aNewEvent = `apiVersion: events.k8s.io/v1
kind: Event
metadata: {name: painted}
eventTime: "2026-01-02T03:04:05.000000Z"
reportingController: example.com/c
reportingInstance: c-0
action: Paint
reason: Painted
regarding: {kind: Pod, namespace: demo, name: web}
note: blue
type: Normal
`
)

func hpa(version string) string {
	return "apiVersion: autoscaling/" + version + "\nkind: HorizontalPodAutoscaler\nmetadata: {name: h}\n"
}

// TestFrontsAgree makes the same calls of two clusters, of one over HTTP and of
// the other over gRPC: objects, lists, warnings and errors must be the same.
func TestFrontsAgree(t *testing.T) {
	var fronts [2]front
	fronts[0] = &overHTTP{c: start(t, options{})}
	fronts[1] = dialGRPC(t, start(t, options{}))
	var last [2]string
	for _, s := range paritySteps() {
		t.Run(s.name, func(t *testing.T) {
			do := func(i int) outcome {
				s := s
				if s.list.Continue == goOn {
					s.list.Continue = last[i]
				}
				o := fronts[i].do(t, s)
				last[i] = cmp.Or(o.list.Continue, last[i])
				return o
			}
			if s.write.FieldManager == "" && s.patch != types.ApplyPatchType {
				s.write.FieldManager = "tester" // else each front has its own
			}
			a, b := do(0), do(1)
			if a.String() != b.String() {
				t.Errorf("HTTP answers\n%s\ngRPC answers\n%s", a, b)
			}
			if a.status.Reason != s.reason {
				t.Errorf("answered %+v, want %q", a.status, s.reason)
			}
			if s.reason == "" && a.object == "" && a.items == nil && !a.deleted && s.verb != "list" && s.verb != "deletecollection" && a.status.Message == "" {
				t.Errorf("answered nothing: %+v", a)
			}
		})
	}
	yes, no := true, false
	for _, s := range []step{
		{name: "everything that there was", at: cms, list: metav1.ListOptions{ResourceVersion: "1"}},
		{name: "a selection", at: cms, list: metav1.ListOptions{ResourceVersion: "1", LabelSelector: "is=old"}},
		{name: "initial events", at: cms, list: metav1.ListOptions{SendInitialEvents: &yes, ResourceVersionMatch: "NotOlderThan", AllowWatchBookmarks: true}},
		{name: "no initial events", at: cms, list: metav1.ListOptions{SendInitialEvents: &no, ResourceVersion: "1", ResourceVersionMatch: "NotOlderThan"}},
	} {
		t.Run("watch "+s.name, func(t *testing.T) {
			s.verb = "watch"
			n := map[string]int{"everything that there was": 9, "a selection": 2, "initial events": 4, "no initial events": 9}[s.name]
			a, b := fronts[0].watch(t, s, n), fronts[1].watch(t, s, n)
			if strings.Join(a, "\n") != strings.Join(b, "\n") {
				t.Errorf("HTTP\n%s\ngRPC\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
			}
		})
	}
}
