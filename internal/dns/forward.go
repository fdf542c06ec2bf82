package dns

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// downFor is how long an upstream that did not answer is asked last.
const downFor = 10 * time.Second

var (
	errBusy    = errors.New("too many questions are being forwarded")
	errNobody  = errors.New("no upstream answered")
	errLoop    = errors.New("an upstream asks us what we ask it")
	errForeign = errors.New("the answer is to another question")
)

// forwarder asks upstream resolvers. One question is asked once at a time,
// however many clients want to know; so questions that come back to us, through
// a resolver that asks us again, wait for themselves and multiply no more.
type forwarder struct {
	cfg       Config
	slots     chan struct{}
	cache     *cache
	upstreams atomic.Pointer[[]*upstream]

	mu      sync.Mutex
	flights map[question]*flight

	forwarded, hits, failures atomic.Uint64
}

type upstream struct {
	addr netip.AddrPort
	down atomic.Int64 // until when it is thought not to answer, in Unix nanoseconds
}

// question is what answers depend on. The name is in lower case.
type question struct {
	name       string
	qtype      uint16
	do, cd, rd bool
}

// flight is a question under way.
type flight struct {
	asking int           // how many want to know; guarded by the forwarder's mu
	done   chan struct{} // closed when the rest is there
	msg    *dns.Msg
	err    error
}

func newForwarder(cfg Config) *forwarder {
	return &forwarder{
		cfg: cfg, slots: make(chan struct{}, max(1, cfg.Forwards)),
		cache: newCache(cfg.Cache), flights: map[question]*flight{},
	}
}

// set replaces the upstreams. Those that stay keep what is known of them.
func (f *forwarder) set(addrs []netip.AddrPort) {
	known := map[netip.AddrPort]*upstream{}
	if old := f.upstreams.Load(); old != nil {
		for _, u := range *old {
			known[u.addr] = u
		}
	}
	var next []*upstream
	for _, a := range addrs {
		u := known[a]
		if u == nil {
			u = &upstream{addr: a}
		}
		next = append(next, u)
	}
	f.upstreams.Store(&next)
}

// available reports whether there is anybody to ask.
func (f *forwarder) available() bool { return len(*f.upstreams.Load()) > 0 }

func (f *forwarder) stats() Stats {
	return Stats{Forwarded: f.forwarded.Load(), CacheHits: f.hits.Load(), Failures: f.failures.Load()}
}

// ask returns what upstreams answer to q with the flags of req: a message of
// the caller's own.
func (f *forwarder) ask(ctx context.Context, req *dns.Msg, q dns.Question, from netip.Addr) (*dns.Msg, error) {
	opt := req.IsEdns0()
	key := question{
		name: strings.ToLower(q.Name), qtype: q.Qtype,
		do: opt != nil && opt.Do(), cd: req.CheckingDisabled, rd: req.RecursionDesired,
	}
	if m := f.cache.get(key, time.Now()); m != nil {
		f.hits.Add(1)
		return m, nil
	}
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		f.failures.Add(1)
		return nil, errBusy
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	fl, first := f.join(key)
	if !first && f.isUpstream(from) {
		f.failures.Add(1)
		return nil, errLoop
	}
	if first {
		f.forwarded.Add(1)
		fl.msg, fl.err = f.resolve(ctx, key, q)
		f.mu.Lock()
		delete(f.flights, key)
		f.mu.Unlock()
		close(fl.done)
	}
	select {
	case <-fl.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if fl.err != nil {
		f.failures.Add(1)
		return nil, fl.err
	}
	return fl.msg.Copy(), nil
}

// join returns the flight for key and reports whether the caller is its first.
func (f *forwarder) join(key question) (*flight, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.flights[key]; fl != nil {
		fl.asking++
		return fl, false
	}
	fl := &flight{asking: 1, done: make(chan struct{})}
	f.flights[key] = fl
	return fl, true
}

func (f *forwarder) isUpstream(a netip.Addr) bool {
	for _, u := range *f.upstreams.Load() {
		if u.addr.Addr() == a && !a.IsLoopback() {
			return true
		}
	}
	return false
}

// resolve asks the upstreams in order, those that failed lately last, twice
// round at most, until one answers or ctx ends. An answer that says only that
// the upstream could not find out counts if nobody has a better one.
func (f *forwarder) resolve(ctx context.Context, key question, q dns.Question) (*dns.Msg, error) {
	var poor *dns.Msg
	var errs []error
	for range 2 {
		for _, u := range f.order(time.Now()) {
			m, err := f.exchange(ctx, u, key, q)
			if ctx.Err() != nil && err != nil {
				errs = append(errs, err)
				break
			}
			if err != nil {
				u.down.Store(time.Now().Add(downFor).UnixNano())
				errs = append(errs, err)
				continue
			}
			u.down.Store(0)
			if m.Rcode == dns.RcodeServerFailure || m.Rcode == dns.RcodeRefused {
				poor = m
				continue
			}
			f.cache.put(key, m, time.Now())
			return m, nil
		}
		if poor != nil || ctx.Err() != nil {
			break
		}
	}
	if poor != nil {
		return poor, nil
	}
	return nil, errors.Join(append(errs, errNobody)...)
}

// order returns the upstreams in the order to ask them.
func (f *forwarder) order(now time.Time) []*upstream {
	var up, down []*upstream
	for _, u := range *f.upstreams.Load() {
		if u.down.Load() > now.UnixNano() {
			down = append(down, u)
		} else {
			up = append(up, u)
		}
	}
	return append(up, down...)
}

// exchange asks one upstream: by UDP, by TCP if the answer does not fit, and
// without EDNS if that is too new for it.
func (f *forwarder) exchange(ctx context.Context, u *upstream, key question, q dns.Question) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Attempt)
	defer cancel()
	m := new(dns.Msg)
	m.Id = dns.Id()
	m.RecursionDesired, m.CheckingDisabled = key.rd, key.cd
	m.Question = []dns.Question{q}
	m.SetEdns0(ednsUDP, key.do)
	got, err := once(ctx, "udp", u, m)
	if err == nil && (got.Rcode == dns.RcodeFormatError || got.Rcode == dns.RcodeNotImplemented) && got.IsEdns0() == nil {
		m.Extra = nil
		got, err = once(ctx, "udp", u, m)
	}
	if err != nil || !got.Truncated {
		return got, err
	}
	if whole, err := once(ctx, "tcp", u, m); err == nil {
		return whole, nil
	}
	return got, nil
}

// once sends m and checks that what comes back answers it. Every question has
// a socket, and so a port, of its own: answers are hard to forge.
func once(ctx context.Context, network string, u *upstream, m *dns.Msg) (*dns.Msg, error) {
	deadline, _ := ctx.Deadline()
	c := &dns.Client{Net: network, UDPSize: maxUDP, Timeout: time.Until(deadline)}
	got, _, err := c.ExchangeContext(ctx, m, u.addr.String())
	if err != nil {
		return nil, err
	}
	if got.Id != m.Id || !got.Response || len(got.Question) != 1 || got.Question[0].Qtype != m.Question[0].Qtype ||
		!strings.EqualFold(got.Question[0].Name, m.Question[0].Name) {
		return nil, errForeign
	}
	return got, nil
}
