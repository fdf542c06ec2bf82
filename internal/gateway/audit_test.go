package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/audit"
	"github.com/wherry-project/wherry/internal/gateway"
	"github.com/wherry-project/wherry/internal/testkit"
)

// kept is an audit log in memory.
type kept struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (k *kept) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.b.Write(p)
}

func (k *kept) Close() error { return nil }

// has waits for an event with all the texts: a client may have its answer
// before the event is written.
func (k *kept) has(t *testing.T, texts ...string) {
	t.Helper()
	testkit.Eventually(t, time.Minute, func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
	lines:
		for line := range strings.Lines(k.b.String()) {
			var e map[string]any
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				return err
			}
			for _, want := range texts {
				if !strings.Contains(line, want) {
					continue lines
				}
			}
			return nil
		}
		return &missing{texts, k.b.String()}
	})
}

type missing struct {
	texts []string
	all   string
}

func (m *missing) Error() string {
	return "no event with " + strings.Join(m.texts, " ") + " in\n" + m.all
}

// TestAudit: every request is recorded with who asked, for what, and how it
// ended, also what is refused.
func TestAudit(t *testing.T) {
	log := &kept{}
	rules := []audit.Rule{
		{Level: audit.None, Verbs: []string{"delete"}},
		{Level: audit.RequestResponse, Resources: []audit.Resources{{Resources: []string{"configmaps"}}}},
		{Level: audit.Metadata},
	}
	c := start(t, options{config: func(cfg *gateway.Config) {
		cfg.Audit = audit.New(log, &audit.Policy{Rules: rules}, slog.New(slog.DiscardHandler))
	}})
	client := c.client(t, nil)
	maps := client.CoreV1().ConfigMaps("demo")
	if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m"}, Data: map[string]string{"k": "in the map"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	log.has(t, `"stage":"RequestReceived"`, `"verb":"create"`, `"resource":"configmaps"`, `"username":"kubernetes-admin"`, `"sourceIPs":["127.0.0.1"]`)
	log.has(t, `"stage":"ResponseComplete"`, `"verb":"create"`, `"code":201`, `"requestObject":{`, `"responseObject":{`, "in the map", `"authorization.k8s.io/decision":"allow"`)
	if _, err := maps.List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	log.has(t, `"verb":"list"`, `"ConfigMapList"`, `"code":200`)
	if _, err := maps.Patch(t.Context(), "m", "application/merge-patch+json", []byte(`{"data":{"k":"patched"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	log.has(t, `"verb":"patch"`, `"requestObject":{"data":{"k":"patched"}}`)
	if _, err := maps.Get(t.Context(), "none", metav1.GetOptions{}); err == nil {
		t.Fatal("found what is not there")
	}
	log.has(t, `"verb":"get"`, `"name":"none"`, `"code":404`, `"reason":"NotFound"`)
	if _, err := client.CoreV1().Secrets("demo").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": "hush"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	log.has(t, `"resource":"secrets"`, `"stage":"ResponseComplete"`, `"level":"Metadata"`)
	ctx, cancel := context.WithCancel(t.Context())
	w, err := maps.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	log.has(t, `"verb":"watch"`, `"stage":"ResponseStarted"`)
	w.Stop()
	cancel()
	log.has(t, `"verb":"watch"`, `"stage":"ResponseComplete"`)
	if err := maps.Delete(t.Context(), "m", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+"/api/v1/nodes?limit=7", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer wrong")
	req.Header.Set("Audit-ID", "my-own-id")
	resp, err := c.http(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if id := resp.Header.Get("Audit-ID"); resp.StatusCode != http.StatusUnauthorized || id != "my-own-id" {
		t.Errorf("%s, audit id %q", resp.Status, id)
	}
	log.has(t, `"auditID":"my-own-id"`, `"requestURI":"/api/v1/nodes?limit=7"`, `"code":401`, `"user":{}`)
	log.mu.Lock()
	defer log.mu.Unlock()
	if all := log.b.String(); strings.Contains(all, "hush") || strings.Contains(all, `"verb":"delete"`) {
		t.Errorf("recorded what the policy does not want:\n%s", all)
	}
}
