package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/wherry-project/wherry/internal/testkit"
)

// fakeUpstream answers on loopback by a function; nil says nothing.
type fakeUpstream struct {
	addr  netip.AddrPort
	asked atomic.Int32
}

func newUpstream(t testing.TB, answer func(req *dns.Msg, tcp bool) *dns.Msg) *fakeUpstream {
	t.Helper()
	l, err := listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	udp, tcp := l.udp, l.tcp
	u := &fakeUpstream{addr: netip.MustParseAddrPort(udp.LocalAddr().String())}
	handler := func(overTCP bool) dns.HandlerFunc {
		return func(w dns.ResponseWriter, req *dns.Msg) {
			u.asked.Add(1)
			if m := answer(req, overTCP); m != nil {
				w.WriteMsg(m)
			}
		}
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait) // last, after both are told to end
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handler(false)}, {Listener: tcp, Handler: handler(true)}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() { s.ActivateAndServe() })
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return u
}

// says answers with records in zone file form.
func says(records ...string) func(*dns.Msg, bool) *dns.Msg {
	return func(req *dns.Msg, _ bool) *dns.Msg {
		m := new(dns.Msg)
		m.SetReply(req)
		m.RecursionAvailable = true
		for _, r := range records {
			rr, err := dns.NewRR(r)
			if err != nil {
				panic(err)
			}
			if rr.Header().Rrtype == dns.TypeSOA {
				m.Ns = append(m.Ns, rr)
				continue
			}
			m.Answer = append(m.Answer, rr)
		}
		return m
	}
}

func rcode(code int, records ...string) func(*dns.Msg, bool) *dns.Msg {
	return func(req *dns.Msg, tcp bool) *dns.Msg {
		m := says(records...)(req, tcp)
		m.Rcode = code
		return m
	}
}

func silent(*dns.Msg, bool) *dns.Msg { return nil }

// quick is for upstreams of which one says nothing. With others it would ask
// twice where the machine is busy.
func quick() Config { return Config{Attempt: 100 * time.Millisecond, Timeout: 20 * time.Second} }

// forwarding runs a server before upstreams.
func forwarding(t testing.TB, cfg Config, ups ...*fakeUpstream) *Server {
	t.Helper()
	for _, u := range ups {
		cfg.Upstreams = append(cfg.Upstreams, u.addr)
	}
	if cfg.Attempt == 0 {
		cfg.Attempt, cfg.Timeout = 20*time.Second, 40*time.Second
	}
	return serve(t, cfg, cluster())
}

func TestForward(t *testing.T) {
	var seen atomic.Pointer[dns.Msg]
	up := newUpstream(t, func(req *dns.Msg, tcp bool) *dns.Msg {
		seen.Store(req.Copy())
		return says("www.example.org. 300 IN A 192.0.2.1")(req, tcp)
	})
	s := forwarding(t, Config{}, up)
	m := ask(t, s, "WWW.example.org.", dns.TypeA)
	if words(m) != "NOERROR: 300 IN A 192.0.2.1" || m.Authoritative || !m.RecursionAvailable || m.Question[0].Name != "WWW.example.org." {
		t.Errorf("got %v", m)
	}
	if q := seen.Load(); !q.RecursionDesired || q.Question[0].Name != "WWW.example.org." || q.IsEdns0() == nil {
		t.Errorf("upstream was asked %v", q)
	}
	if m := ask(t, s, "7.2.0.192.in-addr.arpa.", dns.TypePTR); m.Rcode != dns.RcodeSuccess || up.asked.Load() != 2 {
		t.Errorf("a stranger's address: %s", words(m))
	}
	if m := ask(t, s, "web.default.svc.cluster.local.", dns.TypeA); !m.Authoritative || !m.RecursionAvailable {
		t.Errorf("a cluster name: %v", m)
	}
	q := new(dns.Msg)
	q.SetQuestion("rd.example.org.", dns.TypeA)
	q.RecursionDesired = false
	exchange(t, s, "udp", q)
	if seen.Load().RecursionDesired {
		t.Error("recursion was asked for though the client did not")
	}
}

func TestFailover(t *testing.T) {
	dead := newUpstream(t, silent)
	live := newUpstream(t, says("a.test. 0 IN A 192.0.2.2"))
	s := forwarding(t, Config{Attempt: 2 * time.Second, Timeout: 20 * time.Second}, dead, live)
	if m := ask(t, s, "a.test.", dns.TypeA); words(m) != "NOERROR: 0 IN A 192.0.2.2" {
		t.Errorf("got %s", words(m))
	}
	if m := ask(t, s, "a.test.", dns.TypeA); m.Rcode != dns.RcodeSuccess || dead.asked.Load() != 1 || live.asked.Load() != 2 {
		t.Errorf("the dead upstream was asked first again: %s, asked %d and %d times", words(m), dead.asked.Load(), live.asked.Load())
	}
}

func TestNobodyAnswers(t *testing.T) {
	a, b := newUpstream(t, silent), newUpstream(t, silent)
	s := forwarding(t, quick(), a, b)
	if m := ask(t, s, "a.test.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %s", words(m))
	}
	testkit.Eventually(t, 20*time.Second, func() error { // the last may hear of it late
		if a.asked.Load() != 2 || b.asked.Load() != 2 {
			return fmt.Errorf("asked %d and %d", a.asked.Load(), b.asked.Load())
		}
		return nil
	})
	if st := s.Stats(); st.Failures != 1 || st.Forwarded != 1 {
		t.Errorf("%+v", st)
	}
	// The time for all attempts ends the first one.
	s = forwarding(t, Config{Attempt: time.Hour, Timeout: 100 * time.Millisecond}, newUpstream(t, silent))
	if m := ask(t, s, "a.test.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %s", words(m))
	}
}

func TestRefusalsAreAskedElsewhere(t *testing.T) {
	bad := newUpstream(t, rcode(dns.RcodeRefused))
	good := newUpstream(t, says("a.test. 0 IN A 192.0.2.2"))
	s := forwarding(t, Config{}, bad, good)
	if m := ask(t, s, "a.test.", dns.TypeA); m.Rcode != dns.RcodeSuccess {
		t.Errorf("got %s", words(m))
	}
	only := forwarding(t, Config{}, newUpstream(t, rcode(dns.RcodeServerFailure)))
	if m := ask(t, only, "a.test.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %s", words(m))
	}
}

func TestTruncatedUpstream(t *testing.T) {
	var all []string
	for i := range 100 {
		all = append(all, fmt.Sprintf("big.test. 60 IN A 192.0.2.%d", i+1))
	}
	up := newUpstream(t, func(req *dns.Msg, tcp bool) *dns.Msg {
		m := says(all...)(req, tcp)
		if !tcp {
			m.Answer, m.Truncated = m.Answer[:3], true
		}
		return m
	})
	s := forwarding(t, Config{}, up)
	q := new(dns.Msg)
	q.SetQuestion("big.test.", dns.TypeA)
	if m := exchange(t, s, "tcp", q); len(m.Answer) != 100 || m.Truncated {
		t.Errorf("by TCP: %d answers, truncated %v", len(m.Answer), m.Truncated)
	}
	if m := exchange(t, s, "udp", q); !m.Truncated {
		t.Error("by UDP: all in 512 bytes?")
	}
}

func TestOldUpstreamWithoutEDNS(t *testing.T) {
	up := newUpstream(t, func(req *dns.Msg, tcp bool) *dns.Msg {
		if req.IsEdns0() != nil {
			m := new(dns.Msg)
			m.SetRcode(req, dns.RcodeFormatError)
			return m
		}
		return says("a.test. 60 IN A 192.0.2.1")(req, tcp)
	})
	if m := ask(t, forwarding(t, Config{}, up), "a.test.", dns.TypeA); m.Rcode != dns.RcodeSuccess {
		t.Errorf("got %s", words(m))
	}
}

func TestForgedAnswersAreDropped(t *testing.T) {
	up := newUpstream(t, func(req *dns.Msg, tcp bool) *dns.Msg {
		m := says("a.test. 60 IN A 192.0.2.66")(req, tcp)
		m.Question[0].Name = "b.test."
		return m
	})
	if m := ask(t, forwarding(t, Config{}, up), "a.test.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %s", words(m))
	}
}

func TestCache(t *testing.T) {
	const soa = "test. 100 IN SOA ns.test. h.test. 1 1 1 1 20"
	for name, c := range map[string]struct {
		answer func(*dns.Msg, bool) *dns.Msg
		kept   bool
	}{
		"positive":            {says("a.test. 300 IN A 192.0.2.1"), true},
		"no time to live":     {says("a.test. 0 IN A 192.0.2.1"), false},
		"no such name":        {rcode(dns.RcodeNameError, soa), true},
		"no such type":        {says(soa), true},
		"negative, no SOA":    {rcode(dns.RcodeNameError), false},
		"alias to nothing":    {says("a.test. 300 IN CNAME b.test.", soa), true},
		"alias, and no SOA":   {says("a.test. 300 IN CNAME b.test."), false},
		"could not find out":  {rcode(dns.RcodeServerFailure), false},
		"refused, with a SOA": {rcode(dns.RcodeRefused, soa), false},
	} {
		up := newUpstream(t, c.answer)
		s := forwarding(t, Config{}, up)
		first := words(ask(t, s, "a.test.", dns.TypeA))
		before := up.asked.Load()
		if second := words(ask(t, s, "A.TEST.", dns.TypeA)); second != first {
			t.Errorf("%s: first %s, then %s", name, first, second)
		}
		if kept := up.asked.Load() == before; kept != c.kept {
			t.Errorf("%s: kept %v", name, kept)
		}
	}
}

func TestCacheAgesAndEnds(t *testing.T) {
	c := newCache(2)
	now := time.Unix(1000, 0)
	key := func(i int) question { return question{name: fmt.Sprint(i), qtype: dns.TypeA} }
	msg := func(ttl int) *dns.Msg {
		q := new(dns.Msg)
		q.SetQuestion("a.test.", dns.TypeA)
		return says(fmt.Sprintf("a.test. %d IN A 192.0.2.1", ttl))(q, false)
	}
	c.put(key(1), msg(300), now)
	if m := c.get(key(1), now.Add(10*time.Second)); m == nil || m.Answer[0].Header().Ttl != 290 {
		t.Errorf("after 10 s: %v", m)
	}
	if m := c.get(key(1), now.Add(maxCacheTTL)); m != nil {
		t.Error("kept longer than 30 s")
	}
	for i := range 10 {
		c.put(key(i), msg(10+i), now)
	}
	if len(c.m) > 2 {
		t.Errorf("%d answers kept, 2 are allowed", len(c.m))
	}
}

func TestExternalNameIsChased(t *testing.T) {
	up := newUpstream(t, func(req *dns.Msg, tcp bool) *dns.Msg {
		if req.Question[0].Name != "www.example.org." {
			return rcode(dns.RcodeNameError)(req, tcp)
		}
		return says("www.example.org. 60 IN CNAME cdn.test.", "cdn.test. 60 IN A 192.0.2.9")(req, tcp)
	})
	s := forwarding(t, Config{}, up)
	m := ask(t, s, "out.default.svc.cluster.local.", dns.TypeA)
	if len(m.Answer) != 3 || m.Answer[0].Header().Name != "out.default.svc.cluster.local." || m.Answer[2].Header().Rrtype != dns.TypeA {
		t.Errorf("got %v", m)
	}
	down := forwarding(t, quick(), newUpstream(t, silent))
	if m := ask(t, down, "out.default.svc.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("nobody knows the target: %s", words(m))
	}
	if m := ask(t, down, "ip.default.svc.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeSuccess {
		t.Errorf("an address as a name was asked for: %s", words(m))
	}
}

func TestSameQuestionIsAskedOnce(t *testing.T) {
	release := make(chan struct{})
	up := newUpstream(t, func(req *dns.Msg, tcp bool) *dns.Msg { <-release; return says("a.test. 0 IN A 192.0.2.1")(req, tcp) })
	s := forwarding(t, Config{}, up)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			q := new(dns.Msg)
			q.SetQuestion("a.test.", dns.TypeA)
			c := dns.Client{Timeout: time.Minute}
			if m, _, err := c.Exchange(q, s.Addresses()[0].String()); err != nil || m.Rcode != dns.RcodeSuccess {
				t.Errorf("%v, %v", m, err)
			}
		})
	}
	testkit.Eventually(t, 20*time.Second, func() error {
		s.forward.mu.Lock()
		defer s.forward.mu.Unlock()
		for _, fl := range s.forward.flights {
			if fl.asking == 20 {
				return nil
			}
		}
		return fmt.Errorf("not all wait for one answer: %d questions", len(s.forward.flights))
	})
	close(release)
	wg.Wait()
	if n := up.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestForwardsAreBounded(t *testing.T) {
	release := make(chan struct{})
	up := newUpstream(t, func(req *dns.Msg, tcp bool) *dns.Msg { <-release; return says()(req, tcp) })
	s := forwarding(t, Config{Forwards: 1}, up)
	done := make(chan *dns.Msg)
	go func() { done <- ask(t, s, "slow.test.", dns.TypeA) }()
	testkit.Eventually(t, 20*time.Second, func() error {
		if up.asked.Load() == 0 {
			return errors.New("the upstream was not asked")
		}
		return nil
	})
	if m := ask(t, s, "other.test.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %s", words(m))
	}
	if m := ask(t, s, "web.default.svc.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeSuccess {
		t.Errorf("a cluster name waits for upstreams: %s", words(m))
	}
	close(release)
	<-done
}

func TestOurselvesAsUpstream(t *testing.T) {
	s := serve(t, Config{}, cluster())
	other := netip.MustParseAddrPort("127.0.0.2:53")
	own := s.SetUpstreams([]netip.AddrPort{s.Addresses()[0], other})
	if len(own) != 1 || own[0] != s.Addresses()[0] {
		t.Errorf("left out %v", own)
	}
	if ups := *s.forward.upstreams.Load(); len(ups) != 1 || ups[0].addr != other {
		t.Errorf("kept %d", len(ups))
	}
}

// A resolver that asks us what we ask it must not make questions multiply.
func TestLoopThroughAnotherResolver(t *testing.T) {
	var s *Server
	ready := make(chan struct{})
	up := newUpstream(t, func(req *dns.Msg, tcp bool) *dns.Msg {
		<-ready
		c := dns.Client{Timeout: 300 * time.Millisecond}
		q := req.Copy()
		q.Id = dns.Id()
		m, _, err := c.Exchange(q, s.Addresses()[0].String())
		if err != nil {
			return nil
		}
		m.Id = req.Id
		return m
	})
	s = forwarding(t, Config{Attempt: 200 * time.Millisecond, Timeout: 500 * time.Millisecond}, up)
	close(ready)
	if m := ask(t, s, "loop.test.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %s", words(m))
	}
	if n := up.asked.Load(); n > 4 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

func TestNoUpstream(t *testing.T) {
	s := serve(t, Config{}, cluster())
	if m := ask(t, s, "www.example.org.", dns.TypeA); m.Rcode != dns.RcodeRefused || m.RecursionAvailable {
		t.Errorf("got %s", words(m))
	}
	if !strings.HasPrefix(words(ask(t, s, "9.9.9.10.in-addr.arpa.", dns.TypePTR)), "NXDOMAIN") {
		t.Error("an unknown address is not refused by name")
	}
}
