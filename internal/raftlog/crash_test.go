package raftlog_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/raftlog"
	"github.com/wherry-project/wherry/internal/raftlog/diskfault"
)

var (
	cuts = flag.Int("cuts", 50, "how often the power is cut")
	seed = flag.Uint64("seed", 0, "what the faults depend on; 0 for another each time")
)

// model is what a log must have after a power cut.
type model struct {
	t      *testing.T
	random *rand.Rand
	first  uint64
	sure   []raftlog.Entry // from first on; acknowledged
	// open is what may be there behind sure or not: a prefix of it.
	open []raftlog.Entry
	// cut is set while it is not known whether all from cut on is gone.
	cut uint64
	// front is where the log begins if the beginning was being removed.
	front uint64
	term  uint64
	// values and value are the stable values, and the one that may be.
	values map[string]string
	value  [2]string
}

func (m *model) next() uint64 {
	if n := len(m.sure) + len(m.open); n > 0 {
		return m.first + uint64(n)
	}
	return m.first
}

func (m *model) batch() (entries []raftlog.Entry) {
	for i := range 1 + m.random.IntN(6) {
		data := make([]byte, m.random.IntN(1400))
		for j := range data {
			data[j] = byte(m.random.Uint32())
		}
		entries = append(entries, raftlog.Entry{Index: m.next() + uint64(i), Term: m.term, Type: uint8(m.random.IntN(3)), Data: data})
	}
	return entries
}

// check compares what was opened, and takes it for sure from now on.
func (m *model) check(l *raftlog.Log, s *raftlog.Stable) {
	m.t.Helper()
	want := append(append([]raftlog.Entry{}, m.sure...), m.open...)
	first, last := l.First(), l.Last()
	if first == 0 {
		first = m.first
		last = first - 1
	}
	if first > max(m.first, m.front) {
		m.t.Fatalf("the log begins at %d, want %d", first, m.first)
	}
	if first > m.first { // the open removal was done, at least in part
		m.sure, m.first = m.sure[first-m.first:], first
		want = append(append([]raftlog.Entry{}, m.sure...), m.open...)
	}
	m.front = 0
	least := m.first + uint64(len(m.sure)) - 1
	if m.cut != 0 {
		least = m.cut - 1
	}
	if last < least || last > m.first+uint64(len(want))-1 {
		m.t.Fatalf("the log ends at %d, want %d to %d (cut %d)", last, least, m.first+uint64(len(want))-1, m.cut)
	}
	if m.cut != 0 && last != m.cut-1 && last < m.first+uint64(len(m.sure))-1 {
		m.t.Fatalf("the log ends at %d: cutting it at %d was done in part", last, m.cut)
	}
	for i := m.first; i <= last; i++ {
		e, err := l.Get(i)
		w := want[i-m.first]
		if err != nil || e.Index != w.Index || e.Term != w.Term || e.Type != w.Type || !bytes.Equal(e.Data, w.Data) {
			m.t.Fatalf("entry %d: %d, term %d, %v", i, e.Index, e.Term, err)
		}
	}
	m.sure, m.open, m.cut = want[:last+1-m.first], nil, 0
	for k, v := range m.values {
		got := string(s.Get(k))
		if got != v && (k != m.value[0] || got != m.value[1]) {
			m.t.Fatalf("value %s is %q, want %q (or %q)", k, got, v, m.value)
		}
		m.values[k] = got
	}
	m.value = [2]string{}
}

// live changes things until the power is cut.
func (m *model) live(l *raftlog.Log, s *raftlog.Stable) error {
	for {
		var err error
		switch r := m.random.IntN(100); {
		case r < 50:
			m.open = m.batch()
			if err = write(l, m.open); err == nil {
				m.acknowledged()
			}
		case r < 70: // written in several batches, synced once
			for range 1 + m.random.IntN(4) {
				batch := m.batch()
				m.open = append(m.open, batch...)
				if err = l.Write(batch); err != nil {
					return err
				}
			}
			if err = l.Sync(); err == nil {
				m.acknowledged()
			}
		case r < 78 && len(m.sure) > 0:
			m.cut = m.next() - uint64(m.random.IntN(min(len(m.sure), 10)))
			if m.random.IntN(20) == 0 {
				m.cut = m.first
			}
			if err = l.CutBack(m.cut); err == nil {
				m.sure, m.cut = m.sure[:m.cut-m.first], 0
				m.term++
				if l.First() == 0 { // it may go on anywhere
					m.first += uint64(m.random.IntN(10))
				}
			}
		case r < 85 && len(m.sure) > 0:
			to := uint64(m.random.IntN(len(m.sure))) // one stays
			m.front = m.first + to
			if err = l.CutFront(m.front - 1); err == nil {
				m.first, m.sure, m.front = m.front, m.sure[to:], 0
			}
		case r < 99:
			m.value = [2]string{[]string{"term", "vote"}[m.random.IntN(2)], fmt.Sprint(m.random.Uint64())}
			if err = s.Set(m.value[0], []byte(m.value[1])); err == nil {
				m.values[m.value[0]], m.value = m.value[1], [2]string{}
			}
		default: // a clean stop
			if err := l.Close(); err != nil {
				return err
			}
			return s.Close()
		}
		if err != nil {
			return err
		}
	}
}

func (m *model) acknowledged() {
	m.sure, m.open = append(m.sure, m.open...), nil
}

func (m *model) start(disk *diskfault.Mem) (l *raftlog.Log, s *raftlog.Stable, torn bool, err error) {
	l, found, err := raftlog.Open(disk, "/data/log", raftlog.Options{SegmentBytes: 16 << 10})
	if err != nil {
		return nil, nil, false, err
	}
	s, err = raftlog.OpenStable(disk, "/data/stable", false)
	return l, s, found.Cut != "", err
}

// TestCrash cuts the power at random moments. Each time everything that was
// acknowledged is there when the log is opened again, and it opens without help.
func TestCrash(t *testing.T) {
	number := *seed
	if number == 0 {
		number = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", number)
	random := rand.New(rand.NewPCG(number, 1))
	disk := diskfault.NewMem(random)
	m := &model{t: t, random: random, first: 1, values: map[string]string{"term": "", "vote": ""}}
	torn, entries := 0, 0
	// Where chance leaves nothing torn in so many cuts, there are more.
	for round := 0; round < *cuts || torn == 0 && round < 20**cuts; round++ {
		disk.CutAfter(random.IntN(120))
		l, s, cut, err := m.start(disk)
		if err == nil {
			m.check(l, s)
			err = m.live(l, s)
		}
		if cut {
			torn++
		}
		if err != nil && !errors.Is(err, diskfault.ErrCut) {
			t.Fatalf("round %d: %v", round, err)
		}
		if random.IntN(3) == 0 {
			disk.Kill()
		} else {
			disk.Restart()
		}
		entries = len(m.sure)
	}
	l, s, _, err := m.start(disk)
	if err != nil {
		t.Fatal(err)
	}
	m.check(l, s)
	t.Logf("%d cuts or more, %d of them in a record; %d entries at the end, up to %d", *cuts, torn, entries, l.Last())
	if torn == 0 {
		t.Error("no cut left anything torn: the test does not test")
	}
	if err := errors.Join(l.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
}
