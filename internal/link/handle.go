// Package link is what the node changes about links, addresses, routes,
// neighbours, connection tracking and sysctls. It speaks netlink itself: no
// program is started. A Handle belongs to one network namespace and may be
// used from any goroutine and thread.
//
// What is wanted twice is no error: adding what is there and deleting what is
// gone succeed.
package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Handle is a connection to the kernel's routing tables in one namespace.
type Handle struct {
	nl *netlink.Handle
	ns *os.File // the namespace, held open
}

// Open opens a Handle in the network namespace at path (a pin or
// /proc/PID/ns/net); the empty path is the caller's own. The Handle keeps the
// namespace alive until Close.
func Open(path string) (*Handle, error) {
	if path == "" {
		path = "/proc/thread-self/ns/net"
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(f.Fd()), unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open netlink in %s: %w", path, err)
	}
	return &Handle{nl: h, ns: f}, nil
}

// Close lets the namespace and the sockets go.
func (h *Handle) Close() error {
	h.nl.Close()
	return h.ns.Close()
}

// setns moves the calling thread into the handle's namespace.
func (h *Handle) setns() error { return unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET) }

// within runs fn on a locked thread inside the handle's namespace.
func (h *Handle) within(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked if the way back fails
		back, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(back)
			if err = h.setns(); err == nil {
				err = fn()
			}
			if unix.Setns(back, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}
		done <- err
	}()
	return <-done
}

// Reports whether err says that the thing is there, or is gone, already.
func exists(err error) bool { return errors.Is(err, unix.EEXIST) }

func gone(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) ||
		errors.Is(err, unix.EADDRNOTAVAIL) || errors.As(err, &notFound)
}

func ipOf(a netip.Addr) net.IP {
	if !a.IsValid() {
		return nil
	}
	return a.AsSlice()
}

func ipNet(p netip.Prefix) *net.IPNet {
	if !p.IsValid() {
		return nil
	}
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	ones, bits := n.Mask.Size()
	a := addrOf(n.IP)
	if a.Is4() && bits == 128 {
		ones -= 96
	}
	return netip.PrefixFrom(a, ones)
}
