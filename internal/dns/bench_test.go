package dns

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// manyServices is 10,000 services of 3 endpoints, every tenth headless.
func manyServices() *Records {
	var services []Service
	for i := range 10_000 {
		s := Service{Namespace: fmt.Sprintf("ns%d", i%100), Name: fmt.Sprintf("svc%d", i), Headless: i%10 == 0, Ports: []Port{{"http", "TCP", 80}}}
		if !s.Headless {
			s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}
		}
		for j := range 3 {
			s.Endpoints = append(s.Endpoints, Endpoint{Address: netip.AddrFrom4([4]byte{10, byte(200 + j), byte(i >> 8), byte(i)}), Ready: true, Ports: []Port{{"http", "TCP", 8080}}})
		}
		services = append(services, s)
	}
	return NewRecords(nil, services, nil)
}

func BenchmarkOneChangeOf10k(b *testing.B) {
	r := manyServices()
	s, err := Open(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e := r.Edit()
		e.PutService(Service{Namespace: "ns7", Name: "svc7", Headless: true, Endpoints: []Endpoint{{Address: netip.AddrFrom4([4]byte{10, 250, byte(i >> 8), byte(i)}), Ready: true}}})
		r = e.Records()
		s.SetRecords(r)
	}
}

func BenchmarkAll10k(b *testing.B) {
	for b.Loop() {
		manyServices()
	}
}

// BenchmarkRespond is the work of one answer without sockets.
func BenchmarkRespond(b *testing.B) {
	s, err := Open(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	s.SetRecords(manyServices())
	req := new(dns.Msg)
	req.SetQuestion("svc4321.ns21.svc.cluster.local.", dns.TypeA)
	b.ReportAllocs()
	for b.Loop() {
		m := s.respond(b.Context(), req, netip.Addr{})
		fit(m, req, false)
		if _, err := m.Pack(); err != nil || len(m.Answer) != 1 {
			b.Fatal(err, m)
		}
	}
}

// BenchmarkQueries is questions over loopback, client and server in one
// process.
func BenchmarkQueries(b *testing.B) {
	up := newUpstream(b, says("www.test. 300 IN A 192.0.2.1"))
	s := forwarding(b, Config{}, up)
	s.SetRecords(manyServices())
	for name, q := range map[string]string{"service": "svc4321.ns21.svc.cluster.local.", "cached": "www.test."} {
		b.Run(name, func(b *testing.B) {
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				req := new(dns.Msg)
				req.SetQuestion(q, dns.TypeA)
				conn, err := dns.Dial("udp", s.Addresses()[0].String())
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				for pb.Next() {
					if err := conn.WriteMsg(req); err != nil {
						b.Error(err)
						return
					}
					if m, err := conn.ReadMsg(); err != nil || len(m.Answer) != 1 {
						b.Error(err, m)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
		})
	}
}
