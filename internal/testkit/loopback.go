package testkit

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// loopbacks counts the addresses that Loopback has given out.
var loopbacks atomic.Uint32

// Loopback gives an address of the loopback that nobody else uses: no other
// call, and no test program that runs beside this one. A port that was free on
// it a moment ago still is, so what is to be told its port before it listens,
// or to listen on the same one again, can be.
func Loopback() netip.Addr {
	pid, n := os.Getpid(), loopbacks.Add(1)
	return netip.AddrFrom4([4]byte{127, byte(16 + n%224), byte(pid >> 8), byte(pid)})
}

// FreePort gives a port of an address at which nobody listens.
func FreePort(t testing.TB, addr netip.Addr) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// Refusing gives HOST:PORT where every connection is refused, for as long as
// the test runs: the port is taken, but nobody listens.
func Refusing(t testing.TB) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
}
