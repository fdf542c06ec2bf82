package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/testimage"
	"github.com/wherry-project/wherry/internal/testkit"
)

// bench is a store and a registry on loopback.
type bench struct {
	*Store
	reg  *testimage.Registry
	host string
	dir  string
}

func newBench(t testing.TB) *bench {
	t.Helper()
	testkit.NeedsRoot(t) // for owners and whiteouts
	reg := testimage.NewRegistry()
	srv := httptest.NewServer(reg)
	t.Cleanup(srv.Close)
	b := &bench{reg: reg, host: strings.TrimPrefix(srv.URL, "http://"), dir: t.TempDir()}
	b.open(t)
	t.Cleanup(func() { b.Close() })
	return b
}

func (b *bench) open(t testing.TB) {
	t.Helper()
	s, err := Open(Config{Dir: b.dir, Stall: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	b.Store = s
}

func (b *bench) reopen(t testing.TB) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.open(t)
}

func (b *bench) push(t testing.TB, name string, spec testimage.Spec) *testimage.Image {
	t.Helper()
	img := must(testimage.Build(spec))(t)
	if err := b.reg.Push(name, img); err != nil {
		t.Fatal(err)
	}
	return img
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// leftovers returns what lies in the store's temporary directory.
func (b *bench) leftovers(t testing.TB) []string {
	t.Helper()
	var out []string
	for _, e := range must(os.ReadDir(filepath.Join(b.dir, "tmp")))(t) {
		out = append(out, e.Name())
	}
	return out
}

func two() testimage.Spec {
	return testimage.Spec{
		Layers: []testimage.Layer{
			{{Name: "etc", Dir: true}, {Name: "etc/passwd", Body: []byte("root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n")}, {Name: "etc/group", Body: []byte("root:x:0:\nlogs:x:7:web\n")}},
			{{Name: "app", Body: []byte("program"), Mode: 0o755}},
		},
		Entrypoint: []string{"/app"}, Cmd: []string{"run"}, Env: []string{"A=b"}, WorkingDir: "/srv", User: "web",
		StopSignal: "SIGINT", Volumes: []string{"/z", "/data"}, Labels: map[string]string{"k": "v"},
	}
}

func TestPull(t *testing.T) {
	b := newBench(t)
	pushed := b.push(t, "team/app:1", two())
	name := b.host + "/team/app:1"
	img, err := b.Pull(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	id, digest := must(pushed.ID())(t), must(pushed.Digest())(t)
	if img.ID != id || !slices.Equal(img.RepoTags, []string{name}) || img.PinnedName() != b.host+"/team/app@"+digest {
		t.Errorf("got %+v", img)
	}
	c := img.Config
	if !slices.Equal(c.Entrypoint, []string{"/app"}) || !slices.Equal(c.Cmd, []string{"run"}) || c.User != "web" || c.WorkingDir != "/srv" ||
		c.StopSignal != "SIGINT" || !slices.Equal(c.Env, []string{"A=b"}) || !slices.Equal(c.Volumes, []string{"/data", "/z"}) || c.Labels["k"] != "v" {
		t.Errorf("config %+v", c)
	}
	if len(img.Layers) != 2 {
		t.Fatalf("layers %v", img.Layers)
	}
	if got := must(os.ReadFile(filepath.Join(img.Layers[0], "app")))(t); string(got) != "program" {
		t.Errorf("topmost layer has app %q", got)
	}
	for _, ref := range []string{name, img.ID, b.host + "/team/app@" + digest, b.host + "/team/app:other@" + digest} {
		if got, ok := b.Lookup(ref); !ok || got.ID != img.ID {
			t.Errorf("Lookup(%s) = %v", ref, ok)
		}
	}
	if _, ok := b.Lookup(b.host + "/team/app:2"); ok {
		t.Error("found a tag that was never pulled")
	}
	b.reopen(t)
	if got, ok := b.Lookup(name); !ok || got.ID != img.ID || got.Config.StopSignal != "SIGINT" {
		t.Errorf("after reopening: %+v", got)
	}
	before := len(b.reg.Requests("/blobs/"))
	if _, err := b.Pull(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	for _, r := range b.reg.Requests("/blobs/")[before:] {
		for _, l := range must(pushed.LayerDigests())(t) {
			if strings.Contains(r, l) {
				t.Errorf("layer transferred again: %s", r)
			}
		}
	}
	if l := b.leftovers(t); len(l) > 0 {
		t.Errorf("left in tmp: %v", l)
	}
}

func TestPullByDigestAndIndex(t *testing.T) {
	b := newBench(t)
	here := must(testimage.Build(testimage.Spec{Layers: two().Layers}))(t)
	spec := testimage.Spec{Layers: two().Layers[:1], Arch: "s390x"}
	other := must(testimage.Build(spec))(t)
	digest := must(b.reg.PushIndex("multi:1", map[string]*testimage.Image{b.cfg.Arch: here, "s390x": other}))(t)
	ref := b.host + "/multi@" + digest
	img, err := b.Pull(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if id := must(here.ID())(t); img.ID != id || len(img.RepoTags) != 0 || !slices.Equal(img.RepoDigests, []string{ref}) {
		t.Errorf("got %+v", img)
	}
	b.push(t, "foreign:1", spec)
	if _, err := b.Pull(t.Context(), b.host+"/foreign:1"); err == nil || !strings.Contains(err.Error(), "image is for linux/s390x") {
		t.Errorf("an image for another platform: %v", err)
	}
}

func TestPullErrors(t *testing.T) {
	b := newBench(t)
	b.push(t, "app:1", two())
	_, err := b.Pull(t.Context(), b.host+"/app:none")
	if !errors.Is(err, apierr.ErrNotFound) || !strings.Contains(err.Error(), "MANIFEST_UNKNOWN") || !strings.Contains(err.Error(), "app:none") {
		t.Errorf("missing tag: %v", err)
	}
	if _, err = b.Pull(t.Context(), b.host+"/nothing/here"); !errors.Is(err, apierr.ErrNotFound) || !strings.Contains(err.Error(), "NAME_UNKNOWN") {
		t.Errorf("missing repository: %v", err)
	}
	if _, err = b.Pull(t.Context(), "Not:A:Name"); !errors.Is(err, ErrInvalidName) {
		t.Errorf("bad name: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err = b.Pull(ctx, "127.0.0.1:1/app"); !errors.Is(err, apierr.ErrUnavailable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestPrivateAddressNeedsLeaveForPlainHTTP(t *testing.T) {
	r, err := newReach(Config{Registries: map[string]Registry{"10.1.2.3:5000": {PlainHTTP: true}}})
	if err != nil {
		t.Fatal(err)
	}
	called := false
	trip := tripper{base: tripFunc(func(*http.Request) (*http.Response, error) { called = true; return nil, io.EOF }), plain: r.plain}
	for url, want := range map[string]bool{
		"http://10.1.2.3:5000/v2/": true, "http://10.1.2.4:5000/v2/": false, "https://10.1.2.4/v2/": true, "http://127.0.0.1:5/v2/": true, "http://reg.local/v2/": false,
	} {
		called = false
		req := must(http.NewRequest(http.MethodGet, url, nil))(t)
		_, err := trip.RoundTrip(req)
		if called != want {
			t.Errorf("%s: sent %v, want %v", url, called, want)
		}
		if !want && !strings.Contains(err.Error(), "plainHTTP") {
			t.Errorf("%s: %v names no remedy", url, err)
		}
	}
}

type tripFunc func(*http.Request) (*http.Response, error)

func (f tripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestLogin(t *testing.T) {
	b := newBench(t)
	b.push(t, "secret:1", two())
	b.reg.RequireLogin("me", "pass")
	name := b.host + "/secret:1"
	if _, err := b.Pull(t.Context(), name); !errors.Is(err, apierr.ErrUnauthorized) || !strings.Contains(err.Error(), "authentication required") {
		t.Errorf("nobody: %v", err)
	}
	if _, err := b.Pull(t.Context(), name, Auth{Username: "me", Password: "wrong"}); !errors.Is(err, apierr.ErrUnauthorized) {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := b.Pull(t.Context(), name, Auth{Username: "me", Password: "wrong"}, Auth{Username: "me", Password: "pass"}); err != nil {
		t.Errorf("second login: %v", err)
	}
}

func TestCorruptedBlobIsRefused(t *testing.T) {
	b := newBench(t)
	img := b.push(t, "app:1", two())
	layer := must(img.LayerDigests())(t)[1]
	for what, spoil := range map[string]func([]byte) []byte{
		"changed":  func(p []byte) []byte { p[len(p)/2] ^= 1; return p },
		"cut":      func(p []byte) []byte { return p[:len(p)-3] },
		"extended": func(p []byte) []byte { return append(p, 0) },
	} {
		b.reg.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.HasSuffix(r.URL.Path, layer) {
				next.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			w.Write(spoil(rec.Body.Bytes()))
		})
		if _, err := b.Pull(t.Context(), b.host+"/app:1"); err == nil || !strings.Contains(err.Error(), layer) {
			t.Errorf("%s blob: %v", what, err)
		}
		if _, err := os.Stat(b.blobPath(layer)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s blob was kept", what)
		}
		if _, ok := b.Lookup(b.host + "/app:1"); ok {
			t.Errorf("%s blob: the image is there", what)
		}
	}
	b.reg.SetFault(nil)
	if _, err := b.Pull(t.Context(), b.host+"/app:1"); err != nil {
		t.Errorf("after the fault: %v", err)
	}
	if l := b.leftovers(t); len(l) > 0 {
		t.Errorf("left in tmp: %v", l)
	}
}

// A blob may rot on disk between a pull that failed and the next.
func TestRottenBlobIsFetchedAnew(t *testing.T) {
	b := newBench(t)
	img := b.push(t, "app:1", two())
	if _, err := b.Pull(t.Context(), b.host+"/app:1"); err != nil {
		t.Fatal(err)
	}
	layer := must(img.LayerDigests())(t)[1]
	data := must(os.ReadFile(b.blobPath(layer)))(t)
	data[len(data)/2] ^= 0xff
	if err := os.WriteFile(b.blobPath(layer), data, 0o600); err != nil {
		t.Fatal(err)
	}
	got, _ := b.Lookup(b.host + "/app:1")
	if err := os.RemoveAll(filepath.Dir(got.Layers[0])); err != nil {
		t.Fatal(err)
	}
	b.reopen(t)
	if _, ok := b.Lookup(b.host + "/app:1"); ok {
		t.Fatal("an image without a layer is offered")
	}
	if _, err := b.Pull(t.Context(), b.host+"/app:1"); err != nil {
		t.Fatal(err)
	}
}

func TestWrongDiffIDIsRefused(t *testing.T) {
	b := newBench(t)
	layers := two().Layers
	img := must(testimage.Build(testimage.Spec{Layers: layers[:1], Plain: true}))(t)
	other := must(testimage.Build(testimage.Spec{Layers: layers[1:], Plain: true}))(t)
	var file bytes.Buffer
	if err := testimage.WriteDocker(&file, map[string]*testimage.Image{"x:1": img}); err != nil {
		t.Fatal(err)
	}
	a := must(spool(t.Context(), &file, b.path("tmp")))(t)
	defer a.f.Close()
	entries := must(a.dockerEntries())(t)
	bundle, src, err := a.docker(entries[0], "linux", b.cfg.Arch)
	if err != nil {
		t.Fatal(err)
	}
	bundle.config.RootFS.DiffIDs[0] = must(other.LayerDigests())(t)[0]
	if _, err := b.add(t.Context(), src, bundle, nil, nil); !errors.Is(err, errDamaged) {
		t.Errorf("got %v", err)
	}
}

func TestInterruptedPull(t *testing.T) {
	b := newBench(t)
	img := b.push(t, "app:1", two())
	layers := must(img.LayerDigests())(t)
	reached := make(chan struct{})
	b.reg.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !strings.HasSuffix(r.URL.Path, layers[1]) {
			next.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		w.Header().Set("Content-Length", rec.Header().Get("Content-Length"))
		w.Write(rec.Body.Bytes()[:10])
		w.(http.Flusher).Flush()
		close(reached)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-reached; cancel() }()
	if _, err := b.Pull(ctx, b.host+"/app:1"); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	b.pulls.Wait()
	if l := b.leftovers(t); len(l) > 0 {
		t.Errorf("left in tmp: %v", l)
	}
	if len(b.List()) != 0 {
		t.Error("half an image is listed")
	}
	b.reg.SetFault(nil)
	if _, err := b.Pull(t.Context(), b.host+"/app:1"); err != nil {
		t.Fatal(err)
	}
	if n := len(b.reg.Requests("/blobs/" + layers[0])); n > 2 { // pushed by PUT under another path; one GET
		t.Errorf("the finished layer was transferred again: %v", b.reg.Requests(layers[0]))
	}
}

func TestStalledTransferIsGivenUp(t *testing.T) {
	b := newBench(t)
	b.Store.cfg.Stall = 100 * time.Millisecond
	img := b.push(t, "app:1", two())
	layer := must(img.LayerDigests())(t)[0]
	b.reg.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, layer) {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		next.ServeHTTP(w, r)
	})
	if _, err := b.Pull(t.Context(), b.host+"/app:1"); err == nil || !strings.Contains(err.Error(), "no data for 100ms") {
		t.Errorf("got %v", err)
	}
}

func TestConcurrentPullsShareWork(t *testing.T) {
	b := newBench(t)
	img := b.push(t, "app:1", two())
	other := two()
	other.Cmd = []string{"another"}
	b.push(t, "other:1", other)
	var wg sync.WaitGroup
	for i := range 16 {
		name := b.host + []string{"/app:1", "/other:1"}[i%2]
		wg.Go(func() {
			if _, err := b.Pull(t.Context(), name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, l := range must(img.LayerDigests())(t) {
		gets := slices.DeleteFunc(b.reg.Requests(l), func(s string) bool { return !strings.HasPrefix(s, "GET") })
		if len(gets) != 1 {
			t.Errorf("layer transferred %d times: %v", len(gets), gets)
		}
	}
	if n := len(must(os.ReadDir(b.path("layers")))(t)); n != 2 {
		t.Errorf("%d layers unpacked, want the 2 that the images share", n)
	}
	if n := len(b.List()); n != 2 {
		t.Errorf("%d images", n)
	}
}

func TestTagMoves(t *testing.T) {
	b := newBench(t)
	b.push(t, "app:latest", two())
	first := must(b.Pull(t.Context(), b.host+"/app"))(t)
	spec := two()
	spec.Env = []string{"NEW=1"}
	b.push(t, "app:latest", spec)
	second := must(b.Pull(t.Context(), b.host+"/app"))(t)
	if first.ID == second.ID {
		t.Fatal("the tag did not move")
	}
	if got, _ := b.Lookup(b.host + "/app"); got.ID != second.ID {
		t.Errorf("the tag means %s", got.ID)
	}
	if got, ok := b.Lookup(first.ID); !ok || len(got.RepoTags) != 0 {
		t.Errorf("the former image: %+v", got)
	}
}

func TestSecondStoreIsRefused(t *testing.T) {
	b := newBench(t)
	if _, err := Open(Config{Dir: b.dir}); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("got %v", err)
	}
}

func TestCrashLeavesNothingHalf(t *testing.T) {
	b := newBench(t)
	b.push(t, "app:1", two())
	img := must(b.Pull(t.Context(), b.host+"/app:1"))(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for path, body := range map[string]string{
		"tmp/layer-1/fs/file": "half a layer", "tmp/blob-2": "half a blob", "index.json.new": "{half an ind",
	} {
		p := filepath.Join(b.dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(body), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	b.open(t)
	if l := b.leftovers(t); len(l) > 0 {
		t.Errorf("left in tmp: %v", l)
	}
	if got, ok := b.Lookup(b.host + "/app:1"); !ok || got.ID != img.ID {
		t.Error("the whole image is gone")
	}
}

func TestUnknownFormatIsRefused(t *testing.T) {
	testkit.NeedsRoot(t)
	for body, want := range map[string]string{`{"format":2}`: "has format 2", `{"for`: "is damaged", `{"format":1,"images":{"../x":{"id":"../x"}}}`: "is damaged at image"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, indexFile), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// shared is a source of one blob, told to lie or fail.
type shared struct {
	give  []byte
	fails int
}

func (s *shared) blob(context.Context, descriptor) (io.ReadCloser, error) {
	if s.fails--; s.fails >= 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return io.NopCloser(bytes.NewReader(s.give)), nil
}

func (s *shared) again(error) bool { return true }

func TestBlobsAreVerified(t *testing.T) {
	b := newBench(t)
	want := []byte("the blob")
	d := descriptor{Digest: digestOf(want), Size: int64(len(want))}
	for what, give := range map[string]string{"changed": "the glob", "short": "the blo", "long": "the blobs", "none": ""} {
		if _, err := b.fetch(t.Context(), &shared{give: []byte(give)}, d); !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if e := must(os.ReadDir(b.path("blobs")))(t); len(e) > 0 {
		t.Errorf("kept %v", e)
	}
	if fresh, err := b.fetch(t.Context(), &shared{give: want, fails: 1}, d); err != nil || !fresh {
		t.Errorf("after one broken transfer: %v", err)
	}
	if fresh, err := b.fetch(t.Context(), &shared{fails: 9}, d); err != nil || fresh {
		t.Errorf("a blob that is here: fresh %v, %v", fresh, err)
	}
	if l := b.leftovers(t); len(l) > 0 {
		t.Errorf("left in tmp: %v", l)
	}
}

func TestCallersShareOnePull(t *testing.T) {
	b := newBench(t)
	b.push(t, "app:1", two())
	release := make(chan struct{})
	var asked atomic.Int32
	b.reg.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			asked.Add(1)
			<-release
		}
		next.ServeHTTP(w, r)
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := b.Pull(t.Context(), b.host+"/app:1"); err != nil {
				t.Error(err)
			}
		})
	}
	// One that gives up does not take the others with it.
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error, 1)
	go func() { _, err := b.Pull(ctx, b.host+"/app:1"); gaveUp <- err }()
	testkit.Eventually(t, 10*time.Second, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, f := range b.flights {
			if len(b.flights) == 1 && f.waiters == 9 && asked.Load() > 0 {
				return nil
			}
		}
		return fmt.Errorf("%d pulls, asked %d times", len(b.flights), asked.Load())
	})
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) { // before there is anything to get
		t.Errorf("gave up, got %v", err)
	}
	close(release)
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("the registry was asked %d times", n)
	}
}

func TestCloseEndsPulls(t *testing.T) {
	testkit.Leaks(t)
	b := newBench(t)
	b.push(t, "app:1", two())
	reached := make(chan struct{}, 8)
	b.reg.SetFault(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		reached <- struct{}{}
		<-r.Context().Done()
	})
	done := make(chan error)
	go func() { _, err := b.Pull(t.Context(), b.host+"/app:1"); done <- err }()
	<-reached
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("the pull went well")
	}
	if _, err := b.Pull(t.Context(), b.host+"/app:1"); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}
