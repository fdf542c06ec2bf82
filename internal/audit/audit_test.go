package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
)

type sink struct {
	bytes.Buffer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	return s.Buffer.Write(p)
}

func (s *sink) Close() error { return nil }

func policyOf(t *testing.T, text string) (*Policy, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadPolicy(file)
}

const head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"

func TestPolicy(t *testing.T) {
	p, err := policyOf(t, head+`
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:kube-scheduler"], verbs: [watch]}
- {level: None, userGroups: ["system:nodes"], resources: [{group: "", resources: [nodes]}]}
- {level: Metadata, resources: [{group: "", resources: [secrets, "*/token"]}]}
- {level: Request, resources: [{group: "", resources: [configmaps], resourceNames: [one]}], namespaces: [kube-system]}
- {level: RequestResponse, resources: [{group: apps}, {group: "", resources: ["pods/*"]}]}
- {level: None, nonResourceURLs: ["/healthz*", /version]}
- {level: Metadata, nonResourceURLs: ["*"]}
`)
	if err != nil {
		t.Fatal(err)
	}
	node := api.User{Name: "system:node:n", Groups: []string{"system:nodes"}}
	at := func(group, resource, sub, namespace, name string) *api.Target {
		return &api.Target{Group: group, Resource: resource, Subresource: sub, Namespace: namespace, Name: name}
	}
	for i, c := range []struct {
		u    api.User
		verb string
		t    *api.Target
		path string
		want Level
	}{
		{api.User{Name: "system:kube-scheduler"}, "watch", at("", "secrets", "", "", ""), "", None},
		{api.User{Name: "system:kube-scheduler"}, "get", at("", "secrets", "", "a", "b"), "", Metadata},
		{node, "get", at("", "nodes", "", "", "n"), "", None},
		{node, "update", at("", "nodes", "status", "", "n"), "", None},
		{api.User{}, "create", at("", "serviceaccounts", "token", "a", "b"), "", Metadata},
		{api.User{}, "get", at("", "serviceaccounts", "", "a", "b"), "", None},
		{api.User{}, "get", at("", "configmaps", "", "kube-system", "one"), "", Request},
		{api.User{}, "get", at("", "configmaps", "", "kube-system", "two"), "", None},
		{api.User{}, "get", at("", "configmaps", "", "default", "one"), "", None},
		{api.User{}, "get", at("apps", "deployments", "scale", "default", "d"), "", RequestResponse},
		{api.User{}, "create", at("", "pods", "exec", "default", "d"), "", RequestResponse},
		{api.User{}, "create", at("", "pods", "", "default", "d"), "", None},
		{api.User{}, "get", nil, "/healthz/ping", None},
		{api.User{}, "get", nil, "/version", None},
		{api.User{}, "get", nil, "/metrics", Metadata},
	} {
		if got := p.decide(c.u, c.verb, c.t, c.path).level; got != c.want {
			t.Errorf("%d: %s, want %s", i, got, c.want)
		}
	}
}

func TestBadPolicies(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "want audit.k8s.io/v1 Policy",
		"kind: Policy":                        "want audit.k8s.io/v1 Policy",
		head:                                  "rules: there must be at least one",
		head + "rules: [{level: Everything}]": `rules[0].level: "Everything" is none of`,
		head + "rules: [{}]":                  `rules[0].level: "" is none of`,
		head + "rules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]": "rules[0].nonResourceURLs",
		head + "rules: [{level: None, nonResourceURLs: [a]}]":                   `nonResourceURLs[0]: "a"`,
		head + "rules: [{level: None, nonResourceURLs: [/a*b]}]":                `nonResourceURLs[0]: "/a*b"`,
		head + "rules: [{level: None, resources: [{group: apps/v1}]}]":          "rules[0].resources[0].group",
		head + "rules: [{level: None, resources: [{resourceNames: [a]}]}]":      "rules[0].resources[0].resourceNames",
		head + "omitStages: [Later]\nrules: [{level: None}]":                    `omitStages: "Later"`,
		head + "rules: [{level: None, omitStages: [Later]}]":                    `rules[0].omitStages: "Later"`,
		head + "rulez: []": "unknown field",
	} {
		if _, err := policyOf(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
}

func events(t *testing.T, s *sink) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range strings.Lines(s.String()) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, e)
	}
	return out
}

func TestEvents(t *testing.T) {
	s := &sink{}
	l := New(s, &Policy{Rules: []Rule{{Level: RequestResponse}}, OmitManagedFields: true}, slog.New(slog.DiscardHandler))
	real := api.User{Name: "root", Groups: []string{"system:masters"}}
	e := l.Begin(Call{ID: "id", URI: "/api/v1/pods?x=y", Verb: "create", User: api.User{Name: "jane", By: &real}, Received: time.Now(),
		Target: &api.Target{Version: "v1", Resource: "pods", Namespace: "ns", Name: "p"}, SourceIPs: []string{"192.0.2.1"}, UserAgent: "test"})
	e.Request(json.RawMessage(`{"metadata":{"name":"p","managedFields":[{"manager":"m"}]}}`))
	e.Response(map[string]any{"kind": "PodList", "items": []any{map[string]any{"metadata": map[string]any{"name": "p", "managedFields": []any{1}}}}})
	e.Annotate("a", "b")
	e.Complete(metav1.Status{Code: 201})
	got := events(t, s)
	if len(got) != 2 || got[0]["stage"] != "RequestReceived" || got[1]["stage"] != "ResponseComplete" || strings.Contains(s.String(), "managedFields") {
		t.Fatalf("%s", s)
	}
	b, err := json.Marshal(got[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"kind":"Event"`, `"apiVersion":"audit.k8s.io/v1"`, `"level":"RequestResponse"`, `"auditID":"id"`, `"requestURI":"/api/v1/pods?x=y"`,
		`"user":{"groups":["system:masters"],"username":"root"}`, `"impersonatedUser":{"username":"jane"}`, `"sourceIPs":["192.0.2.1"]`,
		`"objectRef":{"apiVersion":"v1","name":"p","namespace":"ns","resource":"pods"}`, `"code":201`, `"requestObject":{"metadata":{"name":"p"}}`, `"annotations":{"a":"b"}`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s\nlacks %s", b, want)
		}
	}
	s.Reset()
	none := New(s, &Policy{Rules: []Rule{{Level: None}}}, nil).Begin(Call{})
	none.Request(1)
	none.Started(200)
	none.Complete(metav1.Status{})
	var nobody *Log
	nobody.Begin(Call{}).Panicked("x")
	meta := New(s, AllMetadata(), nil).Begin(Call{Verb: "get"})
	meta.Request(map[string]any{"secret": "hush"})
	meta.Response(map[string]any{"secret": "hush"})
	meta.Started(200)
	meta.Complete(metav1.Status{Code: 200})
	if stages := events(t, s); len(stages) != 2 || stages[0]["stage"] != "ResponseStarted" || strings.Contains(s.String(), "hush") {
		t.Errorf("%s", s)
	}
}

// TestTextOfSecrets: what a refusal says of a secret or token is kept only where
// the objects are.
func TestTextOfSecrets(t *testing.T) {
	said := metav1.Status{Code: 422, Reason: metav1.StatusReasonInvalid, Message: "hush", Details: &metav1.StatusDetails{
		Name: "s", Kind: "Secret", Causes: []metav1.StatusCause{{Message: "hush"}},
	}}
	for _, c := range []struct {
		at    api.Target
		level Level
		kept  bool
	}{
		{api.Target{Resource: "secrets"}, Metadata, false},
		{api.Target{Resource: "secrets"}, Request, true},
		{api.Target{Resource: "serviceaccounts", Subresource: "token"}, Metadata, false},
		{api.Target{Resource: "serviceaccounts"}, Metadata, true},
		{api.Target{Group: "authentication.k8s.io", Resource: "tokenreviews"}, Metadata, false},
		{api.Target{Resource: "pods"}, Metadata, true},
		{api.Target{Group: "example.com", Resource: "secrets"}, Metadata, true},
	} {
		s := &sink{}
		New(s, &Policy{Rules: []Rule{{Level: c.level}}, OmitStages: []string{RequestReceived}}, nil).Begin(Call{Target: &c.at}).Complete(said)
		if got := strings.Contains(s.String(), "hush"); got != c.kept || !strings.Contains(s.String(), `"reason":"Invalid"`) {
			t.Errorf("%+v at %s: %s", c.at, c.level, s)
		}
	}
	if said.Message != "hush" || len(said.Details.Causes) != 1 {
		t.Error("the answer itself was changed")
	}
}

func TestLostEventsAreTold(t *testing.T) {
	var told bytes.Buffer
	s := &sink{err: errors.New("disk full")}
	l := New(s, AllMetadata(), slog.New(slog.NewTextHandler(&told, nil)))
	for range 3 {
		l.Begin(Call{}).Complete(metav1.Status{Code: 200})
	}
	if n := strings.Count(told.String(), "disk full"); n != 1 {
		t.Errorf("told %d times: %s", n, &told)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	l := Open(File{Path: filepath.Join(dir, "audit.log"), MaxMiB: 1, MaxFiles: 2}, AllMetadata(), slog.New(slog.DiscardHandler))
	for range 40 {
		l.Begin(Call{UserAgent: strings.Repeat("x", 100<<10)}).Complete(metav1.Status{Code: 200})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	names := slices.Collect(func(yield func(string) bool) {
		for _, e := range entries {
			if !yield(e.Name()) {
				return
			}
		}
	})
	if err != nil || len(names) < 2 {
		t.Errorf("files %q, %v", names, err)
	}
}
