package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/pki"
)

// advertise gives the address under which others reach this machine.
func (c config) advertise(ctx context.Context) (netip.Addr, error) {
	if c.AdvertiseAddress != "" {
		return netip.ParseAddr(c.AdvertiseAddress)
	}
	// A connected UDP socket has the source address that the default route
	// would give; nothing is sent.
	if conn, err := new(net.Dialer).DialContext(ctx, "udp", "192.0.2.1:9"); err == nil {
		defer conn.Close()
		if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
			return a.AddrPort().Addr().Unmap(), nil
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, err
	}
	var found []netip.Addr
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Unmap().Is4() && p.Addr().IsGlobalUnicast() {
			found = append(found, p.Addr().Unmap())
		}
	}
	if len(found) != 1 {
		return netip.Addr{}, errors.New("advertise-address: this machine has no default route and not exactly one address: set it to the one that the other machines reach")
	}
	return found[0], nil
}

// grpcAddress is where the other members and the nodes find this one.
func (c config) grpcAddress(self netip.Addr) string {
	return netip.AddrPortFrom(self, c.GRPCPort).String()
}

func (c config) listen(port uint16) string {
	return net.JoinHostPort(c.ListenAddress, strconv.Itoa(int(port)))
}

// wanted are the names and addresses that this member's certificate asks for.
func (c config) wanted(self netip.Addr) (names []string, addrs []netip.Addr) {
	names, addrs = []string{c.Name}, []netip.Addr{self}
	for _, n := range c.ServerNames {
		if a, err := netip.ParseAddr(n); err == nil {
			addrs = append(addrs, a)
		} else {
			names = append(names, strings.ToLower(n))
		}
	}
	return names, addrs
}

// certified reports whether the certificate is for all that is wanted.
func certified(keys *pki.KeyPair, names []string, addrs []netip.Addr, s cluster.Settings) bool {
	names, addrs = pki.ServerNames(names, addrs, s.FirstService(), s.Domain)
	leaf := keys.Leaf()
	for _, n := range names {
		if leaf.VerifyHostname(n) != nil {
			return false
		}
	}
	for _, a := range addrs {
		if leaf.VerifyHostname(a.String()) != nil {
			return false
		}
	}
	return true
}

// server is the URL of the administrator's kubeconfig.
func (c config) server(self netip.Addr) string {
	host := self.String()
	if len(c.ServerNames) > 0 {
		host = c.ServerNames[0]
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(int(c.HTTPSPort)))
}
