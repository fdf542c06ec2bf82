package dns

import (
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds on what is kept of upstreams' answers.
const (
	maxCacheTTL  = 30 * time.Second
	maxCacheSize = 4096 // bytes of one answer
	evictLook    = 16   // answers looked at to find one to drop
)

// cache keeps answers of upstreams for a short while. It never holds names of
// the cluster.
type cache struct {
	limit int

	mu sync.Mutex
	m  map[question]cached
}

type cached struct {
	msg           *dns.Msg // never changed
	since, expire time.Time
}

func newCache(limit int) *cache { return &cache{limit: limit, m: map[question]cached{}} }

// get returns a copy of the answer, its TTLs lowered by its age, or nil.
func (c *cache) get(key question, now time.Time) *dns.Msg {
	c.mu.Lock()
	e, ok := c.m[key]
	if ok && !now.Before(e.expire) {
		delete(c.m, key)
		ok = false
	}
	c.mu.Unlock()
	if !ok {
		return nil
	}
	age := uint32(now.Sub(e.since).Seconds())
	m := e.msg.Copy()
	for _, rrs := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range rrs {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl -= min(age, h.Ttl)
			}
		}
	}
	return m
}

// put keeps an answer if it says for how long it holds.
func (c *cache) put(key question, m *dns.Msg, now time.Time) {
	ttl := lifetime(m)
	if ttl <= 0 || c.limit <= 0 || m.Truncated || m.Len() > maxCacheSize {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, have := c.m[key]; !have && len(c.m) >= c.limit {
		c.evictLocked(now)
	}
	c.m[key] = cached{msg: m, since: now, expire: now.Add(ttl)}
}

// evictLocked drops, of a few answers, those that are over, or else the one
// that is over first.
func (c *cache) evictLocked(now time.Time) {
	var oldest question
	var at time.Time
	n, dropped := 0, false
	for k, e := range c.m {
		if !now.Before(e.expire) {
			delete(c.m, k)
			dropped = true
		} else if at.IsZero() || e.expire.Before(at) {
			oldest, at = k, e.expire
		}
		if n++; n == evictLook {
			break
		}
	}
	if !dropped {
		delete(c.m, oldest)
	}
}

// lifetime returns how long an answer may be kept: the shortest TTL of its
// records; of one that says no, what the zone's SOA says of that.
func lifetime(m *dns.Msg) time.Duration {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return 0
	}
	ttl := uint32(maxCacheTTL / time.Second)
	for _, rr := range m.Answer {
		ttl = min(ttl, rr.Header().Ttl)
	}
	negative := m.Rcode == dns.RcodeNameError || !answers(m)
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok && negative {
			return time.Duration(min(ttl, soa.Hdr.Ttl, soa.Minttl)) * time.Second
		}
	}
	if negative {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

// answers reports whether m holds what was asked for, not only aliases.
func answers(m *dns.Msg) bool {
	for _, rr := range m.Answer {
		if len(m.Question) == 1 && (m.Question[0].Qtype == dns.TypeANY || rr.Header().Rrtype == m.Question[0].Qtype) {
			return true
		}
	}
	return false
}
