package nft

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Statement is a part of a rule: a match, or something that is done.
type Statement interface {
	text() string
	compile(*program) // appends expressions
}

func (r Rule) String() string {
	parts := make([]string, len(r))
	for i, s := range r {
		parts[i] = s.text()
	}
	return strings.Join(parts, " ")
}

// Field is something of a packet that can be looked at.
type Field uint8

// The fields.
const (
	SourceAddr Field = iota + 1
	DestinationAddr
	L4Proto
	SourcePort
	DestinationPort
	InputLink
	OutputLink
	PacketMark
	// RandomIndex is a random number below the N of Random; see Random.
	randomIndex
)

// Operand is a field, possibly with a parameter.
type Operand struct {
	Field Field
	N     uint32
}

// Random is a random number below n, different for each packet.
func Random(n int) Operand { return Operand{Field: randomIndex, N: uint32(n)} }

// Fields are operands without parameters.
func Fields(fields ...Field) []Operand {
	ops := make([]Operand, len(fields))
	for i, f := range fields {
		ops[i] = Operand{Field: f}
	}
	return ops
}

func (o Operand) typ() Type {
	switch o.Field {
	case SourceAddr, DestinationAddr:
		return TypeAddr
	case L4Proto:
		return TypeProto
	case SourcePort, DestinationPort:
		return TypePort
	case InputLink, OutputLink:
		return TypeIfName
	}
	return TypeMark
}

func (o Operand) text() string {
	switch o.Field {
	case SourceAddr:
		return "ip saddr"
	case DestinationAddr:
		return "ip daddr"
	case L4Proto:
		return "meta l4proto"
	case SourcePort:
		return "th sport"
	case DestinationPort:
		return "th dport"
	case InputLink:
		return "iifname"
	case OutputLink:
		return "oifname"
	case PacketMark:
		return "meta mark"
	case randomIndex:
		return "numgen random mod " + strconv.Itoa(int(o.N))
	}
	return fmt.Sprintf("field(%d)", o.Field)
}

func operandsText(ops []Operand) string {
	parts := make([]string, len(ops))
	for i, o := range ops {
		parts[i] = o.text()
	}
	return strings.Join(parts, " . ")
}

// Is matches packets whose field has the value.
func Is(f Field, value Data) Statement { return compare{f, value, false} }

// IsNot matches packets whose field has another value.
func IsNot(f Field, value Data) Statement { return compare{f, value, true} }

// Within matches packets whose address is in the prefix.
func Within(f Field, p netip.Prefix) Statement { return within{f, p, false} }

// Outside matches packets whose address is not in the prefix.
func Outside(f Field, p netip.Prefix) Statement { return within{f, p, true} }

// LinkLike matches packets whose link's name begins with prefix.
func LinkLike(f Field, prefix string) Statement { return linkLike{f, prefix, false} }

// LinkUnlike matches packets whose link's name does not begin with prefix, or
// that have no such link.
func LinkUnlike(f Field, prefix string) Statement { return linkLike{f, prefix, true} }

// In matches packets whose operands, together, are in a set.
func In(set string, ops ...Operand) Statement { return member{set, ops, false} }

// NotIn matches packets whose operands, together, are not in a set.
func NotIn(set string, ops ...Operand) Statement { return member{set, ops, true} }

// ToLocal matches packets to an address of this host.
func ToLocal() Statement { return toLocal{} }

// SourceElsewhere matches packets whose source address is not reached through
// the link they came in by.
func SourceElsewhere() Statement { return sourceElsewhere{} }

// Translated matches packets of connections whose destination was changed.
func Translated() Statement { return translated{} }

// HasMark matches packets with one of the bits in their mark.
func HasMark(bits uint32) Statement { return hasMark{bits} }

// AddMark sets bits in the packet's mark.
func AddMark(bits uint32) Statement { return addMark{bits} }

// Do ends the rule with a verdict.
func Do(v Verdict) Statement { return act{v} }

// VerdictMap ends the rule with the verdict that a map has for the operands;
// without one the next rule follows.
func VerdictMap(set string, ops ...Operand) Statement { return verdictMap{set, ops} }

// TranslateTo changes the destination to the address and port that a map has
// for the operands; without an entry the next rule follows.
func TranslateTo(set string, ops ...Operand) Statement { return translateTo{set, ops} }

// Remember keeps in the dynamic map set, for as long as timeout after the last
// packet that came here, what map choices had for choiceOps when the entry for
// the operands was made.
func Remember(set string, ops []Operand, timeout time.Duration, choices string, choiceOps []Operand) Statement {
	return remember{set, ops, timeout, choices, choiceOps}
}

// Masquerade changes the source to an address of the link the packet leaves by.
func Masquerade() Statement { return masquerade{} }

// RejectTCP answers a TCP packet with a reset.
func RejectTCP() Statement { return reject{tcp: true} }

// RejectICMP answers with ICMP port unreachable.
func RejectICMP() Statement { return reject{} }

type (
	compare struct {
		field Field
		value Data
		not   bool
	}
	within struct {
		field  Field
		prefix netip.Prefix
		not    bool
	}
	linkLike struct {
		field  Field
		prefix string
		not    bool
	}
	member struct {
		set string
		ops []Operand
		not bool
	}
	toLocal         struct{}
	sourceElsewhere struct{}
	translated      struct{}
	hasMark         struct{ bits uint32 }
	addMark         struct{ bits uint32 }
	act             struct{ verdict Verdict }
	verdictMap      struct {
		set string
		ops []Operand
	}
	translateTo struct {
		set string
		ops []Operand
	}
	remember struct {
		set       string
		ops       []Operand
		timeout   time.Duration
		choices   string
		choiceOps []Operand
	}
	masquerade struct{}
	reject     struct{ tcp bool }
)

func not(b bool) string {
	if b {
		return " !="
	}
	return ""
}

func (s compare) text() string {
	o := Operand{Field: s.field}
	return o.text() + not(s.not) + " " + o.typ().text(s.value)
}

func (s within) text() string {
	return Operand{Field: s.field}.text() + not(s.not) + " " + s.prefix.String()
}

func (s linkLike) text() string {
	return Operand{Field: s.field}.text() + not(s.not) + " " + strconv.Quote(s.prefix+"*")
}

func (s member) text() string          { return operandsText(s.ops) + not(s.not) + " @" + s.set }
func (s toLocal) text() string         { return "fib daddr type local" }
func (s sourceElsewhere) text() string { return "fib saddr . iif oif 0" }
func (s translated) text() string      { return "ct status dnat" }
func (s hasMark) text() string         { return fmt.Sprintf("meta mark & 0x%x != 0", s.bits) }
func (s addMark) text() string         { return fmt.Sprintf("meta mark set meta mark | 0x%x", s.bits) }
func (s act) text() string             { return s.verdict.String() }
func (s verdictMap) text() string      { return operandsText(s.ops) + " vmap @" + s.set }
func (s masquerade) text() string      { return "masquerade fully-random" }

func (s translateTo) text() string {
	return "dnat ip to " + operandsText(s.ops) + " map @" + s.set
}

func (s remember) text() string {
	return fmt.Sprintf("update @%s { %s timeout %v : %s map @%s }",
		s.set, operandsText(s.ops), s.timeout, operandsText(s.choiceOps), s.choices)
}

func (s reject) text() string {
	if s.tcp {
		return "meta l4proto tcp reject with tcp reset"
	}
	return "reject with icmp port-unreachable"
}
