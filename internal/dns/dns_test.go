package dns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/wherry-project/wherry/internal/testkit"
)

func addrs(in ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range in {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func endpoint(addr, hostname string, ready bool, ports ...Port) Endpoint {
	return Endpoint{Address: netip.MustParseAddr(addr), Hostname: hostname, Ready: ready, Ports: ports}
}

// cluster is a small cluster with a service of every sort.
func cluster() *Records {
	http, metrics := Port{"http", "TCP", 8080}, Port{"", "TCP", 9090}
	return NewRecords([]string{"default", "empty"}, []Service{
		{Namespace: "default", Name: "web", ClusterIPs: addrs("10.96.1.1", "fd00::1:1"), Ports: []Port{{"http", "TCP", 80}, {"dns", "UDP", 53}, {"", "TCP", 99}},
			Endpoints: []Endpoint{endpoint("10.244.1.5", "", true), endpoint("10.244.1.6", "", false)}},
		{Namespace: "default", Name: "v4", ClusterIPs: addrs("10.96.1.2")},
		{Namespace: "default", Name: "db", Headless: true, Endpoints: []Endpoint{
			endpoint("10.244.1.10", "db-0", true, http, metrics), endpoint("10.244.1.11", "db-1", true, http), endpoint("fd01::11", "db-1", true, http), endpoint("10.244.1.12", "db-2", false, http),
			endpoint("10.244.1.13", "", true, http), endpoint("fd01::", "", true, http),
		}},
		{Namespace: "default", Name: "bare", Headless: true, Endpoints: []Endpoint{endpoint("10.244.1.10", "", true)}},
		{Namespace: "default", Name: "six", Headless: true, Endpoints: []Endpoint{endpoint("fd01::66", "", true)}},
		{Namespace: "default", Name: "down", Headless: true, Endpoints: []Endpoint{endpoint("10.244.1.20", "", false)}},
		{Namespace: "default", Name: "early", Headless: true, PublishNotReady: true, Endpoints: []Endpoint{endpoint("10.244.1.21", "e-0", false, http)}},
		{Namespace: "default", Name: "out", ExternalName: "www.example.org"},
		{Namespace: "default", Name: "inside", ExternalName: "v4.default.svc.cluster.local"},
		{Namespace: "default", Name: "nowhere", ExternalName: "none.default.svc.cluster.local."},
		{Namespace: "default", Name: "round", ExternalName: "round.default.svc.cluster.local"},
		{Namespace: "default", Name: "ip", ExternalName: "192.0.2.7"},
		{Namespace: "kube-system", Name: "kube-dns", ClusterIPs: addrs("127.0.0.1"), Ports: []Port{{"dns", "UDP", 53}}},
	}, []Pod{{Namespace: "default", Name: "p", Addresses: addrs("10.244.1.5")}})
}

// serve runs a server on loopback with the given records.
func serve(t testing.TB, cfg Config, r *Records) *Server {
	t.Helper()
	testkit.Leaks(t)
	cfg.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r != nil {
		s.SetRecords(r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func exchange(t testing.TB, s *Server, network string, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: time.Minute, UDPSize: maxUDP}
	got, _, err := c.Exchange(m, s.Addresses()[0].String())
	if err != nil {
		t.Fatalf("%s %v: %v", network, m.Question, err)
	}
	return got
}

func ask(t testing.TB, s *Server, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	return exchange(t, s, "udp", m)
}

// words renders what matters of an answer: code, sorted answers, SOA if any.
func words(m *dns.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		out = append(out, strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(rr.String(), rr.Header().Name), "\t"), "\t", " "))
	}
	slices.Sort(out)
	s := dns.RcodeToString[m.Rcode]
	for _, rr := range m.Ns {
		s += " " + dns.TypeToString[rr.Header().Rrtype]
	}
	if len(out) > 0 {
		s += ": " + strings.Join(out, ", ")
	}
	return s
}

const z = ".cluster.local."

var table = []struct {
	name  string
	qtype uint16
	want  string
}{
	// Schema, apex and what lies between.
	{"dns-version" + z, dns.TypeTXT, `NOERROR: 5 IN TXT "1.1.0"`},
	{"dns-version" + z, dns.TypeA, "NOERROR SOA"},
	{"x.dns-version" + z, dns.TypeTXT, "NXDOMAIN SOA"},
	{"cluster.local.", dns.TypeNS, "NOERROR: 5 IN NS kube-dns.kube-system.svc.cluster.local."},
	{"cluster.local.", dns.TypeA, "NOERROR SOA"},
	{"ns.dns" + z, dns.TypeA, "NOERROR: 5 IN A 127.0.0.1"},
	{"ns.dns" + z, dns.TypeAAAA, "NOERROR SOA"},
	{"dns" + z, dns.TypeA, "NOERROR SOA"},
	{"svc" + z, dns.TypeA, "NOERROR SOA"},
	{"pod" + z, dns.TypeA, "NOERROR SOA"},
	{"default.svc" + z, dns.TypeA, "NOERROR SOA"},
	{"empty.svc" + z, dns.TypeA, "NOERROR SOA"},
	{"kube-system.svc" + z, dns.TypeA, "NOERROR SOA"}, // exists by its service
	{"kube.svc" + z, dns.TypeA, "NXDOMAIN SOA"},
	{"other" + z, dns.TypeA, "NXDOMAIN SOA"},
	// Services with an address.
	{"web.default.svc" + z, dns.TypeA, "NOERROR: 5 IN A 10.96.1.1"},
	{"web.default.svc" + z, dns.TypeAAAA, "NOERROR: 5 IN AAAA fd00::1:1"},
	{"v4.default.svc" + z, dns.TypeAAAA, "NOERROR SOA"},
	{"v4.default.svc" + z, dns.TypeA, "NOERROR: 5 IN A 10.96.1.2"}, // without any endpoint
	{"web.default.svc" + z, dns.TypeTXT, "NOERROR SOA"},
	{"web.default.svc" + z, dns.TypeMX, "NOERROR SOA"},
	{"no.default.svc" + z, dns.TypeA, "NXDOMAIN SOA"},
	{"web.no.svc" + z, dns.TypeA, "NXDOMAIN SOA"},
	{"web.empty.svc" + z, dns.TypeA, "NXDOMAIN SOA"},
	{"_http._tcp.web.default.svc" + z, dns.TypeSRV, "NOERROR: 5 IN SRV 0 100 80 web.default.svc.cluster.local."},
	{"_dns._udp.web.default.svc" + z, dns.TypeSRV, "NOERROR: 5 IN SRV 0 100 53 web.default.svc.cluster.local."},
	{"_dns._tcp.web.default.svc" + z, dns.TypeSRV, "NXDOMAIN SOA"},
	{"_no._tcp.web.default.svc" + z, dns.TypeSRV, "NXDOMAIN SOA"},
	{"_http._tcp.web.default.svc" + z, dns.TypeA, "NOERROR SOA"},
	{"_tcp.web.default.svc" + z, dns.TypeA, "NOERROR SOA"},
	{"_sctp.web.default.svc" + z, dns.TypeA, "NXDOMAIN SOA"},
	{"http.tcp.web.default.svc" + z, dns.TypeSRV, "NXDOMAIN SOA"},
	{"web.default.svc" + z, dns.TypeSRV, "NOERROR: 5 IN SRV 0 33 53 web.default.svc.cluster.local., 5 IN SRV 0 33 80 web.default.svc.cluster.local., 5 IN SRV 0 33 99 web.default.svc.cluster.local."},
	{"v4.default.svc" + z, dns.TypeSRV, "NOERROR SOA"},
	{"10-244-1-5.web.default.svc" + z, dns.TypeA, "NOERROR: 5 IN A 10.244.1.5"},
	{"10-244-1-6.web.default.svc" + z, dns.TypeA, "NXDOMAIN SOA"}, // not ready
	{"x.10-244-1-5.web.default.svc" + z, dns.TypeA, "NXDOMAIN SOA"},
	{"a.b.c.d.web.default.svc" + z, dns.TypeA, "NXDOMAIN SOA"},
	{"1.1.96.10.in-addr.arpa.", dns.TypePTR, "NOERROR: 5 IN PTR web.default.svc.cluster.local."},
	{"1.0.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "NOERROR: 5 IN PTR web.default.svc.cluster.local."},
	{"5.1.244.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"}, // an endpoint of no headless service
	// Headless services.
	{"db.default.svc" + z, dns.TypeA, "NOERROR: 5 IN A 10.244.1.10, 5 IN A 10.244.1.11, 5 IN A 10.244.1.13"},
	{"db.default.svc" + z, dns.TypeAAAA, "NOERROR: 5 IN AAAA fd01::, 5 IN AAAA fd01::11"},
	{"db-1.db.default.svc" + z, dns.TypeA, "NOERROR: 5 IN A 10.244.1.11"},
	{"db-1.db.default.svc" + z, dns.TypeAAAA, "NOERROR: 5 IN AAAA fd01::11"},
	{"db-0.db.default.svc" + z, dns.TypeAAAA, "NOERROR SOA"},
	{"db-2.db.default.svc" + z, dns.TypeA, "NXDOMAIN SOA"},
	{"10-244-1-13.db.default.svc" + z, dns.TypeA, "NOERROR: 5 IN A 10.244.1.13"},
	{"10-244-1-10.db.default.svc" + z, dns.TypeA, "NXDOMAIN SOA"}, // it has a name
	{"fd01--0.db.default.svc" + z, dns.TypeAAAA, "NOERROR: 5 IN AAAA fd01::"},
	{"_http._tcp.db.default.svc" + z, dns.TypeSRV, "NOERROR: 5 IN SRV 0 25 8080 10-244-1-13.db.default.svc.cluster.local., 5 IN SRV 0 25 8080 db-0.db.default.svc.cluster.local., 5 IN SRV 0 25 8080 db-1.db.default.svc.cluster.local., 5 IN SRV 0 25 8080 fd01--0.db.default.svc.cluster.local."},
	{"bare.default.svc" + z, dns.TypeA, "NOERROR: 5 IN A 10.244.1.10"},
	{"bare.default.svc" + z, dns.TypeSRV, "NOERROR SOA"},
	{"six.default.svc" + z, dns.TypeA, "NOERROR SOA"},
	{"down.default.svc" + z, dns.TypeA, "NXDOMAIN SOA"},
	{"down.default.svc" + z, dns.TypeSRV, "NXDOMAIN SOA"},
	{"early.default.svc" + z, dns.TypeA, "NOERROR: 5 IN A 10.244.1.21"},
	{"_http._tcp.early.default.svc" + z, dns.TypeSRV, "NOERROR: 5 IN SRV 0 100 8080 e-0.early.default.svc.cluster.local."},
	{"21.1.244.10.in-addr.arpa.", dns.TypePTR, "NOERROR: 5 IN PTR e-0.early.default.svc.cluster.local."},
	{"10.1.244.10.in-addr.arpa.", dns.TypePTR, "NOERROR: 5 IN PTR 10-244-1-10.bare.default.svc.cluster.local., 5 IN PTR db-0.db.default.svc.cluster.local."},
	{"12.1.244.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
	{"1.244.10.in-addr.arpa.", dns.TypePTR, "REFUSED"}, // nobody to ask
	// Other names for something.
	{"out.default.svc" + z, dns.TypeCNAME, "NOERROR: 5 IN CNAME www.example.org."},
	{"out.default.svc" + z, dns.TypeA, "NOERROR: 5 IN CNAME www.example.org."},
	{"out.default.svc" + z, dns.TypeSRV, "NOERROR SOA"},
	{"x.out.default.svc" + z, dns.TypeA, "NXDOMAIN SOA"},
	{"inside.default.svc" + z, dns.TypeA, "NOERROR: 5 IN A 10.96.1.2, 5 IN CNAME v4.default.svc.cluster.local."},
	{"inside.default.svc" + z, dns.TypeAAAA, "NOERROR: 5 IN CNAME v4.default.svc.cluster.local."},
	{"nowhere.default.svc" + z, dns.TypeA, "NXDOMAIN SOA: 5 IN CNAME none.default.svc.cluster.local."},
	{"round.default.svc" + z, dns.TypeA, "SERVFAIL"},
	{"ip.default.svc" + z, dns.TypeA, "NOERROR: 5 IN CNAME 192.0.2.7."},
	// Pods.
	{"10-244-9-9.default.pod" + z, dns.TypeA, "NOERROR: 5 IN A 10.244.9.9"},
	{"10-244-9-9.default.pod" + z, dns.TypeAAAA, "NOERROR SOA"},
	{"fd01--11.default.pod" + z, dns.TypeAAAA, "NOERROR: 5 IN AAAA fd01::11"},
	{"10-244-9-9.none.pod" + z, dns.TypeA, "NXDOMAIN SOA"},
	{"10-244-9.default.pod" + z, dns.TypeA, "NXDOMAIN SOA"},
	{"default.pod" + z, dns.TypeA, "NOERROR SOA"},
	{"x.10-244-9-9.default.pod" + z, dns.TypeA, "NXDOMAIN SOA"},
	// Transfers, strange classes and names.
	{"cluster.local.", dns.TypeIXFR, "REFUSED"},
	{"WEB.Default.SVC.Cluster.LOCAL.", dns.TypeA, "NOERROR: 5 IN A 10.96.1.1"},
	{"xcluster.local.", dns.TypeA, "REFUSED"},
	{"web.default.svc" + z, dns.TypeANY, "NOERROR: 5 IN A 10.96.1.1, 5 IN AAAA fd00::1:1"},
}

func TestRecords(t *testing.T) {
	s := serve(t, Config{}, cluster())
	for _, c := range table {
		t.Run(fmt.Sprint(c.name, dns.TypeToString[c.qtype]), func(t *testing.T) {
			for _, network := range []string{"udp", "tcp"} {
				m := new(dns.Msg)
				m.SetQuestion(c.name, c.qtype)
				m.SetEdns0(maxUDP, false)
				got := exchange(t, s, network, m)
				if words(got) != c.want {
					t.Errorf("%s: got  %s\nwant %s", network, words(got), c.want)
				}
				inside := strings.HasSuffix(strings.ToLower(c.name), ".cluster.local.") && c.want != "SERVFAIL"
				if inside && !got.Authoritative {
					t.Error("not authoritative")
				}
			}
		})
	}
}

func TestSOA(t *testing.T) {
	s := serve(t, Config{TTL: 30 * time.Second}, cluster())
	soa := ask(t, s, "cluster.local.", dns.TypeSOA).Answer[0].(*dns.SOA)
	if soa.Hdr.Ttl != 30 || soa.Minttl != 30 || soa.Ns != "ns.dns.cluster.local." || soa.Mbox != "hostmaster.cluster.local." ||
		soa.Refresh != 7200 || soa.Retry != 1800 || soa.Expire != 86400 || soa.Serial == 0 {
		t.Errorf("got %v", soa)
	}
}

func TestCaseOfTheQuestionIsKept(t *testing.T) {
	s := serve(t, Config{}, cluster())
	m := ask(t, s, "_HTTP._tcp.Web.default.svc.Cluster.Local.", dns.TypeSRV)
	srv := m.Answer[0].(*dns.SRV)
	if srv.Hdr.Name != "_HTTP._tcp.Web.default.svc.Cluster.Local." || srv.Target != "web.default.svc.Cluster.Local." {
		t.Errorf("got %v", srv)
	}
	if len(m.Extra) != 2 || m.Extra[0].Header().Name != srv.Target {
		t.Errorf("additional %v", m.Extra)
	}
	if m := ask(t, s, "no.default.svc.CLUSTER.local.", dns.TypeA); m.Ns[0].Header().Name != "CLUSTER.local." {
		t.Errorf("authority %v", m.Ns)
	}
}

func TestRotation(t *testing.T) {
	s := serve(t, Config{}, cluster())
	first := map[string]int{}
	for range 30 {
		first[ask(t, s, "db.default.svc.cluster.local.", dns.TypeA).Answer[0].(*dns.A).A.String()]++
	}
	if len(first) != 3 || first["10.244.1.10"] != 10 {
		t.Errorf("first addresses: %v", first)
	}
}

func TestBeforeTheFirstRecords(t *testing.T) {
	s := serve(t, Config{}, nil)
	for _, n := range []string{"web.default.svc.cluster.local.", "1.1.96.10.in-addr.arpa."} {
		if m := ask(t, s, n, dns.TypePTR); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: %s", n, words(m))
		}
	}
	s.SetRecords(nil)
	if m := ask(t, s, "web.default.svc.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Errorf("an empty cluster: %s", words(m))
	}
}

func TestPodModes(t *testing.T) {
	for mode, want := range map[PodNames]string{Verified: "NOERROR: 5 IN A 10.244.1.5", Disabled: "NXDOMAIN SOA"} {
		s := serve(t, Config{Pods: mode}, cluster())
		if got := words(ask(t, s, "10-244-1-5.default.pod.cluster.local.", dns.TypeA)); got != want {
			t.Errorf("mode %d: %s", mode, got)
		}
		if got := words(ask(t, s, "10-244-1-9.default.pod.cluster.local.", dns.TypeA)); got != "NXDOMAIN SOA" {
			t.Errorf("mode %d, no such pod: %s", mode, got)
		}
	}
}

func TestNameserverWithoutService(t *testing.T) {
	s := serve(t, Config{Domain: "example.test"}, NewRecords(nil, nil, nil))
	m := ask(t, s, "example.test.", dns.TypeNS)
	if words(m) != "NOERROR: 5 IN NS ns.dns.example.test." || len(m.Extra) != 1 {
		t.Errorf("got %s, %v", words(m), m.Extra)
	}
}

func TestSizes(t *testing.T) {
	var many []Endpoint
	for i := range 100 {
		many = append(many, endpoint(fmt.Sprintf("10.244.2.%d", i+1), "", true, Port{"p", "TCP", 1}))
	}
	s := serve(t, Config{}, NewRecords(nil, []Service{{Namespace: "n", Name: "s", Headless: true, Endpoints: many}}, nil))
	name := "s.n.svc.cluster.local."
	for _, c := range []struct {
		network   string
		edns      uint16
		answers   int
		truncated bool
	}{{"udp", 0, -1, true}, {"udp", 1232, -1, true}, {"udp", 4096, 100, false}, {"tcp", 0, 100, false}, {"udp", 100, -1, true}} {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		if c.edns > 0 {
			m.SetEdns0(c.edns, true)
		}
		got := exchange(t, s, c.network, m)
		if got.Truncated != c.truncated || (c.answers >= 0 && len(got.Answer) != c.answers) {
			t.Errorf("%s %d: truncated %v, %d answers", c.network, c.edns, got.Truncated, len(got.Answer))
		}
		got.Compress = true
		if limit := max(512, int(c.edns)); c.network == "udp" && got.Len() > limit {
			t.Errorf("%s %d: %d bytes", c.network, c.edns, got.Len())
		}
		if opt := got.IsEdns0(); (opt != nil) != (c.edns > 0) || (opt != nil && !opt.Do()) {
			t.Errorf("%s %d: EDNS %v", c.network, c.edns, opt)
		}
	}
	// Additional addresses are left out before any answer is.
	m := new(dns.Msg)
	m.SetQuestion("_p._tcp.s.n.svc.cluster.local.", dns.TypeSRV)
	m.SetEdns0(4096, false)
	if got := exchange(t, s, "udp", m); got.Truncated != (len(got.Answer) < 100) {
		t.Errorf("SRV: %d answers, %d additional, truncated %v", len(got.Answer), len(got.Extra), got.Truncated)
	}
}

func TestOddQuestions(t *testing.T) {
	s := serve(t, Config{}, cluster())
	m := new(dns.Msg)
	m.SetQuestion("web.default.svc.cluster.local.", dns.TypeA)
	m.Question[0].Qclass = dns.ClassCHAOS
	if got := exchange(t, s, "udp", m); got.Rcode != dns.RcodeRefused {
		t.Errorf("class CHAOS: %s", words(got))
	}
	m.SetAxfr("cluster.local.")
	if got := exchange(t, s, "tcp", m); got.Rcode != dns.RcodeRefused {
		t.Errorf("AXFR: %s", words(got))
	}
	m = new(dns.Msg)
	m.SetQuestion("web.default.svc.cluster.local.", dns.TypeA)
	m.SetEdns0(1232, false)
	m.IsEdns0().SetVersion(1)
	if got := exchange(t, s, "udp", m); got.Rcode != dns.RcodeBadVers {
		t.Errorf("EDNS version 1: %s", words(got))
	}
	m.IsEdns0().SetVersion(0)
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: dns.EDNS0LOCALSTART, Data: []byte("x")}}
	if got := exchange(t, s, "udp", m); got.Rcode != dns.RcodeSuccess {
		t.Errorf("unknown EDNS option: %s", words(got))
	}
	m = new(dns.Msg)
	m.SetUpdate("cluster.local.")
	if got := exchange(t, s, "udp", m); got.Rcode != dns.RcodeNotImplemented {
		t.Errorf("UPDATE: %s", words(got))
	}
}

func TestEdits(t *testing.T) {
	a := cluster()
	e := a.Edit()
	e.PutService(Service{Namespace: "default", Name: "web", ClusterIPs: addrs("10.96.1.9")})
	e.DeleteService("default", "db")
	e.DeleteNamespace("empty")
	e.DeletePod("default", "p")
	b := e.Records()
	if a.service("default", "web").ClusterIPs[0].String() != "10.96.1.1" || !a.hasNamespace("empty") || a.service("default", "db") == nil {
		t.Error("the former records changed")
	}
	if b.service("default", "web").ClusterIPs[0].String() != "10.96.1.9" || b.hasNamespace("empty") || b.service("default", "db") != nil {
		t.Error("the new records did not change")
	}
	if n := b.names(netip.MustParseAddr("10.96.1.1")); len(n) != 0 {
		t.Errorf("the address given up is still %v", n)
	}
	if n := b.names(netip.MustParseAddr("10.244.1.10")); !slices.Equal(n, []string{"10-244-1-10.bare.default.svc"}) {
		t.Errorf("10.244.1.10 is %v", n)
	}
	if b.hasPod("default", netip.MustParseAddr("10.244.1.5")) || !a.hasPod("default", netip.MustParseAddr("10.244.1.5")) {
		t.Error("pods")
	}
	e = b.Edit()
	for _, s := range []string{"web", "v4", "bare", "six", "down", "early", "out", "inside", "nowhere", "round", "ip"} {
		e.DeleteService("default", s)
	}
	e.DeleteService("kube-system", "kube-dns")
	if c := e.Records(); c.services.Len() != 0 || c.reverse.Len() != 0 || c.podIPs.Len() != 0 {
		t.Errorf("left behind: %d services, %d addresses, %d pods", c.services.Len(), c.reverse.Len(), c.podIPs.Len())
	}
}

func TestListenErrors(t *testing.T) {
	s := serve(t, Config{}, cluster())
	_, err := Open(Config{Listen: s.Addresses()})
	if err == nil || !strings.Contains(err.Error(), "another program has the port") {
		t.Errorf("port taken: %v", err)
	}
	_, err = Open(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")}})
	if err == nil || !strings.Contains(err.Error(), "no interface of this machine has the address 192.0.2.1") {
		t.Errorf("address missing: %v", err)
	}
	for _, cfg := range []Config{{}, {Listen: s.Addresses(), Domain: "."}, {Listen: s.Addresses(), TTL: 2 * time.Hour}} {
		if _, err := Open(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func FuzzRespond(f *testing.F) {
	for _, c := range table {
		m := new(dns.Msg)
		m.SetQuestion(c.name, c.qtype)
		m.SetEdns0(1232, true)
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s, err := Open(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	s.SetRecords(cluster())
	f.Fuzz(func(t *testing.T, b []byte) {
		req := new(dns.Msg)
		if req.Unpack(b) != nil {
			return
		}
		for _, tcp := range []bool{false, true} {
			m := s.respond(t.Context(), req, netip.Addr{})
			if m == nil {
				return
			}
			fit(m, req, tcp)
			out, err := m.Pack()
			if err != nil {
				t.Errorf("%v: the answer cannot be sent: %v", req.Question, err)
			}
			if !tcp && len(out) > maxUDP {
				t.Errorf("%d bytes", len(out))
			}
		}
	})
}
