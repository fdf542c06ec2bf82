package gateway_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/gateway"
	"github.com/wherry-project/wherry/internal/pki"
)

const maps = "/api/v1/namespaces/demo/configmaps"

func TestAnswers(t *testing.T) {
	c := start(t, options{})
	if a := c.do(t, "POST", maps, `{"metadata":{"name":"a"},"data":{"k":"v"}}`); a.StatusCode != http.StatusCreated {
		t.Fatalf("create: %s", a.text)
	}
	table := "Accept: application/json;as=Table;v=v1;g=meta.k8s.io"
	big := `{"metadata":{"name":"big"},"data":{"k":"` + strings.Repeat("x", 3<<20) + `"}}`
	tests := []struct {
		name, method, path, body string
		headers                  []string
		code                     int
		contains                 []string
		header                   string
	}{
		{name: "get", path: maps + "/a", code: 200, contains: []string{`"kind":"ConfigMap"`, `"k":"v"`}, header: "Content-Type: application/json"},
		{name: "head", method: "HEAD", path: maps + "/a", code: 200},
		{name: "get yaml", path: maps + "/a", headers: []string{"Accept: application/yaml"}, code: 200, contains: []string{"kind: ConfigMap"}, header: "Content-Type: application/yaml"},
		{name: "get pretty", path: maps + "/a?pretty=true", code: 200, contains: []string{"\n  \"kind\": \"ConfigMap\""}},
		{name: "get for a person", path: maps + "/a", headers: []string{"User-Agent: curl/8"}, code: 200, contains: []string{"\n  \"kind\""}},
		{name: "get table", path: maps + "/a", headers: []string{table}, code: 200, contains: []string{`"kind":"Table"`, `"columnDefinitions"`, `"kind":"PartialObjectMetadata"`}},
		{name: "get metadata", path: maps + "/a", headers: []string{"Accept: application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}, code: 200, contains: []string{`"kind":"PartialObjectMetadata"`, `"name":"a"`}},
		{name: "list", path: maps, code: 200, contains: []string{`"kind":"ConfigMapList"`, `"name":"a"`}},
		{name: "list everywhere", path: "/api/v1/configmaps", code: 200, contains: []string{`"name":"a"`}},
		{name: "list slash", path: maps + "/", code: 200, contains: []string{`"name":"a"`}},
		{name: "list table without objects", path: maps + "?includeObject=None", headers: []string{table}, code: 200, contains: []string{`"object":null`}},
		{name: "list other objects", path: maps + "?includeObject=Some", headers: []string{table}, code: 422, contains: []string{"includeObject"}},
		{name: "list yaml", path: maps, headers: []string{"Accept: application/yaml"}, code: 200, contains: []string{"kind: ConfigMapList"}},
		{name: "list by label", path: maps + "?labelSelector=a%3Db", code: 200, contains: []string{`"items":[]`}},
		{name: "list bad label", path: maps + "?labelSelector=a%20b%20c", code: 400, contains: []string{`"reason":"BadRequest"`}},
		{name: "list bad field", path: maps + "?fieldSelector=spec.x%3D1", code: 400, contains: []string{"is not a known field selector: only"}},
		{name: "list match without version", path: maps + "?resourceVersionMatch=Exact", code: 422, contains: []string{"resourceVersionMatch is forbidden unless resourceVersion is provided"}},
		{name: "list initial events", path: maps + "?sendInitialEvents=true", code: 422, contains: []string{"sendInitialEvents is forbidden for list"}},
		{name: "list continue with version", path: maps + "?continue=x&resourceVersion=3", code: 400, contains: []string{"specifying resource version is not allowed when using continue"}},
		{name: "list bad continue", path: maps + "?continue=x", code: 400},
		{name: "list bad limit", path: maps + "?limit=x", code: 400},
		{name: "watch bad match", path: maps + "?watch=1&resourceVersionMatch=NotOlderThan&resourceVersion=1", code: 422, contains: []string{"resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"}},
		{name: "watch yaml", path: maps + "?watch=1", headers: []string{"Accept: application/yaml"}, code: 406, contains: []string{`NotAcceptable`}},
		{name: "absent", path: maps + "/b", code: 404, contains: []string{`configmaps \"b\" not found`, `"kind":"Status"`}},
		{name: "no such resource", path: "/api/v1/namespaces/demo/nothings", code: 404, contains: []string{"the server could not find the requested resource"}},
		{name: "no such group", path: "/apis/nothing.example/v1/things", code: 404},
		{name: "no such path", path: "/nothing", code: 404, contains: []string{"404 page not found\n"}, header: "Content-Type: text/plain; charset=utf-8"},
		{name: "no such version", path: "/apis/apps/v9/deployments", code: 404, contains: []string{"404 page not found\n"}},
		{name: "no such group's documents", path: "/apis/nothing.example", code: 404, contains: []string{"404 page not found\n"}},
		{name: "no such subresource", path: maps + "/a/nothing", code: 404},
		{name: "too deep", path: maps + "/a/b/c", code: 404},
		{name: "not acceptable", path: maps + "/a", headers: []string{"Accept: text/html"}, code: 406, contains: []string{"only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"}},
		{name: "bad timeout", path: maps + "?timeout=x", code: 400, contains: []string{"invalid timeout specified in the request URL"}},
		{name: "post to an object", method: "POST", path: maps + "/a", body: "{}", code: 405},
		{name: "put to a collection", method: "PUT", path: maps, body: "{}", code: 405},
		{name: "odd method", method: "OPTIONS", path: maps, code: 405, contains: []string{`"message":"the server does not allow this method on the requested resource","reason":"MethodNotAllowed"`}},
		{name: "method on documents", method: "POST", path: "/version", code: 405},
		{name: "exists", method: "POST", path: maps, body: `{"metadata":{"name":"a"}}`, code: 409, contains: []string{`"reason":"AlreadyExists"`}},
		{name: "create yaml", method: "POST", path: maps, body: "metadata: {name: ya}\ndata: {k: v}\n", headers: []string{"Content-Type: application/yaml"}, code: 201},
		{name: "create with charset", method: "POST", path: maps, body: `{"metadata":{"name":"cs"}}`, headers: []string{"Content-Type: application/json; charset=utf-8"}, code: 201},
		{name: "create dry", method: "POST", path: maps + "?dryRun=All", body: `{"metadata":{"name":"dry"}}`, code: 201, contains: []string{`"name":"dry"`}},
		{name: "dry made nothing", path: maps + "/dry", code: 404},
		{name: "dry otherwise", method: "POST", path: maps + "?dryRun=Some", body: `{"metadata":{"name":"dry"}}`, code: 422, contains: []string{"CreateOptions.meta.k8s.io", "dryRun"}},
		{name: "create strict", method: "POST", path: maps + "?fieldValidation=Strict", body: `{"metadata":{"name":"s"},"foo":1,"data":{"a":"1","a":"2"}}`, code: 400, contains: []string{`strict decoding error: unknown field \"foo\", duplicate field \"data.a\"`}},
		{name: "create warned", method: "POST", path: maps + "?fieldValidation=Warn", body: `{"metadata":{"name":"w"},"foo":1}`, code: 201, header: `Warning: 299 - "unknown field \"foo\""`},
		{name: "create warned by default", method: "POST", path: maps, body: "metadata: {name: w2}\nfoo: 1\n", headers: []string{"Content-Type: application/yaml"}, code: 201, header: `Warning: 299 - "unknown field \"foo\""`},
		{name: "create ignored", method: "POST", path: maps + "?fieldValidation=Ignore", body: `{"metadata":{"name":"i"},"foo":1}`, code: 201, header: "Warning: "},
		{name: "create otherwise", method: "POST", path: maps + "?fieldValidation=Maybe", body: `{}`, code: 422, contains: []string{"fieldValidation"}},
		{name: "create another kind", method: "POST", path: maps, body: `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x"}}`, code: 400, contains: []string{`Secret in version \"v1\" cannot be handled as a ConfigMap`}},
		{name: "create another version", method: "POST", path: maps, body: `{"kind":"ConfigMap","apiVersion":"v2"}`, code: 400, contains: []string{"the API version in the data (v2) does not match the expected API version (v1)"}},
		{name: "create wrong type", method: "POST", path: maps, body: `{"kind":"ConfigMap","apiVersion":"v1","data":{"a":1}}`, code: 400, contains: []string{"ConfigMap in version \\\"v1\\\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string"}},
		{name: "create no JSON", method: "POST", path: maps, body: `{`, code: 400, contains: []string{"the object provided is unrecognized (must be of type ConfigMap)"}},
		{name: "create nothing", method: "POST", path: maps, body: ``, code: 400},
		{name: "create text", method: "POST", path: maps, body: `x`, headers: []string{"Content-Type: text/plain"}, code: 415, contains: []string{"UnsupportedMediaType"}},
		{name: "create odd type", method: "POST", path: maps, body: `x`, headers: []string{"Content-Type: ;;"}, code: 415},
		{name: "create no protobuf", method: "POST", path: maps, body: `x`, headers: []string{"Content-Type: application/vnd.kubernetes.protobuf"}, code: 400},
		{name: "create too large", method: "POST", path: maps, body: big, code: 413, contains: []string{"Request entity too large: limit is 3145728"}},
		{name: "create bad manager", method: "POST", path: maps + "?fieldManager=" + strings.Repeat("m", 129), body: `{}`, code: 422, contains: []string{"fieldManager"}},
		{name: "create elsewhere", method: "POST", path: maps, body: `{"metadata":{"name":"e","namespace":"other"}}`, code: 400, contains: []string{"the namespace of the provided object does not match the namespace sent on the request"}},
		{name: "put another name", method: "PUT", path: maps + "/a", body: `{"metadata":{"name":"b"}}`, code: 400},
		{name: "put stale", method: "PUT", path: maps + "/a", body: `{"metadata":{"name":"a","resourceVersion":"1"}}`, code: 409, contains: []string{"the object has been modified; please apply your changes to the latest version and try again"}},
		{name: "put", method: "PUT", path: maps + "/a", body: `{"metadata":{"name":"a"},"data":{"k":"w"}}`, code: 200, contains: []string{`"k":"w"`}},
		{name: "merge patch", method: "PATCH", path: maps + "/a", body: `{"data":{"m":"1"}}`, headers: []string{"Content-Type: application/merge-patch+json"}, code: 200, contains: []string{`"m":"1"`}},
		{name: "patch of no type", method: "PATCH", path: maps + "/a", body: `{}`, headers: []string{"Content-Type: application/json"}, code: 415, contains: []string{"application/apply-patch+yaml"}},
		{name: "patch forced", method: "PATCH", path: maps + "/a?force=true", body: `{}`, headers: []string{"Content-Type: application/merge-patch+json"}, code: 422, contains: []string{"may not be specified for non-apply patch"}},
		{name: "apply of nobody", method: "PATCH", path: maps + "/n", body: "{}", headers: []string{"Content-Type: application/apply-patch+yaml"}, code: 422, contains: []string{"is required for apply patch"}},
		{name: "apply makes", method: "PATCH", path: maps + "/n?fieldManager=me", body: "apiVersion: v1\nkind: ConfigMap\ndata: {k: v}\n", headers: []string{"Content-Type: application/apply-patch+yaml"}, code: 201, contains: []string{`"manager":"me"`}},
		{name: "apply again", method: "PATCH", path: maps + "/n?fieldManager=me", body: "apiVersion: v1\nkind: ConfigMap\ndata: {k: v}\n", headers: []string{"Content-Type: application/apply-patch+yaml"}, code: 200},
		{name: "apply in conflict", method: "PATCH", path: maps + "/n?fieldManager=you", body: "apiVersion: v1\nkind: ConfigMap\ndata: {k: w}\n", headers: []string{"Content-Type: application/apply-patch+yaml"}, code: 409, contains: []string{`Apply failed with 1 conflict: conflict with \"me\": .data.k`}},
		{name: "apply by force", method: "PATCH", path: maps + "/n?fieldManager=you&force=true", body: "apiVersion: v1\nkind: ConfigMap\ndata: {k: w}\n", headers: []string{"Content-Type: application/apply-patch+yaml"}, code: 200, contains: []string{`"k":"w"`}},
		{name: "apply twice", method: "PATCH", path: maps + "/n?fieldManager=you&fieldValidation=Strict", body: "apiVersion: v1\nkind: ConfigMap\ndata: {k: w}\ndata: {k: w}\n", headers: []string{"Content-Type: application/apply-patch+yaml"}, code: 400, contains: []string{"error strict decoding YAML"}},
		{name: "delete stale", method: "DELETE", path: maps + "/ya", body: `{"preconditions":{"uid":"x"}}`, code: 409},
		{name: "delete of another kind", method: "DELETE", path: maps + "/ya", body: `{"kind":"Pod","apiVersion":"v1"}`, code: 400},
		{name: "delete both", method: "DELETE", path: maps + "/ya", body: `{"orphanDependents":true,"propagationPolicy":"Orphan"}`, code: 422},
		{name: "delete dry", method: "DELETE", path: maps + "/ya?dryRun=All", code: 200},
		{name: "delete", method: "DELETE", path: maps + "/ya", body: `{"kind":"DeleteOptions","apiVersion":"policy/v1"}`, code: 200, contains: []string{`"status":"Success"`, `"details":{"name":"ya","kind":"configmaps","uid":"`}},
		{name: "deleted", path: maps + "/ya", code: 404},
		{name: "delete collection", method: "DELETE", path: maps + "?fieldSelector=metadata.name%3Di", code: 200, contains: []string{`"kind":"ConfigMapList"`, `"name":"i"`}},
		{name: "deleted one", path: maps + "/i", code: 404},
		{name: "deleted no other", path: maps + "/a", code: 200},
		{name: "namespace", path: "/api/v1/namespaces/demo", code: 200, contains: []string{`"kind":"Namespace"`}},
		{name: "no streams", path: "/api/v1/namespaces/demo/pods/p/log", code: 503, contains: []string{"no connection to nodes"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			method := tt.method
			if method == "" {
				method = "GET"
			}
			a := c.do(t, method, tt.path, tt.body, tt.headers...)
			if a.StatusCode != tt.code {
				t.Fatalf("answered %d, want %d: %s", a.StatusCode, tt.code, a.text)
			}
			for _, want := range tt.contains {
				if !strings.Contains(a.text, want) {
					t.Errorf("%q is not in %s", want, a.text)
				}
			}
			if name, value, ok := strings.Cut(tt.header, ": "); ok && a.Header.Get(name) != value {
				t.Errorf("%s is %q, want %q", name, a.Header.Get(name), value)
			}
			if a.Header.Get("Audit-Id") == "" {
				t.Error("no Audit-ID")
			}
		})
	}
}

func TestWho(t *testing.T) {
	c := start(t, options{})
	nobody := c.http(t)
	jane := c.http(t, c.certificate(t, pki.Request{User: "jane", Life: time.Hour}))
	other, err := pki.NewAuthority("other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stranger := c.http(t, (&cluster{ca: other}).certificate(t, pki.AdminRequest()))
	admin := c.http(t, c.admin)
	tests := []struct {
		name   string
		who    *http.Client
		path   string
		header string
		code   int
		text   string
	}{
		{"nobody sees health", nobody, "/readyz", "", 200, "ok"},
		{"nobody sees the version", nobody, "/version", "", 200, `"gitVersion": "v1.34.1+wherry.0"`},
		{"nobody sees no objects", nobody, maps, "", 403, `User \"system:anonymous\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"demo\"`},
		{"nobody sees no documents", nobody, "/apis", "", 403, `forbidden: User \"system:anonymous\" cannot get path \"/apis\"`},
		{"a user sees documents", jane, "/apis", "", 200, "APIGroupList"},
		{"a user sees no metrics", jane, "/metrics", "", 403, "cannot get path"},
		{"a user sees no objects", jane, maps, "", 403, `User \"jane\"`},
		{"a user attaches to nothing", jane, "/api/v1/namespaces/demo/pods/p/exec?stdout=1&command=x", "", 403, "jane"},
		{"a stranger is refused", stranger, maps, "", 401, `"message":"Unauthorized"`},
		{"a token is refused", admin, maps, "Authorization: Bearer x", 401, `"message":"Unauthorized"`},
		{"admin sees metrics", admin, "/metrics", "", 200, "apiserver_request_total"},
		{"admin is jane", admin, maps, "Impersonate-User: jane", 403, `User \"jane\"`},
		{"jane is nobody else", jane, maps, "Impersonate-User: kubernetes-admin", 403, "impersonate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var headers []string
			if tt.header != "" {
				headers = append(headers, tt.header)
			}
			a := c.doAs(t, tt.who, "GET", tt.path, "", headers...)
			if a.StatusCode != tt.code || !strings.Contains(a.text, tt.text) {
				t.Errorf("answered %d %s, want %d with %q", a.StatusCode, a.text, tt.code, tt.text)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	sick := fmt.Errorf("no leader")
	c := start(t, options{config: func(cfg *gateway.Config) {
		cfg.Live = []gateway.Check{{Name: "store", Run: func(context.Context) error { return nil }}}
		cfg.Ready = []gateway.Check{{Name: "raft", Run: func(context.Context) error { return sick }}}
	}})
	tests := []struct {
		path string
		code int
		text string
	}{
		{"/healthz", 200, "ok"},
		{"/livez?verbose", 200, "[+]ping ok\n[+]store ok\nlivez check passed\n"},
		{"/readyz", 500, "[+]ping ok\n[+]store ok\n[-]raft failed: reason withheld\nreadyz check failed\n"},
		{"/readyz?exclude=raft", 200, "ok"},
		{"/readyz?exclude=raft&exclude=sleep&verbose", 200, "[+]ping ok\n[+]store ok\n[+]raft excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"sleep\"\nreadyz check passed\n"},
		{"/readyz/sleep", 404, "404 page not found\n"},
		{"/readyz/store", 200, "ok"},
		{"/readyz/raft", 500, "internal server error: raft check failed\n"},
	}
	for _, tt := range tests {
		if a := c.do(t, "GET", tt.path, ""); a.StatusCode != tt.code || a.text != tt.text {
			t.Errorf("%s: %d %q", tt.path, a.StatusCode, a.text)
		}
	}
}

func TestLimits(t *testing.T) {
	s := &slow{inside: make(chan struct{}), release: make(chan struct{})}
	c := start(t, options{
		wrap:   func(r api.Resources) api.Resources { s.Resources = r; return s },
		config: func(cfg *gateway.Config) { cfg.Limits = gateway.Limits{Reads: 1} },
	})
	jane := c.http(t, c.certificate(t, pki.Request{User: "jane", Life: time.Hour}))
	ended := make(chan answer, 1)
	go func() { ended <- c.do(t, "GET", maps+"/wait", "") }()
	<-s.inside
	if a := c.doAs(t, jane, "GET", "/apis", ""); a.StatusCode != 429 || a.Header.Get("Retry-After") != "1" {
		t.Errorf("a request too many: %d %s", a.StatusCode, a.text)
	}
	if a := c.do(t, "GET", "/apis", ""); a.StatusCode != 200 {
		t.Errorf("an administrator in a full house: %d %s", a.StatusCode, a.text)
	}
	s.release <- struct{}{}
	if a := <-ended; a.StatusCode != 404 {
		t.Errorf("a request that was slow: %d %s", a.StatusCode, a.text)
	}
	if a := c.doAs(t, jane, "GET", "/apis", ""); a.StatusCode != 200 {
		t.Errorf("the place was not given back: %d", a.StatusCode)
	}
	go func() { ended <- c.do(t, "GET", maps+"/wait?timeout=1s", "") }()
	<-s.inside
	if a := <-ended; a.StatusCode != 504 {
		t.Errorf("the client's own time: %d %s", a.StatusCode, a.text)
	}
	if a := c.do(t, "GET", maps+"/panic", ""); a.StatusCode != 500 || strings.Contains(a.text, "broken handler") {
		t.Errorf("a handler that breaks: %d %s", a.StatusCode, a.text)
	}
}

func TestTimeLimit(t *testing.T) {
	s := &slow{inside: make(chan struct{}, 1)}
	c := start(t, options{
		wrap:   func(r api.Resources) api.Resources { s.Resources = r; return s },
		config: func(cfg *gateway.Config) { cfg.Limits.Time = time.Second },
	})
	if a := c.do(t, "GET", maps+"/wait", ""); a.StatusCode != 504 || !strings.Contains(a.text, `"reason":"Timeout"`) {
		t.Errorf("a request that takes too long: %d %s", a.StatusCode, a.text)
	}
}

func TestZip(t *testing.T) {
	c := start(t, options{})
	value := strings.Repeat("0123456789", 20000)
	if a := c.do(t, "POST", maps, `{"metadata":{"name":"z"},"data":{"k":"`+value+`"}}`); a.StatusCode != 201 {
		t.Fatal(a.text)
	}
	for range 2 { // the second time with a writer that was used before
		a := c.do(t, "GET", maps+"/z", "", "Accept-Encoding: gzip")
		if a.Header.Get("Content-Encoding") != "gzip" || a.Header.Get("Vary") != "Accept-Encoding" {
			t.Fatalf("headers %v", a.Header)
		}
		z, err := gzip.NewReader(strings.NewReader(a.text))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil || !strings.Contains(string(b), value) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	}
	if a := c.do(t, "GET", maps+"/z", "", "Accept-Encoding: identity"); a.Header.Get("Content-Encoding") != "" || !strings.Contains(a.text, value) {
		t.Errorf("headers %v", a.Header)
	}
}

func TestDiscovery(t *testing.T) {
	c := start(t, options{})
	accept := "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
	a := c.do(t, "GET", "/apis", "", accept)
	if a.Header.Get("Content-Type") != "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList" || !strings.Contains(a.text, `"kind":"APIGroupDiscoveryList"`) {
		t.Errorf("%v %s", a.Header, a.text)
	}
	if a := c.do(t, "GET", "/apis", "", accept, "If-None-Match: "+a.Header.Get("Etag")); a.StatusCode != http.StatusNotModified {
		t.Errorf("the same again: %d", a.StatusCode)
	}
	for path, kind := range map[string]string{"/api": "APIVersions", "/apis": "APIGroupList", "/apis/apps": "APIGroup", "/api/v1": "APIResourceList", "/apis/apps/v1": "APIResourceList"} {
		a := c.do(t, "GET", path, "")
		var got metav1.TypeMeta
		if err := json.Unmarshal([]byte(a.text), &got); err != nil || got.Kind != kind {
			t.Errorf("%s is %s", path, a.text)
		}
	}
	if a := c.do(t, "GET", "/apis/nothing.example/v1", ""); a.StatusCode != 404 {
		t.Errorf("a group that is not there: %d", a.StatusCode)
	}
	if a := c.do(t, "GET", "/", ""); !strings.Contains(a.text, `"/apis/apps/v1"`) {
		t.Errorf("paths %s", a.text)
	}
}

// tinySchema is an OpenAPI.
type tinySchema struct{}

func (tinySchema) Index() (map[string]string, error) { return map[string]string{"api/v1": "AB"}, nil }
func (tinySchema) V3(path string) ([]byte, error)    { return []byte(`{"v3":"` + path + `"}`), nil }
func (tinySchema) V3Proto(string) ([]byte, error)    { return []byte("proto3"), nil }
func (tinySchema) V2() ([]byte, string, error)       { return []byte(`{"v2":1}`), "CD", nil }
func (tinySchema) V2Proto() ([]byte, string, error)  { return []byte("proto2"), "CE", nil }

func TestOpenAPI(t *testing.T) {
	c := start(t, options{config: func(cfg *gateway.Config) { cfg.OpenAPI = tinySchema{} }})
	tests := []struct {
		path, accept string
		code         int
		text, header string
	}{
		{"/openapi/v3", "", 200, `"serverRelativeURL": "/openapi/v3/api/v1?hash=AB"`, "Content-Type: application/json"},
		{"/openapi/v3/api/v1?hash=AB", "application/json", 200, `{"v3":"api/v1"}`, "Cache-Control: public, immutable"},
		{"/openapi/v3/api/v1", "", 200, `{"v3":"api/v1"}`, `Etag: "AB"`},
		{"/openapi/v3/api/v1?hash=XX", "", 301, "", "Location: /openapi/v3/api/v1?hash=AB"},
		{"/openapi/v3/api/v1", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf", 200, "proto3", "Content-Type: application/com.github.proto-openapi.spec.v3.v1.0+protobuf"},
		{"/openapi/v3/apis/x/v1", "", 404, "", ""},
		{"/openapi/v2", "", 200, `{"v2":1}`, `Etag: "CD"`},
		{"/openapi/v2", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf,application/json", 200, "proto2", "Content-Type: application/com.github.proto-openapi.spec.v2.v1.0+protobuf"},
		{"/openapi/v9", "", 404, "", ""},
	}
	for _, tt := range tests {
		a := c.do(t, "GET", tt.path, "", "Accept: "+tt.accept)
		name, value, _ := strings.Cut(tt.header, ": ")
		if a.StatusCode != tt.code || !strings.Contains(a.text, tt.text) || a.Header.Get(name) != value {
			t.Errorf("%s %s: %d %s %v", tt.path, tt.accept, a.StatusCode, a.text, a.Header)
		}
	}
}
