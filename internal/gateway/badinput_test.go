package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/gateway"
)

// TestBadBodies sends what nobody should: each is answered with an error, or at
// a bounded cost, and the server goes on.
func TestBadBodies(t *testing.T) {
	// How long an answer takes on a busy machine is not what is tested.
	c := start(t, options{config: func(cfg *gateway.Config) { cfg.Limits.Time = 5 * time.Minute }})
	if a := c.do(t, "POST", maps, `{"metadata":{"name":"a"},"data":{"k":"v"}}`); a.StatusCode != 201 {
		t.Fatal(a.text)
	}
	limit := strings.Repeat(" ", 3<<20)
	deep := func(open, close string, n int) string { return strings.Repeat(open, n) + strings.Repeat(close, n) }
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	crds := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	crd := func(schema string) string {
		return `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"things.example.com"},"spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"things","kind":"Thing"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":` + schema + `}}]}}`
	}
	invalidUTF8, err := (&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "u", Labels: map[string]string{"a": "\xff\xfe"}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	json, yaml, merge, strategic, jsonPatch, apply := "Content-Type: application/json", "Content-Type: application/yaml", "Content-Type: application/merge-patch+json",
		"Content-Type: application/strategic-merge-patch+json", "Content-Type: application/json-patch+json", "Content-Type: application/apply-patch+yaml"
	pods := "/api/v1/namespaces/demo/pods"
	tests := []struct {
		name, method, path, body, header string
		codes                            []int
		contains                         string
	}{
		{"3 MiB and one to create", "POST", maps, limit + "{", json, []int{413}, "Request entity too large: limit is 3145728"},
		{"3 MiB and one to replace", "PUT", maps + "/a", limit + "{", json, []int{413}, "limit is 3145728"},
		{"3 MiB and one to patch", "PATCH", maps + "/a", limit + "{", merge, []int{413}, "limit is 3145728"},
		{"3 MiB and one to delete", "DELETE", maps + "/a", limit + "{", json, []int{413}, "limit is 3145728"},
		{"3 MiB", "POST", maps, limit, json, []int{400}, "unrecognized"},
		{"100 levels in an unknown field", "POST", maps, `{"metadata":{"name":"d1"},"x":` + deep(`{"a":`, "}", 99) + "", json, []int{400}, ""},
		{"100 levels of lists", "POST", maps + "?fieldValidation=Ignore", `{"metadata":{"name":"d2"},"x":` + deep("[", "]", 100) + "}", json, []int{201}, ""},
		{"100,000 levels of lists", "POST", maps, `{"metadata":{"name":"d3"},"x":` + deep("[", "]", 100_000) + "}", json, []int{400}, "depth"},
		{"100,000 levels of YAML", "POST", maps, "x: " + deep("[", "]", 100_000), yaml, []int{400}, ""},
		{"100 levels of a schema", "POST", crds, crd(deep(`{"type":"object","properties":{"a":`, "}}", 99)), json, []int{400, 422}, ""},
		{"5,000 levels of a schema", "POST", crds, crd(strings.Repeat(`{"not":`, 5000) + "{}" + strings.Repeat("}", 5000)), json, []int{400, 422}, ""},
		{"100,000 levels to merge", "PATCH", maps + "/a", `{"data":` + deep(`{"a":`, "}", 100_000) + "}", merge, []int{400}, ""},
		{"100 levels to merge", "PATCH", maps + "/a", `{"data":{"k":` + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 101) + "}", merge, []int{400, 422}, ""},
		{"100,000 levels to apply", "PATCH", maps + "/a?fieldManager=m", "data: " + deep("[", "]", 100_000), apply, []int{400}, ""},
		{"aliases of aliases", "POST", maps, "a: &a [x,x,x,x,x,x,x,x,x]\n" + aliases(12), yaml, []int{400}, ""},
		{"aliases of aliases to apply", "PATCH", maps + "/a?fieldManager=m", "a: &a [x,x,x,x,x,x,x,x,x]\n" + aliases(12), apply, []int{400}, ""},
		{"200,000 labels", "POST", maps, `{"metadata":{"name":"l1","labels":{` + many(200_000, `"%d":""`) + "}}}", json, []int{413}, "too large"},
		{"60,000 bad labels", "POST", maps, `{"metadata":{"name":"l2","labels":{` + many(60_000, `"/%d":"!"`) + "}}}", json, []int{422}, "Invalid value"},
		{"annotations of 300 KiB", "POST", maps, `{"metadata":{"name":"l3","annotations":{"a":"` + strings.Repeat("x", 300<<10) + `"}}}`, json, []int{422}, "metadata.annotations: Too long: may not be more than 262144 bytes"},
		{"10,001 operations", "PATCH", maps + "/a", "[" + many(10_001, `{"op":"test","path":"/data/k","value":"%d"}`) + "]", jsonPatch, []int{413}, "The allowed maximum operations in a JSON patch is 10000, got 10001"},
		{"copies of copies", "PATCH", maps + "/a", `[{"op":"add","path":"/data/x","value":"` + strings.Repeat("x", 100<<10) + `"},` + many(200, `{"op":"copy","from":"/data","path":"/data/c%d"}`) + "]", jsonPatch, []int{422}, ""},
		{"no operation", "PATCH", maps + "/a", `[{"op":"fly","path":"/data"}]`, jsonPatch, []int{422}, ""},
		{"no strategy", "PATCH", maps + "/a", `{"data":{"$patch":"fly"}}`, strategic, []int{400}, ""},
		{"text that is not UTF-8", "POST", maps, "{\"metadata\":{\"name\":\"u\xff\"}}", json, []int{422}, "a lowercase RFC 1123 subdomain"},
		{"YAML that is not UTF-8", "POST", maps, "metadata: {name: \"u\xff\"}", yaml, []int{400}, ""},
		{"protobuf that is not UTF-8", "POST", maps, string(api.WrapProtobuf(corev1.SchemeGroupVersion.WithKind("ConfigMap"), invalidUTF8)), "Content-Type: " + api.MediaProtobuf, []int{422}, "metadata.labels: Invalid value"},
		{"cut protobuf", "POST", maps, "k8s\x00\x12\x05\x0a\x7f", "Content-Type: " + api.MediaProtobuf, []int{400}, ""},
		{"no quantity", "POST", pods, `{"metadata":{"name":"q"},"spec":{"containers":[{"name":"a","image":"a","resources":{"limits":{"cpu":"NaN"}}}]}}`, json, []int{400}, "quantities must match the regular expression"},
		{"an endless quantity", "POST", pods, `{"metadata":{"name":"q"},"spec":{"containers":[{"name":"a","image":"a","resources":{"limits":{"cpu":"1e999999999"}}}]}}`, json, []int{400, 201, 422}, ""},
		{"a number without end", "POST", pods, `{"metadata":{"name":"q2"},"spec":{"priority":1e400}}`, json, []int{400}, ""},
		{"keys twice", "POST", maps + "?fieldValidation=Strict", `{"metadata":{"name":"k","name":"l"},"data":{}}`, json, []int{400}, `strict decoding error: duplicate field \"metadata.name\"`},
		{"keys twice in YAML", "POST", maps + "?fieldValidation=Strict", "metadata: {name: k}\ndata: {a: b}\ndata: {c: d}\n", yaml, []int{400}, "already set in map"},
		{"keys twice to apply", "PATCH", maps + "/a?fieldManager=m&fieldValidation=Strict", "data: {a: b}\ndata: {c: d}\n", apply, []int{400}, "already set in map"},
		{"fields of nobody", "PUT", maps + "/a", `{"metadata":{"name":"a","managedFields":[{"manager":"m","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"x":` + strings.Repeat(`{"f:a":`, 500) + "{}" + strings.Repeat("}", 500) + "}}]}}", json, []int{200, 400, 422}, ""},
		{"a long selector", "GET", maps + "?labelSelector=a+in+(" + strings.Repeat("b,", 20_000) + "c)", "", json, []int{200, 400, 431}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := c.do(t, tt.method, tt.path, tt.body, tt.header)
			ok := false
			for _, code := range tt.codes {
				ok = ok || a.StatusCode == code
			}
			if !ok || !strings.Contains(a.text, tt.contains) {
				t.Errorf("answered %d %.600s, want %v with %q", a.StatusCode, a.text, tt.codes, tt.contains)
			}
			if len(a.text) > 1<<20 {
				t.Errorf("the answer has %d bytes", len(a.text))
			}
		})
	}
	if a := c.do(t, "GET", maps+"/a", ""); a.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d %s", a.StatusCode, a.text)
	}
}

// aliases are YAML whose text would be nine to the power of n times as long.
func aliases(n int) string {
	var b strings.Builder
	for i := range n {
		name, of := string(rune('a'+i+1)), "*"+string(rune('a'+i))
		fmt.Fprintf(&b, "%s: &%s [%s]\n", name, name, strings.TrimSuffix(strings.Repeat(of+",", 9), ","))
	}
	return b.String()
}
