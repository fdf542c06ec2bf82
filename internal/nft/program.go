package nft

import (
	"encoding/binary"
	"fmt"
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// program collects the expressions of one rule. Registers are words of four
// bytes; a concatenation lies in consecutive ones.
type program struct {
	family Family
	exprs  []expr.Any
	err    error
}

const words = 16 // registers there are

// register is the kernel's number of a word; the first has its old name, as
// the nft program writes it too.
func register(word int) uint32 {
	if word == 0 {
		return unix.NFT_REG_1
	}
	return uint32(unix.NFT_REG32_00 + word)
}

func (p *program) add(e ...expr.Any) { p.exprs = append(p.exprs, e...) }

func (p *program) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

func compile(family Family, r Rule) ([]expr.Any, error) {
	p := program{family: family}
	for _, s := range r {
		s.compile(&p)
	}
	if p.err != nil {
		return nil, fmt.Errorf("rule %q: %w", r.String(), p.err)
	}
	return p.exprs, nil
}

// load puts operands into consecutive registers from word on and returns the
// word after them.
func (p *program) load(word int, ops ...Operand) int {
	for _, o := range ops {
		p.loadOne(register(word), o)
		word += o.typ().padded() / 4
	}
	if word > words {
		p.fail("%d registers are more than there are", word)
	}
	return word
}

func (p *program) loadOne(reg uint32, o Operand) {
	switch o.Field {
	case SourceAddr:
		p.loadAddr(reg, 12)
	case DestinationAddr:
		p.loadAddr(reg, 16)
	case L4Proto:
		p.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg})
	case SourcePort:
		p.add(&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2})
	case DestinationPort:
		p.add(&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
	case InputLink:
		p.add(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg})
	case OutputLink:
		p.add(&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg})
	case PacketMark:
		p.add(&expr.Meta{Key: expr.MetaKeyMARK, Register: reg})
	case randomIndex:
		p.add(&expr.Numgen{Register: reg, Modulus: o.N, Type: unix.NFT_NG_RANDOM})
	default:
		p.fail("unknown field %d", o.Field)
	}
}

func (p *program) loadAddr(reg uint32, offset uint32) {
	if p.family != IPv4 {
		p.fail("addresses are built for ip tables only, not %v", p.family)
	}
	p.add(&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4})
}

func op(not bool) expr.CmpOp {
	if not {
		return expr.CmpOpNeq
	}
	return expr.CmpOpEq
}

func (s compare) compile(p *program) {
	o := Operand{Field: s.field}
	p.load(0, o)
	if len(s.value) != o.typ().padded() {
		p.fail("value of %d bytes", len(s.value))
		return
	}
	p.add(&expr.Cmp{Op: op(s.not), Register: register(0), Data: exact([]Type{o.typ()}, s.value)})
}

func (s within) compile(p *program) {
	p.load(0, Operand{Field: s.field})
	addr := s.prefix.Masked().Addr()
	if !addr.Is4() {
		p.fail("%v is not an IPv4 prefix", s.prefix)
		return
	}
	if s.prefix.Bits() < 32 {
		p.add(&expr.Bitwise{
			SourceRegister: register(0), DestRegister: register(0), Len: 4,
			Mask: net.CIDRMask(s.prefix.Bits(), 32), Xor: make([]byte, 4),
		})
	}
	p.add(&expr.Cmp{Op: op(s.not), Register: register(0), Data: addr.AsSlice()})
}

func (s linkLike) compile(p *program) {
	p.load(0, Operand{Field: s.field})
	p.add(&expr.Cmp{Op: op(s.not), Register: register(0), Data: []byte(s.prefix)})
}

func (s member) compile(p *program) {
	p.load(0, s.ops...)
	p.add(&expr.Lookup{SourceRegister: register(0), SetName: s.set, Invert: s.not})
}

func (s toLocal) compile(p *program) {
	p.add(
		&expr.Fib{Register: register(0), ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register(0), Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)},
	)
}

func (s sourceElsewhere) compile(p *program) {
	p.add(
		&expr.Fib{Register: register(0), ResultOIF: true, FlagSADDR: true, FlagIIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register(0), Data: make([]byte, 4)},
	)
}

// ctStatusDNAT is IPS_DST_NAT of the kernel's nf_conntrack_common.h.
const ctStatusDNAT = 1 << 5

func (s translated) compile(p *program) {
	p.add(&expr.Ct{Key: expr.CtKeySTATUS, Register: register(0)})
	p.maskNotZero(ctStatusDNAT)
}

func (s hasMark) compile(p *program) {
	p.load(0, Operand{Field: PacketMark})
	p.maskNotZero(s.bits)
}

func (p *program) maskNotZero(bits uint32) {
	p.add(
		&expr.Bitwise{
			SourceRegister: register(0), DestRegister: register(0), Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register(0), Data: make([]byte, 4)},
	)
}

func (s addMark) compile(p *program) {
	p.load(0, Operand{Field: PacketMark})
	p.add(
		&expr.Bitwise{
			SourceRegister: register(0), DestRegister: register(0), Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, ^s.bits), Xor: binary.NativeEndian.AppendUint32(nil, s.bits),
		},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register(0)},
	)
}

func (s act) compile(p *program) { p.add(verdictExpr(s.verdict)) }

func verdictExpr(v Verdict) *expr.Verdict {
	kinds := map[Action]expr.VerdictKind{
		Accept: expr.VerdictAccept, Drop: expr.VerdictDrop, Return: expr.VerdictReturn,
		Jump: expr.VerdictJump, GoTo: expr.VerdictGoto,
	}
	return &expr.Verdict{Kind: kinds[v.Action], Chain: v.Chain}
}

func (s verdictMap) compile(p *program) {
	p.load(0, s.ops...)
	p.add(&expr.Lookup{SourceRegister: register(0), SetName: s.set, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true})
}

func (s translateTo) compile(p *program) {
	p.load(0, s.ops...)
	p.add(
		&expr.Lookup{SourceRegister: register(0), SetName: s.set, DestRegister: register(0), IsDestRegSet: true},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(nftables.TableFamilyIPv4), RegAddrMin: register(0), RegProtoMin: register(1)},
	)
}

func (s remember) compile(p *program) {
	value := p.load(0, s.ops...)
	p.load(value, s.choiceOps...)
	p.add(
		&expr.Lookup{SourceRegister: register(value), SetName: s.choices, DestRegister: register(value), IsDestRegSet: true},
		&expr.Dynset{
			SrcRegKey: register(0), SrcRegData: register(value), SetName: s.set,
			Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: s.timeout,
		},
	)
}

func (s masquerade) compile(p *program) { p.add(&expr.Masq{FullyRandom: true}) }

const (
	icmpPortUnreachable = 3
	protoTCP            = 6
)

func (s reject) compile(p *program) {
	if !s.tcp {
		p.add(&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: icmpPortUnreachable})
		return
	}
	compare{L4Proto, Proto(protoTCP), false}.compile(p)
	p.add(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
}
