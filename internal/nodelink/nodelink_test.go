package nodelink

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// diary is a handler that notes what it is told.
type diary struct {
	Streams
	lines []string
}

func (d *diary) Joined(Cluster)          {}
func (d *diary) Controls(addrs []string) { d.lines = append(d.lines, strings.Join(addrs, ",")) }
func (d *diary) Apply(u Update) {
	kind := "delta"
	if u.Full {
		kind = "full"
	}
	d.lines = append(d.lines, fmt.Sprintf("%s %d", kind, u.Revision))
}

func newLink() (*Link, *diary) {
	d := &diary{}
	return New(Config{Handler: d, Log: slog.New(slog.DiscardHandler)}), d
}

func TestUpdatesGoForward(t *testing.T) {
	full := func(n uint64) Update { return Update{Revision: n, Full: true} }
	delta := func(n uint64) Update { return Update{Revision: n} }
	tests := []struct {
		name  string
		known uint64
		come  []Update
		want  string
	}{
		{"in order", 0, []Update{full(5), delta(6), delta(9)}, "full 5,delta 6,delta 9"},
		{"three members, the first counts", 0, []Update{full(5), full(5), delta(6), full(5), delta(6), delta(6), delta(8)}, "full 5,delta 6,delta 8"},
		{"late ones are ignored", 0, []Update{full(9), delta(7), full(8), delta(10)}, "full 9,delta 10"},
		{"a newer full set after a gap", 0, []Update{full(5), full(7)}, "full 5,full 7"},
		{"a difference to nothing", 0, []Update{delta(5), full(6)}, "full 6"},
		{"the checkpoint is newer", 9, []Update{full(7), delta(8), delta(10)}, "delta 10"},
		{"the checkpoint is as new", 9, []Update{full(9), full(9)}, "full 9"},
		{"the checkpoint is older", 9, []Update{full(12), delta(13)}, "full 12,delta 13"},
		{"the checkpoint went on before the first full set", 9, []Update{delta(10), full(10), full(10)}, "delta 10,full 10"},
	}
	for _, tt := range tests {
		l, d := newLink()
		l.Know(nil, tt.known)
		for _, u := range tt.come {
			l.apply(u)
		}
		if got := strings.Join(d.lines, ","); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// sends is what a session has to send now, in words.
func (l *Link) sends(se *session, sent map[string]sending, node **wherryv1.NodeStatus) string {
	var out []string
	batch, _ := l.news(se, sent, node)
	for _, m := range batch {
		switch m := m.GetMessage().(type) {
		case *wherryv1.SessionRequest_PodStatus:
			text := fmt.Sprintf("%s#%d", m.PodStatus.GetUid(), m.PodStatus.GetSequence())
			if m.PodStatus.GetTerminated() {
				text += "!"
			}
			out = append(out, text)
		case *wherryv1.SessionRequest_NodeStatus:
			out = append(out, "node")
		case *wherryv1.SessionRequest_Event:
			out = append(out, "event")
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestStatusIsSaidUntilAcknowledged(t *testing.T) {
	synctest.Test(t, statusIsSaid)
}

func statusIsSaid(t *testing.T) {
	l, _ := newLink()
	a, b := &session{l: l, addr: "a"}, &session{l: l, addr: "b"}
	say := func(uid string, terminated bool) {
		t.Helper()
		if err := l.Report(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)}}, &corev1.PodStatus{}, terminated); err != nil {
			t.Fatal(err)
		}
	}
	sentA, sentB := map[string]sending{}, map[string]sending{}
	var nodeA, nodeB *wherryv1.NodeStatus
	is := func(what string, se *session, want string) {
		t.Helper()
		sent, node := sentA, &nodeA
		if se == b {
			sent, node = sentB, &nodeB
		}
		if got := l.sends(se, sent, node); got != want {
			t.Errorf("%s: %s says %q, want %q", what, se.addr, got, want)
		}
	}
	say("x", false)
	is("nobody is primary", a, "")
	if !l.enter(a, false) {
		t.Error("while no leader is known a follower's word counts")
	}
	if err := l.ReportNode(&corev1.NodeStatus{}); err != nil {
		t.Fatal(err)
	}
	if err := l.PutEvents(t.Context(), []*corev1.Event{{}}); err != nil {
		t.Fatal(err)
	}
	is("first", a, "event node x#1")
	is("sent already", a, "")
	say("x", false)
	is("newer", a, "x#2")
	l.acknowledged(&wherryv1.StatusAck{Uid: "x", Sequence: 1})
	if !l.Pending("x") {
		t.Error("an old acknowledgement counts")
	}
	// The leader comes: all that is not acknowledged is said to it.
	if !l.enter(b, true) || l.lead(a, false) {
		t.Error("the leader's word counts, and then no other")
	}
	is("no longer primary", a, "")
	is("new primary", b, "node x#2")
	sentB["x"] = sending{sequence: 2, at: time.Now().Add(-2 * repeatAfter)}
	is("repeated", b, "x#2")
	say("x", true)
	is("the end", b, "x#3!")
	l.acknowledged(&wherryv1.StatusAck{Uid: "x", Sequence: 3})
	is("acknowledged", b, "")
	if l.Pending("x") || len(sentB) != 0 {
		t.Errorf("pending %v, sent %v", l.Pending("x"), sentB)
	}
	// Back to the first one.
	say("y", false)
	l.leave(b)
	is("the other one takes over", a, "node y#1")
	l.Forget("y")
	if l.Pending("y") {
		t.Error("forgotten and pending")
	}
}

func TestEventsWaitInOrder(t *testing.T) {
	l, _ := newLink()
	for n := range maxEvents + 10 {
		e := &corev1.Event{}
		e.Name = fmt.Sprintf("e%04d", n)
		if err := l.PutEvents(t.Context(), []*corev1.Event{e}); err != nil {
			t.Fatal(err)
		}
	}
	se := &session{l: l, addr: "a"}
	l.enter(se, true)
	var node *wherryv1.NodeStatus
	batch, _ := l.news(se, map[string]sending{}, &node)
	if len(batch) != maxEvents {
		t.Fatalf("%d events wait, want the newest %d", len(batch), maxEvents)
	}
	l.unsent(batch[5:])
	again, _ := l.news(se, map[string]sending{}, &node)
	if len(again) != maxEvents-5 {
		t.Fatalf("%d are left of a batch that broke off", len(again))
	}
	e := &corev1.Event{}
	if err := api.FromAny(again[0].GetEvent().GetEvent(), e); err != nil || e.Name != "e0015" {
		t.Errorf("first is %s, %v", e.Name, err)
	}
}
