package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
)

// Bounds on one server.
const (
	maxTTL      = time.Hour
	maxUDP      = 4096 // largest message taken or sent over UDP
	ednsUDP     = 1232 // what we tell others to send us
	maxTCPConns = 512
)

// Server answers DNS questions.
type Server struct {
	cfg     Config
	domain  string // with a dot at its end
	listens []listener
	self    []netip.Addr
	current atomic.Pointer[current]
	turn    atomic.Uint32
	forward *forwarder
	queries atomic.Uint64
}

// current is the records in force and when they came.
type current struct {
	records *Records
	serial  uint32
}

// listener is one address, taken for both transports.
type listener struct {
	udp net.PacketConn
	tcp net.Listener
}

// Open takes the listeners of cfg. Until the first SetRecords, names of the
// cluster are answered with SERVFAIL.
func Open(cfg Config) (*Server, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("open DNS server: %w", err)
	}
	s := &Server{cfg: cfg, domain: dns.Fqdn(cfg.Domain), forward: newForwarder(cfg)}
	for _, a := range cfg.Listen {
		l, err := listen(a)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open DNS server: %w", err), s.Close())
		}
		s.listens = append(s.listens, l)
		if ip := a.Addr(); !ip.IsUnspecified() {
			s.self = append(s.self, ip.Unmap())
		}
	}
	s.SetUpstreams(cfg.Upstreams)
	return s, nil
}

func (c Config) complete() (Config, error) {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.TTL, 5*time.Second)
	set(&c.Timeout, 5*time.Second)
	set(&c.Attempt, 2*time.Second)
	if c.Domain == "" {
		c.Domain = "cluster.local"
	}
	if c.Forwards == 0 {
		c.Forwards = 512
	}
	if c.Cache == 0 {
		c.Cache = 2048
	}
	if _, ok := dns.IsDomainName(c.Domain); !ok || strings.Trim(c.Domain, ".") == "" {
		return c, fmt.Errorf("domain %q is no domain name", c.Domain)
	}
	if c.TTL < 0 || c.TTL > maxTTL {
		return c, fmt.Errorf("TTL %v is not between 0 and %v", c.TTL, maxTTL)
	}
	if len(c.Listen) == 0 {
		return c, errors.New("no address to listen on")
	}
	return c, nil
}

// listen takes an address for UDP and TCP. Port 0 is the same for both.
func listen(a netip.AddrPort) (listener, error) {
	for try := 0; ; try++ {
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
		if err != nil {
			return listener{}, explainListen(a, "udp", err)
		}
		at := udp.LocalAddr().(*net.UDPAddr).AddrPort()
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.Addr(), at.Port())))
		if err == nil {
			return listener{udp, netutil.LimitListener(tcp, maxTCPConns)}, nil
		}
		udp.Close()
		if a.Port() != 0 || try == 10 {
			return listener{}, explainListen(a, "tcp", err)
		}
	}
}

// explainListen says what is to be done about an address that cannot be taken.
func explainListen(a netip.AddrPort, network string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s/%s: no interface of this machine has the address %s: %w", a, network, a.Addr(), err)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen on %s/%s: another program has the port: %w", a, network, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen on %s/%s: a port below 1024 needs root or CAP_NET_BIND_SERVICE: %w", a, network, err)
	}
	return fmt.Errorf("listen on %s/%s: %w", a, network, err)
}

// Addresses returns where the server listens.
func (s *Server) Addresses() []netip.AddrPort {
	var out []netip.AddrPort
	for _, l := range s.listens {
		out = append(out, l.udp.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	return out
}

// Close gives the listeners back; Run does so itself.
func (s *Server) Close() error {
	var errs []error
	for _, l := range s.listens {
		errs = append(errs, l.udp.Close(), l.tcp.Close())
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends, then closes the listeners. It is called once.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	failed := make(chan error, 2*len(s.listens))
	for _, l := range s.listens {
		handler := func(tcp bool) dns.HandlerFunc {
			return func(w dns.ResponseWriter, req *dns.Msg) { s.serve(ctx, w, req, tcp) }
		}
		for _, srv := range []*dns.Server{
			{PacketConn: l.udp, Handler: handler(false), UDPSize: maxUDP},
			{Listener: l.tcp, Handler: handler(true), IdleTimeout: func() time.Duration { return 10 * time.Second }},
		} {
			all.Go(func() { failed <- runOne(ctx, srv) })
		}
	}
	var err error
	for range cap(failed) {
		if e := <-failed; e != nil {
			err = errors.Join(err, e)
		}
		cancel() // one that ends takes the others with it
	}
	all.Wait()
	return err
}

// runOne serves one transport until ctx ends and all its questions are
// answered.
func runOne(ctx context.Context, srv *dns.Server) error {
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	select {
	case err := <-done:
		return fmt.Errorf("serve DNS: %w", err)
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-started:
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	err := srv.ShutdownContext(end)
	return errors.Join(err, <-done)
}

// SetRecords makes r what is answered from now on. It costs nothing.
func (s *Server) SetRecords(r *Records) {
	if r == nil {
		r = emptyRecords()
	}
	s.current.Store(&current{records: r, serial: uint32(time.Now().Unix())})
}

// SetUpstreams replaces the upstream resolvers, those that are this server
// itself left out; it returns those.
func (s *Server) SetUpstreams(upstreams []netip.AddrPort) []netip.AddrPort {
	var use, own []netip.AddrPort
	for _, u := range upstreams {
		if s.is(u) {
			own = append(own, u)
			continue
		}
		use = append(use, netip.AddrPortFrom(u.Addr().Unmap(), u.Port()))
	}
	s.forward.set(use)
	return own
}

// is reports whether this server listens at a.
func (s *Server) is(a netip.AddrPort) bool {
	for _, l := range s.Addresses() {
		if l.Port() != a.Port() {
			continue
		}
		if l.Addr().Unmap() == a.Addr().Unmap() || (l.Addr().IsUnspecified() && isLocal(a.Addr().Unmap())) {
			return true
		}
	}
	return false
}

// isLocal reports whether this machine has the address.
func isLocal(a netip.Addr) bool {
	if a.IsLoopback() || a.IsUnspecified() {
		return true
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, n := range all {
		if p, err := netip.ParsePrefix(n.String()); err == nil && p.Addr().Unmap() == a {
			return true
		}
	}
	return false
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	st := s.forward.stats()
	st.Queries = s.queries.Load()
	return st
}
