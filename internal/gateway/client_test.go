package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/gateway"
	"github.com/wherry-project/wherry/internal/testkit"
)

// contentTypes run a test with a client of JSON and one of protobuf.
func contentTypes(t *testing.T, f func(t *testing.T, change func(*rest.Config))) {
	t.Run("json", func(t *testing.T) { f(t, nil) })
	t.Run("protobuf", func(t *testing.T) {
		f(t, func(cfg *rest.Config) {
			cfg.ContentType = "application/vnd.kubernetes.protobuf"
			cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
		})
	})
}

func TestTypedClient(t *testing.T) {
	contentTypes(t, func(t *testing.T, change func(*rest.Config)) {
		c := start(t, options{})
		ctx := t.Context()
		maps := c.client(t, change).CoreV1().ConfigMaps("demo")
		w, err := maps.Watch(ctx, metav1.ListOptions{LabelSelector: "app=x"})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()

		made, err := maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "cm-", Labels: map[string]string{"app": "x"}},
			Data:       map[string]string{"k": "v"}, BinaryData: map[string][]byte{"b": {0, 255}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if made.UID == "" || made.ResourceVersion == "" || made.CreationTimestamp.IsZero() || len(made.Name) != 8 {
			t.Errorf("made %+v", made.ObjectMeta)
		}
		expect(t, w, watch.Added, made.ResourceVersion)

		got, err := maps.Get(ctx, made.Name, metav1.GetOptions{})
		if err != nil || got.ResourceVersion != made.ResourceVersion || got.Data["k"] != "v" || !bytes.Equal(got.BinaryData["b"], []byte{0, 255}) {
			t.Errorf("got %+v, %v", got, err)
		}
		got.Data["k"] = "w"
		changed, err := maps.Update(ctx, got, metav1.UpdateOptions{})
		if err != nil || changed.Data["k"] != "w" {
			t.Fatalf("changed %+v, %v", changed, err)
		}
		expect(t, w, watch.Modified, changed.ResourceVersion)
		if _, err := maps.Update(ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("a stale update: %v", err)
		}
		same, err := maps.Update(ctx, changed.DeepCopy(), metav1.UpdateOptions{})
		if err != nil || same.ResourceVersion != changed.ResourceVersion {
			t.Errorf("an update that changes nothing: %+v, %v", same, err)
		}

		// An object that leaves the selection is deleted for this watcher.
		left, err := maps.Patch(ctx, made.Name, types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"app":"y"}}}`), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, w, watch.Deleted, left.ResourceVersion)

		for i := range 7 {
			if _, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		var names []string
		opts := metav1.ListOptions{Limit: 3}
		for {
			page, err := maps.List(ctx, opts)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page.Items {
				names = append(names, m.Name)
				if m.Kind != "" {
					t.Errorf("an item of a list names its kind %s", m.Kind)
				}
			}
			if opts.Continue = page.Continue; opts.Continue == "" {
				break
			}
			if page.RemainingItemCount == nil || *page.RemainingItemCount != int64(8-len(names)) {
				t.Errorf("remaining %v after %d", page.RemainingItemCount, len(names))
			}
		}
		if len(names) != 8 {
			t.Errorf("pages held %q", names)
		}
		one, err := maps.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=n3"})
		if err != nil || len(one.Items) != 1 {
			t.Errorf("%d by field, %v", len(one.Items), err)
		}

		uid := made.UID
		if err := maps.Delete(ctx, made.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil {
			t.Error(err)
		}
		if _, err := maps.Get(ctx, made.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("after the delete: %v", err)
		}
		if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			t.Error(err)
		}
		if all, err := maps.List(ctx, metav1.ListOptions{}); err != nil || len(all.Items) != 0 {
			t.Errorf("%d left, %v", len(all.Items), err)
		}
		// client-go comes again and again for a revision that is not there yet.
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := maps.Watch(short, metav1.ListOptions{ResourceVersion: "99999999"}); err == nil {
			t.Error("a watch from the future began")
		}
	})
}

func expect(t *testing.T, w watch.Interface, typ watch.EventType, revision string) {
	t.Helper()
	select {
	case e := <-w.ResultChan():
		m, ok := e.Object.(metav1.Object)
		if e.Type != typ || !ok || m.GetResourceVersion() != revision {
			t.Fatalf("event %s %+v, want %s at %s", e.Type, e.Object, typ, revision)
		}
	case <-time.After(time.Minute):
		t.Fatalf("no event, want %s at %s", typ, revision)
	}
}

func deployment(name string) *appsv1.Deployment {
	one := int32(1)
	l := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: l}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: l},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a:1"}}},
		}},
	}
}

func TestSubresources(t *testing.T) {
	contentTypes(t, func(t *testing.T, change func(*rest.Config)) {
		c := start(t, options{})
		ctx := t.Context()
		deploys := c.client(t, change).AppsV1().Deployments("demo")
		d, err := deploys.Create(ctx, deployment("web"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		scale, err := deploys.GetScale(ctx, "web", metav1.GetOptions{})
		if err != nil || scale.Spec.Replicas != 1 {
			t.Fatalf("scale %+v, %v", scale, err)
		}
		scale.Spec.Replicas = 4
		if scale, err = deploys.UpdateScale(ctx, "web", scale, metav1.UpdateOptions{}); err != nil || scale.Spec.Replicas != 4 {
			t.Errorf("scaled to %+v, %v", scale, err)
		}
		d.Status.Replicas, d.ResourceVersion = 3, ""
		d.Spec.Paused = true
		if d, err = deploys.UpdateStatus(ctx, d, metav1.UpdateOptions{}); err != nil || d.Status.Replicas != 3 || d.Spec.Paused {
			t.Errorf("status %+v paused %v, %v", d.Status, d.Spec.Paused, err)
		}
		a := c.do(t, "PATCH", "/apis/apps/v1/namespaces/demo/deployments/web/scale", `{"spec":{"replicas":2}}`, "Content-Type: application/merge-patch+json")
		if a.StatusCode != http.StatusOK || !strings.Contains(a.text, `"kind":"Scale"`) || !strings.Contains(a.text, `"replicas":2`) {
			t.Errorf("patched scale %d %s", a.StatusCode, a.text)
		}
		a = c.do(t, "GET", "/apis/apps/v1/namespaces/demo/deployments/web/scale", "", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io")
		if !strings.Contains(a.text, `"name":"Desired"`) || !strings.Contains(a.text, `"cells":["web",2,3`) {
			t.Errorf("scale as a table: %s", a.text)
		}
	})
}

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

func TestDynamicAndDiscovery(t *testing.T) {
	c := start(t, options{})
	ctx := t.Context()
	dyn, err := dynamic.NewForConfig(c.config(t))
	if err != nil {
		t.Fatal(err)
	}
	deploys := dyn.Resource(appsv1.SchemeGroupVersion.WithResource("deployments")).Namespace("demo")
	obj := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web"},
		"spec": map[string]any{
			"selector": map[string]any{"matchLabels": map[string]any{"a": "b"}},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"a": "b"}},
				"spec":     map[string]any{"containers": []any{map[string]any{"name": "c", "image": "i"}}},
			},
		},
	}}
	got, err := deploys.Apply(ctx, "web", obj, metav1.ApplyOptions{FieldManager: "dyn"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := deploys.Apply(ctx, "web", obj, metav1.ApplyOptions{FieldManager: "dyn"})
	if err != nil || again.GetResourceVersion() != got.GetResourceVersion() {
		t.Errorf("an apply that changes nothing wrote: %s, %s, %v", got.GetResourceVersion(), again.GetResourceVersion(), err)
	}
	if m := again.GetManagedFields(); len(m) != 1 || m[0].Manager != "dyn" {
		t.Errorf("managed fields %+v", m)
	}
	list, err := deploys.List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.GetKind() != "DeploymentList" {
		t.Errorf("list %+v, %v", list, err)
	}

	disc := c.client(t, nil).Discovery()
	_, lists, err := disc.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	var found bool
	for _, l := range lists {
		for _, r := range l.APIResources {
			found = found || l.GroupVersion == "apps/v1" && r.Name == "deployments/scale" && r.Kind == "Scale"
		}
	}
	if !found {
		t.Error("deployments/scale is not in the discovery")
	}
	if v, err := disc.ServerVersion(); err != nil || v.Minor != "34" {
		t.Errorf("version %+v, %v", v, err)
	}
}

// node serves the streams of one pod.
type node struct{ port string }

func (node) Logs(ctx context.Context, u api.User, ns, pod string, o *corev1.PodLogOptions) (io.ReadCloser, error) {
	if pod != "p" {
		return nil, apierr.NotFound("pods", pod)
	}
	if o.Follow {
		r, w := io.Pipe()
		go func() {
			fmt.Fprintln(w, "one")
			<-ctx.Done()
			w.CloseWithError(ctx.Err())
		}()
		return r, nil
	}
	return io.NopCloser(strings.NewReader(fmt.Sprintf("%s %s %d\n", u.Name, o.Container, *o.TailLines))), nil
}

func (node) Ready(_ context.Context, _ api.User, _, pod string, _ *string) error {
	if pod != "p" {
		return apierr.NotFound("pods", pod)
	}
	return nil
}

func (node) Exec(_ context.Context, _ api.User, r api.ExecRequest) (int, error) {
	if r.Attach() {
		_, err := io.WriteString(r.Stdout, "attached")
		return 0, err
	}
	b, err := io.ReadAll(r.Stdin)
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(r.Stdout, "%s %q %s", r.Container, r.Command, b)
	return 7, nil
}

func (n node) Dial(ctx context.Context, _ api.User, _, _ string, port uint16) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", n.port)
}

func TestStreams(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "hello")
			conn.Close()
		}
	}()
	c := start(t, options{streams: node{ln.Addr().String()}})
	pods := c.client(t, nil).CoreV1().Pods("demo")
	three := int64(3)
	b, err := pods.GetLogs("p", &corev1.PodLogOptions{Container: "c", TailLines: &three}).DoRaw(t.Context())
	if err != nil || string(b) != "kubernetes-admin c 3\n" {
		t.Errorf("log %q, %v", b, err)
	}
	if _, err := pods.GetLogs("q", &corev1.PodLogOptions{}).DoRaw(t.Context()); !apierrors.IsNotFound(err) {
		t.Errorf("log of no pod: %v", err)
	}
	for query, want := range map[string]int{"tailLines=x": 400, "sinceTime=x": 400, "stream=Stdin": 422} {
		if a := c.do(t, "GET", "/api/v1/namespaces/demo/pods/p/log?"+query, ""); a.StatusCode != want {
			t.Errorf("%s: %d %s", query, a.StatusCode, a.text)
		}
	}
	if a := c.do(t, "GET", "/api/v1/namespaces/demo/pods/q/exec?command=a&stdout=1", ""); a.StatusCode != 404 {
		t.Errorf("exec in no pod: %d %s", a.StatusCode, a.text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	follow, err := pods.GetLogs("p", &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 4)
	if _, err := io.ReadFull(follow, line); err != nil || string(line) != "one\n" {
		t.Errorf("followed %q, %v", line, err)
	}
	cancel()
	follow.Close()

	exec, err := url.Parse(c.url + "/api/v1/namespaces/demo/pods/p/exec?container=c&command=cat&command=-&stdin=true&stdout=true")
	if err != nil {
		t.Fatal(err)
	}
	ws, err := remotecommand.NewWebSocketExecutor(c.config(t), "GET", exec.String())
	if err != nil {
		t.Fatal(err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config(t), "POST", exec)
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]remotecommand.Executor{"websocket": ws, "spdy": spdy} {
		var out bytes.Buffer
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("input"), Stdout: &out})
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 7 || out.String() != `c ["cat" "-"] input` {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
	if a := c.do(t, "POST", "/api/v1/namespaces/demo/pods/p/exec?stdout=true", ""); a.StatusCode != 422 {
		t.Errorf("exec of nothing: %d %s", a.StatusCode, a.text)
	}
	if a := c.do(t, "POST", "/api/v1/namespaces/demo/pods/p/exec?command=x", ""); a.StatusCode != 400 {
		t.Errorf("exec without streams: %d %s", a.StatusCode, a.text)
	}
	if a := c.do(t, "POST", "/api/v1/namespaces/demo/pods/p/attach?stdout=true", ""); a.StatusCode != 400 || !strings.Contains(a.text, "Upgrade request required") {
		t.Errorf("attach without upgrade: %d %s", a.StatusCode, a.text)
	}

	forward, err := url.Parse(c.url + "/api/v1/namespaces/demo/pods/p/portforward")
	if err != nil {
		t.Fatal(err)
	}
	dialer, err := portforward.NewSPDYOverWebsocketDialer(forward, c.config(t))
	if err != nil {
		t.Fatal(err)
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	pf, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:80"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- pf.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	ports, err := pf.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
	if err != nil {
		t.Fatal(err)
	}
	b, err = io.ReadAll(conn)
	conn.Close()
	if err != nil || string(b) != "hello" {
		t.Errorf("forwarded %q, %v", b, err)
	}
	close(stop)
	<-ended
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
