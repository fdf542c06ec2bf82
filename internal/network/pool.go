package network

import (
	"encoding/binary"
	"net/netip"

	"github.com/wherry-project/wherry/internal/apierr"
)

// pool hands out the addresses of the node's range, each to one pod. The next
// one is the next free after the last, so that an address rests for as long as
// possible after a pod has gone. The first address is the node's own on the
// VXLAN device, the last looks like a broadcast: neither is handed out.
type pool struct {
	cidr   netip.Prefix
	last   netip.Addr
	byAddr map[netip.Addr]string
	byID   map[string]netip.Addr
}

// setRange changes the range. Addresses given out before stay with their pods.
func (p *pool) setRange(cidr netip.Prefix) {
	if p.cidr != cidr {
		p.cidr, p.last = cidr, netip.Addr{}
	}
}

// take gives a pod an address: want if valid, what it has, or the next free.
func (p *pool) take(id string, want netip.Addr) (netip.Addr, error) {
	if p.byAddr == nil {
		p.byAddr, p.byID = make(map[netip.Addr]string), make(map[string]netip.Addr)
	}
	if want.IsValid() {
		if owner, ok := p.byAddr[want]; ok && owner != id {
			return netip.Addr{}, apierr.New(apierr.ErrConflict, "address %v belongs to pod %s", want, owner)
		}
		if p.cidr.IsValid() && !p.cidr.Contains(want) { // before there is a range, found pods tell theirs
			return netip.Addr{}, apierr.New(apierr.ErrConflict, "address %v is not in this node's pod range %v", want, p.cidr)
		}
		p.give(id, want)
		return want, nil
	}
	if a, ok := p.byID[id]; ok {
		return a, nil
	}
	a, err := p.next()
	if err == nil {
		p.last = a
		p.give(id, a)
	}
	return a, err
}

func (p *pool) give(id string, a netip.Addr) {
	if was, ok := p.byID[id]; ok {
		delete(p.byAddr, was)
	}
	p.byAddr[a], p.byID[id] = id, a
}

func (p *pool) next() (netip.Addr, error) {
	if !p.cidr.IsValid() {
		return netip.Addr{}, apierr.Unavailable("this node has no pod range yet")
	}
	first := number(p.cidr.Addr())
	size := uint32(1) << (32 - p.cidr.Bits())
	offset := uint32(0)
	if p.last.IsValid() {
		offset = number(p.last) - first
	}
	for range size {
		offset = (offset + 1) % size
		a := address(first + offset)
		if _, taken := p.byAddr[a]; !taken && offset != 0 && offset != size-1 {
			return a, nil
		}
	}
	return netip.Addr{}, apierr.Unavailable("pod range %v has no free address; %d pods hold one", p.cidr, len(p.byAddr))
}

// free takes the address of a pod back.
func (p *pool) free(id string) {
	delete(p.byAddr, p.byID[id])
	delete(p.byID, id)
}

func number(a netip.Addr) uint32 { b := a.As4(); return binary.BigEndian.Uint32(b[:]) }

func address(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}
