package network

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/link"
	"github.com/wherry-project/wherry/internal/netns"
	"github.com/wherry-project/wherry/internal/testkit"
)

// lab is a handful of hosts on one switch, all in namespaces of the test.
type lab struct {
	t      *testing.T
	fabric string // namespace of the switch
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, fabric: testkit.ScratchNetNS(t).Path}
	l.in(l.fabric, func(h *link.Handle) error { return errors.Join(h.AddBridge("switch"), h.SetUp("switch")) })
	return l
}

func (l *lab) in(ns string, fn func(*link.Handle) error) {
	l.t.Helper()
	h, err := link.Open(ns)
	if err != nil {
		l.t.Fatal(err)
	}
	defer h.Close()
	if err := fn(h); err != nil {
		l.t.Fatal(err)
	}
}

// host adds a host with an address on the switch and returns its namespace.
func (l *lab) host(name, address string) string {
	l.t.Helper()
	ns := testkit.ScratchNetNS(l.t).Path
	l.in(l.fabric, func(h *link.Handle) error {
		_, err := h.AddVeth(link.Veth{Name: name, Peer: "eth0", PeerNetNS: ns, Up: true})
		return errors.Join(err, h.SetMaster(name, "switch"))
	})
	l.in(ns, func(h *link.Handle) error {
		eth, _, err := h.Find("eth0")
		return errors.Join(err, h.SetUp("eth0"),
			h.AddAddress(link.Address{Link: eth.Index, Prefix: netip.MustParsePrefix(address)}))
	})
	return ns
}

// node opens the network of a host, as noded would there.
func (l *lab) node(ns string) *Network {
	l.t.Helper()
	dir := filepath.Join(l.t.TempDir(), "netns")
	n, err := Open(l.t.Context(), Options{NetNS: ns, RunDir: dir})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		left, _ := os.ReadDir(dir)
		for _, p := range left {
			err = errors.Join(err, netns.Delete(filepath.Join(dir, p.Name())))
		}
		if err = errors.Join(err, n.Close()); err != nil {
			l.t.Error(err)
		}
	})
	return n
}

func (l *lab) attach(n *Network, id string) Pod {
	l.t.Helper()
	p, err := n.Attach(l.t.Context(), PodConfig{ID: id})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { netns.Delete(p.NetNS) })
	return p
}

// serve answers each TCP connection with the client's address.
func (l *lab) serve(ns, address string) {
	l.t.Helper()
	var ln net.Listener
	err := netns.Do(ns, func() (err error) {
		ln, err = net.Listen("tcp4", address)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprintln(c, host)
			c.Close()
		}
	}()
	l.t.Cleanup(func() { ln.Close(); <-done })
}

// ask connects and returns the address that the server saw.
func ask(ns, address string) (seen string, err error) {
	err = netns.Do(ns, func() error {
		c, err := net.DialTimeout("tcp4", address, 20*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		seen, err = bufio.NewReader(c).ReadString('\n')
		if errors.Is(err, io.EOF) && seen != "" {
			err = nil
		}
		seen = strings.TrimSpace(seen)
		return err
	})
	return seen, err
}

func (l *lab) wantSeen(ns, address, want string) {
	l.t.Helper()
	got, err := ask(ns, address)
	if err != nil {
		l.t.Errorf("connect to %s: %v", address, err)
	} else if got != want {
		l.t.Errorf("server at %s saw %s, want %s", address, got, want)
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// config is that of node number i of those that have addresses 10.0.0.i.
func config(i int, peers ...int) Config {
	c := Config{
		PodCIDRs:       []netip.Prefix{prefix(fmt.Sprintf("10.244.%d.0/24", i))},
		ClusterCIDRs:   []netip.Prefix{prefix("10.244.0.0/16")},
		ServiceCIDRs:   []netip.Prefix{prefix("10.96.0.0/16")},
		LocalAddresses: []netip.Addr{addr("10.96.0.10")},
		Address:        addr(fmt.Sprintf("10.0.0.%d", i)),
		Masquerade:     true,
	}
	for _, p := range peers {
		c.Peers = append(c.Peers, Peer{
			Name: fmt.Sprintf("n%d", p), Address: addr(fmt.Sprintf("10.0.0.%d", p)),
			PodCIDRs: []netip.Prefix{prefix(fmt.Sprintf("10.244.%d.0/24", p))},
		})
	}
	return c
}
