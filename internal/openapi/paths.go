package openapi

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wherry-project/wherry/internal/api"
)

// The media types of bodies.
const (
	mediaJSON     = "application/json"
	mediaYAML     = "application/yaml"
	mediaProtobuf = "application/vnd.kubernetes.protobuf"
)

func patchMedia() []string {
	return []string{
		"application/apply-patch+yaml", "application/json-patch+json",
		"application/merge-patch+json", "application/strategic-merge-patch+json",
	}
}

// operation is one method of one path, before it is written as v2 or v3.
type operation struct {
	id, text, action string
	gvk              schema.GroupVersionKind
	params           []param
	// in and out are models of bodies; empty is none, or a stream.
	in, out string
	patch   bool
	created bool // may answer 201
}

type param struct{ name, in, typ, text string }

// route is a path and what can be done there.
type route struct {
	path   string
	params []param
	ops    map[string]*operation // by method
}

// router makes the routes of kinds.
type router struct {
	s      *shaper
	status string // models
	delete string
	routes []*route
}

func newRouter(s *shaper, kinds []*api.Kind) *router {
	r := &router{s: s}
	r.status = s.body(&metav1.Status{}, schema.GroupVersionKind{Version: "v1", Kind: "Status"})
	r.delete = s.body(&metav1.DeleteOptions{}, optionGVKs(kinds)...)
	s.out[patchModel] = node{
		"type": "object", "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.",
	}
	for _, k := range kinds {
		r.kind(k)
	}
	return r
}

const patchModel = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"

// optionGVKs: options of a delete may be written in every group and version.
func optionGVKs(kinds []*api.Kind) []schema.GroupVersionKind {
	out := []schema.GroupVersionKind{{Version: "v1", Kind: "DeleteOptions"}}
	seen := map[schema.GroupVersion]bool{{Version: "v1"}: true}
	for _, k := range kinds {
		if gv := k.GVK().GroupVersion(); !seen[gv] {
			seen[gv] = true
			out = append(out, gv.WithKind("DeleteOptions"))
		}
	}
	return out
}

func (r *router) kind(k *api.Kind) {
	model, list := r.s.kind(k)
	root, base := "/"+groupPath(k)+"/", "/"+groupPath(k)+"/"
	var inNamespace []param
	if k.Namespaced {
		base += "namespaces/{namespace}/"
		inNamespace = []param{{"namespace", "path", "string", "The namespace of the object."}}
		if has(k.Verbs, "list") {
			r.add(&route{path: root + k.Resource, ops: map[string]*operation{"get": r.op(k, "list", "ForAllNamespaces", "", list)}})
		}
	}
	many := &route{path: base + k.Resource, params: inNamespace, ops: map[string]*operation{}}
	named := append([]param{{"name", "path", "string", "The name of the " + k.Kind + "."}}, inNamespace...)
	one := &route{path: base + k.Resource + "/{name}", params: named, ops: map[string]*operation{}}
	for _, verb := range k.Verbs {
		switch verb {
		case "list":
			many.ops["get"] = r.op(k, "list", "", "", list)
		case "create":
			many.ops["post"] = r.op(k, "post", "", model, model)
		case "deletecollection":
			many.ops["delete"] = r.op(k, "deletecollection", "", r.delete, r.status)
		case "get":
			one.ops["get"] = r.op(k, "get", "", "", model)
		case "update":
			one.ops["put"] = r.op(k, "put", "", model, model)
		case "patch":
			one.ops["patch"] = r.op(k, "patch", "", patchModel, model)
		case "delete":
			gone := r.status
			if k.DeleteAnswersObject {
				gone = model
			}
			one.ops["delete"] = r.op(k, "delete", "", r.delete, gone)
		}
	}
	r.add(many)
	r.add(one)
	for _, sub := range k.Subresources {
		r.sub(k, sub, model, one)
	}
}

// sub makes the route of a subresource. Its operations speak of the kind of
// their body.
func (r *router) sub(k *api.Kind, sub api.Subresource, model string, parent *route) {
	gvk := k.GVK()
	switch {
	case sub.New != nil:
		if sub.Kind != "" {
			gvk = schema.GroupVersionKind{Group: sub.Group, Version: sub.Version, Kind: sub.Kind}
		}
		if gvk.Version == "" {
			gvk.Group, gvk.Version = k.Group, k.Version
		}
		model = r.s.body(sub.New(), gvk)
	case sub.Kind != "" || sub.Name == "log":
		model = "" // a stream
		if sub.Kind != "" {
			gvk.Kind = sub.Kind
		}
	}
	at := &route{path: parent.path + "/" + sub.Name, params: parent.params, ops: map[string]*operation{}}
	for _, verb := range sub.Verbs {
		var method, action, in string
		switch verb {
		case "get":
			method, action = "get", "get"
		case "create":
			method, action, in = "post", "post", model
		case "update":
			method, action, in = "put", "put", model
		case "patch":
			method, action, in = "patch", "patch", patchModel
		default:
			continue
		}
		if model == "" {
			action = "connect"
			if sub.Name == "log" {
				action = "get"
			}
		}
		op := r.op(k, action, title(sub.Name), in, model)
		op.id += "For" + strings.ToUpper(method)
		op.gvk = gvk
		if model == "" {
			op.params, op.in = streamParams(sub.Name), ""
		}
		at.ops[method] = op
	}
	r.add(at)
}

func (r *router) add(at *route) {
	if len(at.ops) > 0 {
		r.routes = append(r.routes, at)
	}
}

func (r *router) op(k *api.Kind, action, suffix, in, out string) *operation {
	group := title(strings.TrimSuffix(strings.Split(k.Group, ".")[0], "."))
	if k.Group == "" {
		group = "Core"
	}
	scope := ""
	if k.Namespaced && suffix != "ForAllNamespaces" {
		scope = "Namespaced"
	}
	o := &operation{
		id:     action + group + title(k.Version) + scope + k.Kind + suffix,
		text:   action + " objects of kind " + k.Kind,
		action: action, gvk: k.GVK(), in: in, out: out,
		patch: action == "patch", created: action == "post" || action == "put" || action == "patch",
	}
	o.params = actionParams(action)
	return o
}

func title(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func has(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// actionParams are the query parameters of an action.
func actionParams(action string) []param {
	q := func(typ, text, name string) param { return param{name, "query", typ, text} }
	pretty := q("string", "If 'true', then the output is indented.", "pretty")
	dryRun := q("string", "All runs every stage of the request but does not store the result.", "dryRun")
	manager := q("string", "The name of the actor that makes the change; at most 128 printable characters.", "fieldManager")
	validation := q("string", "What to do about unknown and duplicate fields: Ignore, Warn (the default) or Strict.", "fieldValidation")
	grace := q("integer", "Seconds before the object is deleted; zero means at once.", "gracePeriodSeconds")
	policy := q("string", "What becomes of dependents: Orphan, Background or Foreground.", "propagationPolicy")
	lists := []param{
		q("boolean", "Asks for watch events of type BOOKMARK.", "allowWatchBookmarks"),
		q("string", "The token of the last page, to get the next one.", "continue"),
		q("string", "Narrows the objects by their fields.", "fieldSelector"),
		q("string", "Narrows the objects by their labels.", "labelSelector"),
		q("integer", "The greatest number of objects in one answer.", "limit"),
		q("string", "The revision that the answer is measured by.", "resourceVersion"),
		q("string", "How resourceVersion is applied: NotOlderThan or Exact.", "resourceVersionMatch"),
		q("boolean", "Begins a watch with the objects that there are.", "sendInitialEvents"),
		q("integer", "Ends the call after so many seconds.", "timeoutSeconds"),
	}
	switch action {
	case "list":
		return append(append([]param{pretty}, lists...), q("boolean", "Watch instead of list.", "watch"))
	case "post", "put":
		return []param{pretty, dryRun, manager, validation}
	case "patch":
		return []param{pretty, dryRun, manager, validation, q("boolean", "Takes fields from other managers; for apply only.", "force")}
	case "delete":
		return []param{pretty, dryRun, grace, policy, q("boolean", "Deprecated: use propagationPolicy.", "orphanDependents")}
	case "deletecollection":
		return append([]param{pretty, dryRun, grace, policy}, lists...)
	}
	return []param{pretty}
}

// streamParams are the query parameters of what answers with a stream: the
// fields of its options.
func streamParams(name string) []param {
	var docs map[string]string
	var fields []param
	of := func(typ string, names ...string) {
		for _, n := range names {
			fields = append(fields, param{n, "query", typ, docs[n]})
		}
	}
	switch name {
	case "log":
		docs = corev1.PodLogOptions{}.SwaggerDoc()
		of("string", "container", "sinceTime")
		of("boolean", "follow", "previous", "timestamps")
		of("integer", "limitBytes", "sinceSeconds", "tailLines")
	case "exec":
		docs = corev1.PodExecOptions{}.SwaggerDoc()
		of("string", "command", "container")
		of("boolean", "stderr", "stdin", "stdout", "tty")
	case "attach":
		docs = corev1.PodAttachOptions{}.SwaggerDoc()
		of("string", "container")
		of("boolean", "stderr", "stdin", "stdout", "tty")
	case "portforward":
		docs = corev1.PodPortForwardOptions{}.SwaggerDoc()
		of("integer", "ports")
	}
	return fields
}
