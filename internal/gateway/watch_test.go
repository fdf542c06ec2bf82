package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/wherry-project/wherry/internal/gateway"
	"github.com/wherry-project/wherry/internal/testkit"
)

func TestInformers(t *testing.T) {
	contentTypes(t, func(t *testing.T, change func(*rest.Config)) {
		c := start(t, options{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cs := c.client(t, change)
		maps := cs.CoreV1().ConfigMaps("demo")
		for i := range 5 {
			if _, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		factory := informers.NewSharedInformerFactory(cs, 0)
		typed := factory.Core().V1().ConfigMaps()
		var events atomic.Int64
		if _, err := typed.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { events.Add(1) },
			UpdateFunc: func(any, any) { events.Add(1) },
			DeleteFunc: func(any) { events.Add(1) },
		}); err != nil {
			t.Fatal(err)
		}
		cfg := c.config(t)
		if change != nil {
			change(cfg)
		}
		mc, err := metadata.NewForConfig(cfg)
		if err != nil {
			t.Fatal(err)
		}
		mf := metadatainformer.NewSharedInformerFactory(mc, 0)
		meta := mf.ForResource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"})
		meta.Informer()
		factory.Start(ctx.Done())
		mf.Start(ctx.Done())
		defer factory.Shutdown()
		defer mf.Shutdown()
		defer cancel()
		short, done := context.WithTimeout(ctx, time.Minute)
		defer done()
		if !cache.WaitForCacheSync(short.Done(), typed.Informer().HasSynced, meta.Informer().HasSynced) {
			t.Fatal("the informers did not sync")
		}
		if err := maps.Delete(ctx, "n0", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := maps.Patch(ctx, "n1", types.MergePatchType, []byte(`{"data":{"k":"v"}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, time.Minute, func() error {
			if n := events.Load(); n != 7 {
				return fmt.Errorf("%d events", n)
			}
			m, err := typed.Lister().ConfigMaps("demo").Get("n1")
			if err != nil || m.Data["k"] != "v" {
				return fmt.Errorf("n1 is %+v, %w", m, err)
			}
			if _, err := meta.Lister().ByNamespace("demo").Get("n0"); !apierrors.IsNotFound(err) {
				return fmt.Errorf("n0 is still there: %w", err)
			}
			return nil
		})
	})
}

func TestWatchList(t *testing.T) {
	c := start(t, options{})
	if a := c.do(t, "POST", maps, `{"metadata":{"name":"a"}}`); a.StatusCode != 201 {
		t.Fatal(a.text)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	q := "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
	req, err := http.NewRequestWithContext(ctx, "GET", c.url+maps+q, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	resp, err := c.http(t, c.admin).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	var events []string
	for len(events) < 3 {
		var e struct {
			Type   string
			Object metav1.Table
		}
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		row := string(e.Object.Rows[0].Object.Raw)
		events = append(events, fmt.Sprintf("%s columns %v end %v", e.Type, len(e.Object.ColumnDefinitions) > 0, strings.Contains(row, "k8s.io/initial-events-end")))
		if len(events) == 2 {
			c.do(t, "PATCH", maps+"/a", `{"data":{"k":"v"}}`, "Content-Type: application/merge-patch+json")
		}
	}
	want := "ADDED columns true end false, BOOKMARK columns false end true, MODIFIED columns false end false"
	if got := strings.Join(events, ", "); got != want {
		t.Errorf("events %s, want %s", got, want)
	}
	// The old path, and a watch whose time is over.
	a := c.do(t, "GET", "/api/v1/watch/namespaces/demo/configmaps/a?timeoutSeconds=3", "")
	if !strings.HasPrefix(a.text, `{"type":"ADDED","object":{"kind":"ConfigMap"`) {
		t.Errorf("old watch path: %d %s", a.StatusCode, a.text)
	}
}

// Over HTTP/2 a write deadline that passes ends the stream, also when all was
// read: it must not outlive the write.
func TestIdleWatchGoesOn(t *testing.T) {
	const unread = 1500 * time.Millisecond // longer than a busy machine takes to write an event
	c := start(t, options{config: func(cfg *gateway.Config) { cfg.Limits.Unread = unread }})
	client := c.client(t, nil).CoreV1().ConfigMaps("demo")
	w, err := client.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for i := range 2 {
		m, err := client.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, w, watch.Added, m.ResourceVersion)
		select {
		case e, ok := <-w.ResultChan():
			t.Fatalf("the idle watch gave %+v, %v", e, ok)
		case <-time.After(unread * 4 / 3):
		}
	}
}

// A watcher that reads nothing is cut off, and what it left costs nobody.
func TestUnreadWatchEnds(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := start(t, options{config: func(cfg *gateway.Config) {
		cfg.Limits.Unread, cfg.Registry = 300*time.Millisecond, reg
	}})
	conn, err := tls.Dial("tcp", strings.TrimPrefix(c.url, "https://"), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{c.admin}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n", maps)
	c.watched(t, 1)
	big := strings.Repeat("x", 900<<10)
	for i := range 20 { // more than the sockets hold
		if a := c.do(t, "POST", maps, fmt.Sprintf(`{"metadata":{"name":"n%d"},"data":{"k":"%s"}}`, i, big)); a.StatusCode != 201 {
			t.Fatal(a.text)
		}
	}
	c.watched(t, 0)
}

// watched waits until so many watches of config maps are there.
func (c *cluster) watched(t *testing.T, want int) {
	t.Helper()
	testkit.Eventually(t, time.Minute, func() error {
		if a := c.do(t, "GET", "/metrics", ""); !strings.Contains(a.text, fmt.Sprintf(`apiserver_longrunning_requests{group="",resource="configmaps",verb="watch"} %d`, want)) {
			return fmt.Errorf("not %d watches", want)
		}
		return nil
	})
}

// A server that stops ends its watches and streams.
func TestStopEndsWatches(t *testing.T) {
	c := start(t, options{streams: node{}})
	w, err := c.client(t, nil).CoreV1().ConfigMaps("demo").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	follow, err := c.client(t, nil).CoreV1().Pods("demo").GetLogs("p", &corev1.PodLogOptions{Follow: true}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { follow.Close() })
	// The clean-up of start fails if it takes too long.
}
