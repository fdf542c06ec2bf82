//go:build cgo && seccomp

package main

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// makeNetwork makes a network namespace, joined by a veth, with an address and
// a default route, and gives the path by which others enter it.
func (p *pod) makeNetwork() (string, error) {
	path := p.path("netns")
	if err := os.MkdirAll(p.path(""), 0o700); err != nil {
		return "", err
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	done := make(chan error)
	go func() {
		// The thread is in another namespace afterwards and ends with this.
		runtime.LockOSThread()
		done <- p.inside(path)
	}()
	return path, <-done
}

func (p *pod) inside(path string) error {
	outside, err := os.Open("/proc/1/ns/net")
	if err != nil {
		return err
	}
	defer outside.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a namespace: %w", err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin the namespace: %w", err)
	}
	inner, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer inner.Close()
	a, b := byte(p.number>>8), byte(p.number)
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "v" + p.id,
		PeerNamespace: netlink.NsFd(int(outside.Fd())),
	}
	if err := inner.LinkAdd(veth); err != nil {
		return fmt.Errorf("make a veth: %w", err)
	}
	eth, err := inner.LinkByName("eth0")
	if err != nil {
		return err
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 244, a, b), Mask: net.CIDRMask(32, 32)}}
	if err := inner.AddrAdd(eth, address); err != nil {
		return err
	}
	if err := inner.LinkSetUp(eth); err != nil {
		return err
	}
	gateway := net.IPv4(169, 254, 1, 1)
	index := eth.Attrs().Index
	for _, r := range []*netlink.Route{
		{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: gateway, Mask: net.CIDRMask(32, 32)}},
		{LinkIndex: index, Gw: gateway},
	} {
		if err := inner.RouteAdd(r); err != nil {
			return fmt.Errorf("add a route: %w", err)
		}
	}
	return nil
}
