package gateway

import (
	"net/http"
	"net/url"
	"reflect"
	"testing"
)

func TestParsePath(t *testing.T) {
	tests := []struct {
		method, url string
		want        string // verb group/version namespace resource name subresource
	}{
		{"GET", "/api/v1/pods", "list /v1  pods  "},
		{"GET", "/api/v1/namespaces/n/pods?watch=1", "watch /v1 n pods  "},
		{"GET", "/api/v1/namespaces/n/pods?watch=false", "list /v1 n pods  "},
		{"GET", "/api/v1/namespaces/n/pods/p?watch=1", "get /v1 n pods p "},
		{"GET", "/api/v1/watch/namespaces/n/pods/p", "watch /v1 n pods p "},
		{"GET", "/api/v1/watch/pods", "watch /v1  pods  "},
		{"HEAD", "/api/v1/namespaces/n/pods/p/", "get /v1 n pods p "},
		{"POST", "/api/v1/namespaces/n/pods/p/binding", "create /v1 n pods p binding"},
		{"PUT", "/apis/apps/v1/namespaces/n/deployments/d/scale", "update apps/v1 n deployments d scale"},
		{"PATCH", "/apis/apps/v1/namespaces/n/deployments/d", "patch apps/v1 n deployments d "},
		{"DELETE", "/api/v1/nodes/x", "delete /v1  nodes x "},
		{"DELETE", "/api/v1/nodes", "deletecollection /v1  nodes  "},
		{"GET", "/api/v1/namespaces", "list /v1  namespaces  "},
		{"GET", "/api/v1/namespaces/n", "get /v1  namespaces n "},
		{"PUT", "/api/v1/namespaces/n/finalize", "update /v1  namespaces n finalize"},
		{"GET", "/api/v1/namespaces/n/status", "get /v1  namespaces n status"},
		{"DELETE", "/api/v1/namespaces/n/pods/p/status", " /v1 n pods p status"},
		{"GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node", "get rbac.authorization.k8s.io/v1  clusterroles system:node "},
		{"GET", "/api/v1", ""},
		{"GET", "/apis/apps/v1", ""},
		{"GET", "/api/v1/namespaces/n//pods", ""},
		{"GET", "/", ""},
	}
	for _, tt := range tests {
		u, err := url.Parse(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		p := parsePath(tt.method, u)
		got := ""
		if p.resource {
			got = p.verb + " " + p.Group + "/" + p.Version + " " + p.Namespace + " " + p.Resource + " " + p.Name + " " + p.Subresource
		}
		if got != tt.want {
			t.Errorf("%s %s is %q, want %q", tt.method, tt.url, got, tt.want)
		}
	}
}

func TestAgentName(t *testing.T) {
	for agent, want := range map[string]string{
		"kubectl/v1.32.4 (linux/amd64)": "kubectl", "": "", "a\x00b/1": "ab",
		"ääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääx": "ääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääää",
	} {
		if got := agentName(agent); got != want {
			t.Errorf("%q is %q", agent, got)
		}
	}
}

func FuzzPath(f *testing.F) {
	f.Add("GET", "/api/v1/namespaces/n/pods/p/log?follow=1")
	f.Add("GET", "/api/v1/watch/namespaces")
	f.Add("POST", "/apis/a/b/namespaces/c/finalize/d")
	f.Fuzz(func(t *testing.T, method, text string) {
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		p := parsePath(method, u)
		if !p.resource && p != (path{}) {
			t.Errorf("%q is no resource and %+v", text, p)
		}
		if p.resource && p.Resource == "" {
			t.Errorf("%q names no resource: %+v", text, p)
		}
	})
}

func FuzzListOptions(f *testing.F) {
	f.Add("labelSelector=a in (b,c),!d,e!=f&fieldSelector=metadata.name=x,y!=z&limit=5&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ")
	f.Add("watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=-1")
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		o, sel, err := listOptions(q)
		if err != nil {
			return
		}
		if (o.LabelSelector == "") != (sel.Labels == nil) || (o.FieldSelector == "") != (sel.Fields == nil) {
			t.Errorf("%q gives %+v and %+v", query, o, sel)
		}
	})
}

func FuzzLogOptions(f *testing.F) {
	f.Add("tailLines=3&sinceTime=2024-01-01T00:00:00Z&follow")
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		a, err := logOptions(q, "p")
		b, berr := logOptions(q, "p")
		if (err == nil) != (berr == nil) || !reflect.DeepEqual(a, b) {
			t.Errorf("%q is read two ways", query)
		}
		if err == nil && a.LimitBytes != nil && *a.LimitBytes < 1 {
			t.Errorf("%q limits to %d bytes", query, *a.LimitBytes)
		}
	})
}

func FuzzHeaders(f *testing.F) {
	f.Add("application/json; charset=utf-8", "gzip;q=0, br", "kubectl/1")
	f.Fuzz(func(t *testing.T, contentType, encoding, agent string) {
		r := &http.Request{Header: http.Header{"Content-Type": {contentType}, "Accept-Encoding": {encoding}, "User-Agent": {agent}}}
		if _, err := mediaType(r); err != nil && contentType == "" {
			t.Error(err)
		}
		if _, err := patchType(r); err == nil && contentType == "" {
			t.Error("no type is a type of patch")
		}
		acceptsZip(r)
		if n := agentName(agent); len(n) > 128 {
			t.Errorf("field manager %q", n)
		}
	})
}
