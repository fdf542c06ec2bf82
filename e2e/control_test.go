package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/wherry-project/wherry/internal/testbed"
)

// writer makes ConfigMaps named w-1, w-2 … by the one name of all controls,
// one after the other, and knows which of them were acknowledged.
type writer struct {
	k     *kubernetes.Clientset
	ns    string
	acked []int
	last  atomic.Int64 // when the last was acknowledged, in ns
	count atomic.Int64
	worst time.Duration // between two acknowledgements
	errs  []string
	end   func() // stops it, and waits until it has; may be called twice
}

// startWriter lets a writer write until its end is called, or the test's.
func startWriter(t *testing.T, ns string) *writer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w, done := &writer{k: kube(t, ""), ns: ns}, make(chan struct{})
	w.end = func() { cancel(); <-done }
	go func() { defer close(done); w.run(ctx) }()
	t.Cleanup(w.end)
	return w
}

func (w *writer) run(ctx context.Context) {
	w.last.Store(time.Now().UnixNano())
	for i := 1; ctx.Err() == nil; i++ {
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := w.k.CoreV1().ConfigMaps(w.ns).Create(one, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "w-" + strconv.Itoa(i)}}, metav1.CreateOptions{})
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				w.errs = append(w.errs, err.Error())
				time.Sleep(10 * time.Millisecond)
			}
			continue
		}
		now := time.Now()
		w.worst = max(w.worst, now.Sub(time.Unix(0, w.last.Load())))
		w.last.Store(now.UnixNano())
		w.acked = append(w.acked, i)
		w.count.Add(1)
	}
}

// check looks for every acknowledged write through each control.
func (w *writer) check(t *testing.T) {
	t.Helper()
	for _, control := range controls {
		var list *corev1.ConfigMapList
		eventually(t, func() (err error) {
			list, err = kube(t, control).CoreV1().ConfigMaps(w.ns).List(t.Context(), metav1.ListOptions{})
			return err
		})
		has := map[string]bool{}
		for _, c := range list.Items {
			has[c.Name] = true
		}
		for _, i := range w.acked {
			if !has["w-"+strconv.Itoa(i)] {
				t.Errorf("write %d of %d was acknowledged and is not on %s", i, len(w.acked), control)
			}
		}
	}
}

// TestLeaderKilled loses leaders under writes: what was acknowledged is there.
func TestLeaderKilled(t *testing.T) {
	breaks(t)
	ns := namespace(t)
	w := startWriter(t, ns)
	var gaps []string
	for range 3 {
		more(t, w, 50)
		was := leader(t)
		killed := time.Now()
		if err := suite.Kill(t.Context(), was, ""); err != nil {
			t.Fatal(err)
		}
		had := w.count.Load()
		eventually(t, func() error {
			if w.count.Load() < had+2 { // one may have been acknowledged meanwhile
				return fmt.Errorf("no write after %s was killed", was)
			}
			return nil
		})
		gaps = append(gaps, time.Unix(0, w.last.Load()).Sub(killed).Round(time.Millisecond).String())
		if now := leader(t); now == was {
			t.Errorf("%s was killed and leads", now)
		}
		if err := suite.Start(t.Context(), was, ""); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { return whole(t.Context()) })
	}
	more(t, w, 20)
	w.end()
	w.check(t)
	t.Logf("%d writes acknowledged, %d failed; leader killed to the next writes: %s; longest pause %v", len(w.acked), len(w.errs), strings.Join(gaps, ", "), w.worst.Round(time.Millisecond))
	for _, e := range w.errs {
		if len(w.errs) < 20 {
			t.Log(e)
		}
	}
}

func more(t *testing.T, w *writer, n int64) {
	t.Helper()
	want := w.count.Load() + n
	eventually(t, func() error {
		if got := w.count.Load(); got < want {
			return fmt.Errorf("%d writes, want %d", got, want)
		}
		return nil
	})
}

// TestFollowersKilled writes through a cluster whose followers come and go, one
// at a time.
func TestFollowersKilled(t *testing.T) {
	breaks(t)
	ns := namespace(t)
	w := startWriter(t, ns)
	for _, c := range controls {
		if c == leader(t) {
			continue
		}
		if err := suite.Kill(t.Context(), c, ""); err != nil {
			t.Fatal(err)
		}
		more(t, w, 30)
		if err := suite.Start(t.Context(), c, ""); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { return whole(t.Context()) })
	}
	w.end()
	w.check(t)
}

// TestFollowerCutOff and TestLeaderCutOff take a control off the network. It
// refuses writes, and never answers a read with what is no longer so.
func TestFollowerCutOff(t *testing.T) { cutControl(t, follower(t)) }

func TestLeaderCutOff(t *testing.T) { cutControl(t, leader(t)) }

func cutControl(t *testing.T, cut string) {
	breaks(t)
	ns := namespace(t)
	wherry(t, "-n", ns, "create", "configmap", "x", "--from-literal=v=old")
	inside := kubeFrom(t, cut, cut).CoreV1().RESTClient() // a client on the machine that is cut off
	read := func(ctx context.Context, version string) (string, error) {
		var c corev1.ConfigMap
		err := inside.Get().Namespace(ns).Resource("configmaps").Name("x").Param("timeout", "10s").Param("resourceVersion", version).Do(ctx).Into(&c)
		return c.Data["v"], err
	}
	var other string
	for _, c := range controls {
		if c != cut {
			other = c
		}
	}
	eventually(t, func() error {
		got, err := read(t.Context(), "")
		if err == nil && got != "old" {
			err = fmt.Errorf("before the cut: %s", got)
		}
		return err
	})
	if err := suite.Cut(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	outside := kube(t, other).CoreV1().ConfigMaps(ns)
	eventually(t, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := outside.Patch(ctx, "x", "application/merge-patch+json", []byte(`{"data":{"v":"new"}}`), metav1.PatchOptions{})
		return err
	})
	t.Logf("the others have written %v after the cut", time.Since(begun).Round(time.Millisecond))
	var asking sync.WaitGroup
	var unsure sync.Map // what says that it may have been done, and is, if it was on its way when the cable was cut
	for what, verb := range map[string]*rest.Request{
		"read": inside.Get().Name("x"), "list": inside.Get(), "delete": inside.Delete().Name("x"),
		"write": inside.Post().Body(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "never"}}),
	} {
		asking.Go(func() {
			begun := time.Now()
			err := verb.Namespace(ns).Resource("configmaps").Param("timeout", "3s").Do(t.Context()).Error()
			if took := time.Since(begun); err == nil || !unavailable(err) || took > 20*time.Second { // without its own limit it would be a minute
				t.Errorf("a %s on the control that is cut off, after %v: %v", what, took, err)
			} else {
				t.Logf("a %s is refused after %v: %v", what, took.Round(time.Millisecond), err)
				if strings.Contains(err.Error(), "may or may not have been done") {
					unsure.Store(what, true)
				}
			}
		})
	}
	asking.Wait()
	// Whoever asks for any version gets what is there.
	if got, err := read(t.Context(), "0"); err != nil || got != "old" {
		t.Errorf("a read of any version: %v %v", got, err)
	}
	if err := suite.Heal(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	begun = time.Now()
	eventually(t, func() error {
		got, err := read(t.Context(), "")
		if err == nil && got != "new" {
			t.Errorf("a linearizable read after the cut says %s", got)
		}
		if _, may := unsure.Load("delete"); may && apierrors.IsNotFound(err) {
			err = nil
		}
		return err
	})
	t.Logf("healed, it reads what was written after %v", time.Since(begun).Round(time.Millisecond))
	eventually(t, func() error { return whole(t.Context()) })
	eventually(t, func() error {
		_, err := outside.Get(t.Context(), "never", metav1.GetOptions{})
		if _, may := unsure.Load("write"); err == nil && !may {
			t.Fatal("the refused write was done after all")
		}
		if err == nil {
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
		return nil
	})
}

// unavailable reports whether an error says that the control cannot answer now.
func unavailable(err error) bool {
	return apierrors.IsServiceUnavailable(err) || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err)
}

// TestNoMajority leaves one control of three: it refuses, and goes on when
// another is back.
func TestNoMajority(t *testing.T) {
	breaks(t)
	ns := namespace(t)
	for _, c := range controls[1:] {
		if err := suite.Kill(t.Context(), c, ""); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	eventually(t, func() error { // a client that is slow to begin gives up before it hears why
		out, err := tryWherry(t, "", "--server", "https://c1:6443", "--request-timeout=4s", "-n", ns, "create", "configmap", "x")
		var exit *testbed.ExitError
		if !errors.As(err, &exit) {
			t.Fatalf("it was not refused: %v\n%s", err, out)
		}
		if !strings.Contains(exit.Stderr, "the write") {
			return err
		}
		t.Logf("after %v: %s", time.Since(begun).Round(time.Millisecond), strings.TrimSpace(exit.Stderr))
		return nil
	})
	if err := suite.Start(t.Context(), controls[1], ""); err != nil {
		t.Fatal(err)
	}
	wherry(t, "--server", "https://c1:6443", "-n", ns, "create", "configmap", "y")
}

// TestControlStopped stops a control as an upgrade does, by SIGTERM: another
// leads at once.
func TestControlStopped(t *testing.T) {
	breaks(t)
	ns := namespace(t)
	w := startWriter(t, ns)
	for range 3 {
		more(t, w, 30)
		was := leader(t)
		begun := time.Now()
		if err := suite.Stop(t.Context(), was, ""); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s stopped in %v", was, time.Since(begun).Round(time.Millisecond))
		more(t, w, 10)
		if err := suite.Start(t.Context(), was, ""); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { return whole(t.Context()) })
	}
	w.end()
	w.check(t)
	t.Logf("%d writes, %d failed, longest pause %v", len(w.acked), len(w.errs), w.worst.Round(time.Millisecond))
	if len(w.errs) > 0 {
		t.Logf("%q", w.errs[:min(5, len(w.errs))])
	}
}
