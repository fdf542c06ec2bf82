package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Type is the type of a component of a key or value.
type Type uint8

// The types.
const (
	TypeAddr   Type = iota + 1 // IPv4 address
	TypeAddr6                  // IPv6 address
	TypeProto                  // IP protocol
	TypePort                   // TCP, UDP or SCTP port
	TypeMark                   // 32 bits of the host's byte order: marks, indices
	TypeIfName                 // link name
)

// Data is one or several components, each as the kernel wants it and padded
// to whole registers of four bytes: concatenate with +.
type Data string

// Addr is an address.
func Addr(a netip.Addr) Data {
	if a.Is4() {
		b := a.As4()
		return Data(b[:])
	}
	b := a.As16()
	return Data(b[:])
}

// Proto is an IP protocol.
func Proto(p uint8) Data { return Data([]byte{p, 0, 0, 0}) }

// Port is a port.
func Port(p uint16) Data { return Data([]byte{byte(p >> 8), byte(p), 0, 0}) }

// Mark is a mark or index.
func Mark(m uint32) Data { return Data(binary.NativeEndian.AppendUint32(nil, m)) }

// IfName is the name of a link.
func IfName(name string) Data {
	var b [ifNameSize]byte
	copy(b[:], name)
	return Data(b[:])
}

// Endpoint is an address and a port.
func Endpoint(a netip.AddrPort) Data { return Addr(a.Addr()) + Port(a.Port()) }

const ifNameSize = 16

// size is the number of bytes of a component that mean something.
func (t Type) size() int {
	switch t {
	case TypeAddr, TypeMark:
		return 4
	case TypeAddr6, TypeIfName:
		return 16
	case TypeProto:
		return 1
	case TypePort:
		return 2
	}
	return 0
}

func (t Type) padded() int { return (t.size() + 3) &^ 3 }

func (t Type) String() string {
	switch t {
	case TypeAddr:
		return "ipv4_addr"
	case TypeAddr6:
		return "ipv6_addr"
	case TypeProto:
		return "inet_proto"
	case TypePort:
		return "inet_service"
	case TypeMark:
		return "mark"
	case TypeIfName:
		return "ifname"
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// text writes a component as nft would.
func (t Type) text(b Data) string {
	switch t {
	case TypeAddr, TypeAddr6:
		a, _ := netip.AddrFromSlice([]byte(b[:t.size()]))
		return a.String()
	case TypeProto:
		return protoText(b[0])
	case TypePort:
		return strconv.Itoa(int(b[0])<<8 | int(b[1]))
	case TypeMark:
		return strconv.FormatUint(uint64(binary.NativeEndian.Uint32([]byte(b[:4]))), 10)
	case TypeIfName:
		return strconv.Quote(strings.TrimRight(string(b), "\x00"))
	}
	return strconv.Quote(string(b))
}

func protoText(p byte) string {
	switch p {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 58:
		return "ipv6-icmp"
	case 132:
		return "sctp"
	}
	return strconv.Itoa(int(p))
}

func width(types []Type) (n int) {
	for _, t := range types {
		n += t.padded()
	}
	return n
}

func typesText(types []Type) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = t.String()
	}
	return strings.Join(names, " . ")
}

func dataText(types []Type, d Data) string {
	parts := make([]string, 0, len(types))
	for _, t := range types {
		parts = append(parts, t.text(d[:t.padded()]))
		d = d[t.padded():]
	}
	return strings.Join(parts, " . ")
}

// exact is d as a set of these types stores it: a single component is not
// padded.
func exact(types []Type, d Data) []byte {
	if len(types) == 1 {
		return []byte(d[:types[0].size()])
	}
	return []byte(d)
}
