package events_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/events"
	"github.com/wherry-project/wherry/internal/kinds/core"
)

// sink keeps the batches it is given, and fails as long as it is told to.
type sink struct {
	mu      sync.Mutex
	batches [][]*corev1.Event
	calls   int
	fail    error
	slow    bool // answers when the caller gives up
}

func (s *sink) PutEvents(ctx context.Context, list []*corev1.Event) error {
	s.mu.Lock()
	s.calls++
	fail, slow := s.fail, s.slow
	if fail == nil && !slow {
		s.batches = append(s.batches, list)
	}
	s.mu.Unlock()
	if slow {
		<-ctx.Done()
		return ctx.Err()
	}
	return fail
}

func (s *sink) set(fail error, slow bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail, s.slow = fail, slow
}

// told gives what was stored: for each batch, reason and count of each event.
func (s *sink) told() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, b := range s.batches {
		var one []string
		for _, e := range b {
			one = append(one, fmt.Sprintf("%s×%d", e.Reason, e.Count))
		}
		out = append(out, strings.Join(one, " "))
	}
	return strings.Join(out, " | ")
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name, UID: "u-1", ResourceVersion: "7"}}
}

// recorder runs a recorder in a bubble until stop is called.
func recorder(t *testing.T, s *sink) (r *events.Recorder, log *bytes.Buffer, stop func()) {
	log = &bytes.Buffer{}
	r = events.New(s, api.NewKinds(core.Pod(), core.Node()), "tester", "c1", slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, log, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestEventSaysWhatHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		r, _, stop := recorder(t, s)
		r.Event(pod("web"), corev1.EventTypeWarning, "BackOff", strings.Repeat("ä", 1000))
		r.Event(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: strings.Repeat("n", 240) + "." + strings.Repeat("m", 12)}}, corev1.EventTypeNormal, "Ready", "is ready")
		stop()
		kind := core.Event()
		var all []*corev1.Event
		for _, b := range s.batches {
			all = append(all, b...)
		}
		if len(all) != 2 {
			t.Fatalf("stored %d", len(all))
		}
		for _, e := range all {
			if errs := append(api.ValidateMeta(kind, e), kind.Validate(e)...); len(errs) > 0 {
				t.Errorf("%s is invalid: %v", e.Name, errs)
			}
			if e.Count != 1 || e.FirstTimestamp != e.LastTimestamp || e.UID == "" || e.CreationTimestamp.IsZero() ||
				e.Source != (corev1.EventSource{Component: "tester", Host: "c1"}) || e.ReportingController != "tester" {
				t.Errorf("event %+v", e)
			}
		}
		p := all[0]
		if ref := p.InvolvedObject; p.Namespace != "demo" || ref.Kind != "Pod" || ref.APIVersion != "v1" || ref.Name != "web" || ref.UID != "u-1" || ref.ResourceVersion != "7" {
			t.Errorf("event in %s of %+v", p.Namespace, ref)
		}
		if p.Type != corev1.EventTypeWarning || len(p.Message) > 1024 || !strings.HasSuffix(p.Message, "ä...") {
			t.Errorf("type %s, message of %d bytes ends in %q", p.Type, len(p.Message), p.Message[len(p.Message)-8:])
		}
		if n := all[1]; n.Namespace != "default" || n.InvolvedObject.Kind != "Node" {
			t.Errorf("a node's event is in %s, of a %s", n.Namespace, n.InvolvedObject.Kind)
		}
	})
}

func TestSameThingsCountUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		r, _, stop := recorder(t, s)
		r.Event(pod("web"), corev1.EventTypeNormal, "Pulled", "image a")
		synctest.Wait() // the first goes at once
		for range 3 {
			r.Event(pod("web"), corev1.EventTypeNormal, "Pulled", "image a")
		}
		r.Event(pod("web"), corev1.EventTypeNormal, "Pulled", "image b")
		r.Event(pod("db"), corev1.EventTypeNormal, "Pulled", "image a")
		synctest.Wait()
		if got, want := s.told(), "Pulled×1"; got != want {
			t.Errorf("before the second is over: %s, want %s", got, want)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got, want := s.told(), "Pulled×1 | Pulled×4 Pulled×1 Pulled×1"; got != want {
			t.Errorf("stored %s, want %s", got, want)
		}
		first, again := s.batches[0][0], s.batches[1][0]
		if first.Name != again.Name || first.UID != again.UID || first == again {
			t.Errorf("%s %s counts up as %s %s", first.Name, first.UID, again.Name, again.UID)
		}
		if other := s.batches[1][1]; other.Name == again.Name {
			t.Errorf("another message has the same name %s", other.Name)
		}
		time.Sleep(2 * time.Hour) // the stored one is gone by now
		r.Event(pod("web"), corev1.EventTypeNormal, "Pulled", "image a")
		synctest.Wait()
		if last := s.batches[2][0]; last.Count != 1 || last.Name == first.Name {
			t.Errorf("after hours %s counts %d", last.Name, last.Count)
		}
		stop()
	})
}

func TestObjectsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		r, _, stop := recorder(t, s)
		for i := range 100 {
			p := pod("mad")
			p.ResourceVersion = fmt.Sprint(i)
			r.Event(p, corev1.EventTypeNormal, fmt.Sprintf("R%d", i), "x")
		}
		r.Event(pod("calm"), corev1.EventTypeNormal, "Calm", "x")
		time.Sleep(10 * time.Minute)
		for range 100 {
			r.Event(pod("mad"), corev1.EventTypeNormal, "Later", "x")
		}
		stop()
		count := map[string]int{}
		for _, b := range s.batches {
			for _, e := range b {
				count[e.InvolvedObject.Name+" "+e.Reason] = int(e.Count)
			}
		}
		if len(count) != 25+1+1 || count["calm Calm"] != 1 || count["mad Later"] != 2 {
			t.Errorf("stored %d kinds of events: %v", len(count), count)
		}
	})
}

func TestPendingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		r, log, stop := recorder(t, s)
		s.set(apierr.Unavailable("no leader"), false)
		for i := range 5000 {
			r.Event(pod(fmt.Sprintf("p%d", i)), corev1.EventTypeNormal, "Created", "x")
		}
		time.Sleep(5 * time.Second)
		s.set(nil, false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		n := 0
		for _, b := range s.batches {
			n += len(b)
		}
		if n < 1000 || n > 2000 {
			t.Errorf("stored %d events", n)
		}
		if !strings.Contains(log.String(), `msg="events dropped" count=`) {
			t.Errorf("nobody was told of what was dropped: %s", log)
		}
		stop()
	})
}

func TestWhatFailsIsTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fail  error
		again bool
	}{
		{"no leader", apierr.Unavailable("no leader"), true},
		{"too late", apierr.New(apierr.ErrTimeout, "late"), true},
		{"refused", apierr.Forbidden("events", "", errors.New("no")), false},
		{"partly refused", fmt.Errorf("1 of 2 events dropped: %w", apierr.NotFound("namespaces", "x")), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sink{fail: tt.fail}
				r, log, stop := recorder(t, s)
				r.Event(pod("a"), corev1.EventTypeNormal, "A", "x")
				r.Event(pod("b"), corev1.EventTypeNormal, "B", "x")
				synctest.Wait()
				r.Event(pod("a"), corev1.EventTypeNormal, "A", "x")
				r.Event(pod("c"), corev1.EventTypeNormal, "C", "x")
				time.Sleep(4500 * time.Millisecond)
				s.set(nil, false)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				want := ""
				if tt.again {
					want = "A×2 B×1 C×1"
				}
				if got := s.told(); got != want {
					t.Errorf("stored %q, want %q", got, want)
				}
				if n := strings.Count(log.String(), "events not stored"); n < 1 || n > 2 {
					t.Errorf("told %d times: %s", n, log)
				}
				stop()
			})
		})
	}
}

// TestTheLastBatchIsStored stops a recorder while a batch gathers, and while one
// is on its way.
func TestTheLastBatchIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		r, _, stop := recorder(t, s)
		r.Event(pod("a"), corev1.EventTypeNormal, "A", "x")
		synctest.Wait()
		r.Event(pod("b"), corev1.EventTypeNormal, "B", "x")
		stop()
		if got, want := s.told(), "A×1 | B×1"; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := &sink{slow: true}
		r, _, stop := recorder(t, s)
		r.Event(pod("a"), corev1.EventTypeNormal, "A", "x")
		synctest.Wait()
		go func() {
			for s.count() < 1 {
				time.Sleep(time.Millisecond)
			}
			s.set(nil, false)
		}()
		time.Sleep(time.Second)
		stop()
		if got, want := s.told(), "A×1"; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) { // a sink that never answers holds nobody up
		s := &sink{slow: true}
		r, _, stop := recorder(t, s)
		r.Event(pod("a"), corev1.EventTypeNormal, "A", "x")
		start := time.Now()
		stop()
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("stopping took %s", d)
		}
	})
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func TestManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		r, _, stop := recorder(t, s)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				for range 20 {
					r.Event(pod(fmt.Sprint("p", i)), corev1.EventTypeNormal, "A", "x")
				}
			})
		}
		all.Wait()
		stop()
		newest := map[string]int32{}
		for _, b := range s.batches {
			for _, e := range b {
				newest[e.InvolvedObject.Name] = max(newest[e.InvolvedObject.Name], e.Count)
			}
		}
		for name, n := range newest {
			if n != 20 {
				t.Errorf("%s counts %d", name, n)
			}
		}
		if len(newest) != 20 {
			t.Errorf("%d objects", len(newest))
		}
	})
}

func BenchmarkEvent(b *testing.B) {
	r := events.New(&sink{}, api.NewKinds(core.Pod()), "bench", "c1", slog.New(slog.DiscardHandler))
	p := pod("web")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.UID = "u"
		r.Event(p, corev1.EventTypeNormal, "Pulled", "image a")
	}
}
