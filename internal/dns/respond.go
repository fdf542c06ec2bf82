package dns

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// maxChain bounds the aliases followed for one question.
const maxChain = 8

// serve answers one message.
func (s *Server) serve(ctx context.Context, w dns.ResponseWriter, req *dns.Msg, tcp bool) {
	s.queries.Add(1)
	m := s.respond(ctx, req, remote(w.RemoteAddr()))
	if m == nil {
		return
	}
	fit(m, req, tcp)
	// A client that is gone needs no answer; nobody else can be told.
	_ = w.WriteMsg(m)
}

func remote(a net.Addr) netip.Addr {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr().Unmap()
}

// fit cuts m to what the client can take. What only helps goes first, without
// a word; then answers, and the client is told to come by TCP.
func fit(m, req *dns.Msg, tcp bool) {
	size := dns.MaxMsgSize
	if !tcp {
		size = dns.MinMsgSize
		if opt := req.IsEdns0(); opt != nil {
			size = min(max(size, int(opt.UDPSize())), maxUDP)
		}
	}
	if m.Len() > size {
		m.Compress = true
		if m.Len() > size {
			opt := m.IsEdns0()
			m.Extra = nil
			if opt != nil {
				m.Extra = []dns.RR{opt}
			}
		}
	}
	m.Truncate(size)
}

// respond returns the answer to req, nil if it deserves none.
func (s *Server) respond(ctx context.Context, req *dns.Msg, from netip.Addr) *dns.Msg {
	if req.Response {
		return nil
	}
	m := new(dns.Msg)
	m.SetReply(req)
	m.RecursionAvailable = s.forward.available()
	opt := req.IsEdns0()
	if opt != nil {
		m.SetEdns0(ednsUDP, opt.Do())
	}
	switch {
	case req.Opcode != dns.OpcodeQuery:
		m.Rcode = dns.RcodeNotImplemented
	case len(req.Question) != 1:
		m.Rcode = dns.RcodeFormatError
	case opt != nil && opt.Version() != 0:
		m.Rcode = dns.RcodeBadVers
	default:
		s.question(ctx, m, req, from)
	}
	return m
}

// question fills m with the answer to its only question.
func (s *Server) question(ctx context.Context, m, req *dns.Msg, from netip.Addr) {
	q := req.Question[0]
	if q.Qclass != dns.ClassINET && q.Qclass != dns.ClassANY || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		m.Rcode = dns.RcodeRefused
		return
	}
	if labels, spelt, ok := cut(q.Name, s.domain); ok {
		s.cluster(ctx, m, req, labels, spelt, from)
		return
	}
	if a, ok := fromReverse(q.Name); ok && (q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY) {
		z := s.zone(q.Name, s.domain, q.Qtype)
		if z == nil {
			m.Rcode = dns.RcodeServerFailure
			return
		}
		if answer, ok := z.reverse(a); ok {
			m.Authoritative, m.Answer = true, answer
			return
		}
		if !s.forward.available() {
			m.Rcode = dns.RcodeNameError
			return
		}
	}
	if !s.forward.available() {
		m.Rcode = dns.RcodeRefused
		return
	}
	got, err := s.forward.ask(ctx, req, q, from)
	if err != nil {
		m.Rcode = dns.RcodeServerFailure
		return
	}
	adopt(m, got)
}

// adopt makes m say what an upstream said.
func adopt(m, got *dns.Msg) {
	m.Rcode, m.RecursionAvailable, m.AuthenticatedData = got.Rcode, got.RecursionAvailable, got.AuthenticatedData
	m.Answer, m.Ns = got.Answer, got.Ns
	own := m.Extra
	m.Extra = nil
	for _, rr := range got.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			m.Extra = append(m.Extra, rr)
		}
	}
	m.Extra = append(m.Extra, own...)
}

// zone returns what answers a question in the records of this moment, or nil
// before there are any.
func (s *Server) zone(name, spelt string, qtype uint16) *zone {
	c := s.current.Load()
	if c == nil {
		return nil
	}
	return &zone{
		r: c.records, cfg: &s.cfg, self: s.self, name: name, domain: spelt, qtype: qtype,
		ttl: uint32(s.cfg.TTL.Seconds()), serial: c.serial, turn: int(s.turn.Add(1) & 0xffff),
	}
}

// cluster answers a name of the cluster.
func (s *Server) cluster(ctx context.Context, m, req *dns.Msg, labels []string, spelt string, from netip.Addr) {
	q := req.Question[0]
	z := s.zone(q.Name, spelt, q.Qtype)
	if z == nil {
		m.Rcode = dns.RcodeServerFailure
		return
	}
	m.Authoritative = true
	r := z.answer(labels)
	m.Rcode, m.Answer = r.rcode, r.answer
	extra := r.extra
	for n := 0; r.chase != ""; n++ {
		if n == maxChain {
			m.Rcode, m.Answer = dns.RcodeServerFailure, nil // the aliases go round
			return
		}
		target := r.chase
		if labels, spelt, ok := cut(target, s.domain); ok {
			next := *z
			next.name, next.domain = target, spelt
			r = next.answer(labels)
			m.Rcode, m.Answer = r.rcode, append(m.Answer, r.answer...)
			continue
		}
		if !s.chaseOutside(ctx, m, req, target, from) {
			return
		}
		break
	}
	if len(m.Answer) == 0 || m.Rcode == dns.RcodeNameError {
		m.Ns = []dns.RR{z.soa()}
	}
	m.Extra = append(extra, m.Extra...)
}

// chaseOutside completes an answer by what upstreams say to target. It reports
// whether m can be sent with an authority section of our own.
func (s *Server) chaseOutside(ctx context.Context, m, req *dns.Msg, target string, from netip.Addr) bool {
	if !s.forward.available() {
		return true
	}
	q := req.Question[0]
	q.Name = target
	got, err := s.forward.ask(ctx, req, q, from)
	if err != nil {
		m.Rcode, m.Answer = dns.RcodeServerFailure, nil
		return false
	}
	m.Rcode, m.Answer = got.Rcode, append(m.Answer, got.Answer...)
	m.Ns = got.Ns
	return false
}

// fromReverse returns the address that a name below in-addr.arpa or ip6.arpa
// spells.
func fromReverse(name string) (netip.Addr, bool) {
	name = strings.ToLower(name)
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		parts := strings.Split(rest, ".")
		var b [4]byte
		if len(parts) != len(b) {
			return netip.Addr{}, false
		}
		for i, p := range parts {
			n, err := strconv.ParseUint(p, 10, 8)
			if err != nil {
				return netip.Addr{}, false
			}
			b[3-i] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	parts := strings.Split(rest, ".")
	var b [16]byte
	if !ok || len(parts) != 2*len(b) {
		return netip.Addr{}, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 16, 4)
		if err != nil || len(p) != 1 {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}
