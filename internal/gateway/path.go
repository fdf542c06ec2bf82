package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/wherry-project/wherry/internal/api"
)

// path is what method and URL say.
type path struct {
	// resource: the target is an object or a collection, and verb says what
	// to do with it; an empty verb is a method that makes no sense there.
	resource bool
	verb     string
	api.Target
	// rest follows proxy in the path, decoded and as it was sent, from its
	// slash on; both are empty if there is none.
	rest, rawRest string
}

// parsePath understands
//
//	/api/VERSION[/watch][/namespaces/NS]/RESOURCE[/NAME[/SUBRESOURCE]]
//	/apis/GROUP/VERSION…
//	/api/VERSION[/namespaces/NS]/RESOURCE/NAME/proxy[/ANYTHING]
//
// What is none of them is no resource.
func parsePath(method string, u *url.URL) path {
	full := u.Path
	var p path
	if before, rest, ok := cutProxy(u.Path); ok {
		full, p.rest = before, rest
		// A slash that stands encoded in the rest stays so.
		if _, p.rawRest, ok = cutProxy(u.EscapedPath()); !ok {
			p.rawRest = ""
		}
	}
	parts := strings.Split(strings.Trim(full, "/"), "/")
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		p.Version, parts = parts[1], parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		p.Group, p.Version, parts = parts[1], parts[2], parts[3:]
	default:
		return path{}
	}
	watch := false
	if parts[0] == "watch" && len(parts) > 1 {
		watch, parts = true, parts[1:]
	}
	if parts[0] == "namespaces" && len(parts) > 2 && p.Group == "" && (parts[2] == "status" || parts[2] == "finalize") && len(parts) == 3 {
		// A subresource of the namespace itself.
	} else if parts[0] == "namespaces" && len(parts) > 2 {
		p.Namespace, parts = parts[1], parts[2:]
	}
	for _, s := range parts {
		if s == "" {
			return path{}
		}
	}
	if len(parts) > 3 {
		return path{}
	}
	p.Resource = parts[0]
	if len(parts) > 1 {
		p.Name = parts[1]
	}
	if len(parts) > 2 {
		p.Subresource = parts[2]
	}
	p.resource = true
	p.verb = verb(method, p.Target, watch || isTrue(u.Query(), "watch"), watch)
	return p
}

// cutProxy cuts a path behind the proxy subresource of a pod, service or node.
func cutProxy(p string) (before, rest string, ok bool) {
	for _, under := range []string{"/api/v1/namespaces/", "/api/v1/nodes/"} {
		tail, found := strings.CutPrefix(p, under)
		if !found {
			continue
		}
		parts := strings.SplitN(tail, "/", 5)
		at := 3 // NS, RESOURCE, NAME, proxy
		if under == "/api/v1/nodes/" {
			at = 1
		}
		if len(parts) <= at || parts[at] != "proxy" || at == 3 && parts[1] != "pods" && parts[1] != "services" {
			return "", "", false
		}
		before = under + strings.Join(parts[:at+1], "/")
		return before, p[len(before):], true
	}
	return "", "", false
}

// verb is the API's name for a method. A GET of one object watches only under
// the old watch path.
func verb(method string, t api.Target, watch, old bool) string {
	switch {
	case (method == http.MethodGet || method == http.MethodHead) && t.Name != "" && !old:
		return "get"
	case (method == http.MethodGet || method == http.MethodHead) && watch:
		return "watch"
	case method == http.MethodGet, method == http.MethodHead:
		return "list"
	case method == http.MethodPost && (t.Name == "" || t.Subresource != ""):
		return "create"
	case method == http.MethodPut && t.Name != "":
		return "update"
	case method == http.MethodPatch && t.Name != "":
		return "patch"
	case method == http.MethodDelete && t.Name != "" && (t.Subresource == "" || t.Subresource == "proxy"):
		return "delete"
	case method == http.MethodDelete && t.Name == "":
		return "deletecollection"
	}
	return ""
}

// stream reports whether the path is one of a pod's streams.
func (p path) stream() bool {
	if !p.resource || p.Group != "" || p.Version != "v1" || p.Resource != "pods" {
		return false
	}
	switch p.Subresource {
	case "log", "exec", "attach", "portforward":
		return true
	}
	return false
}

// proxied reports whether the path is a proxy subresource.
func (p path) proxied() bool {
	if !p.resource || p.Group != "" || p.Version != "v1" || p.Subresource != "proxy" {
		return false
	}
	return p.Resource == "pods" || p.Resource == "services" || p.Resource == "nodes"
}

// longRunning reports whether a request may take as long as it likes.
func (p path) longRunning() bool { return p.verb == "watch" || p.stream() || p.proxied() }

// mutating reports whether a request counts among those that write.
func (p path) mutating() bool {
	switch p.verb {
	case "get", "list", "watch":
		return false
	}
	return p.resource
}

// isTrue reads a boolean parameter as Kubernetes does: present and neither
// "false" nor "0".
func isTrue(q url.Values, name string) bool {
	v, ok := q[name]
	if !ok || len(v) == 0 {
		return false
	}
	return !strings.EqualFold(v[0], "false") && v[0] != "0"
}
