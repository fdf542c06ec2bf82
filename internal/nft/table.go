// Package nft changes nftables in typed transactions over netlink. A table is
// a value: Diff of two of them gives the Changes that lead from one to the
// other, Commit makes them all or none, and String is the text that tests
// compare. Conn commits to the kernel, Fake to tables in memory with the
// kernel's checks.
package nft

import (
	"fmt"
	"time"
)

// Family is what packets a table sees.
type Family uint8

// The families.
const (
	IPv4   Family = 2
	Inet   Family = 1
	Bridge Family = 7
	IPv6   Family = 10
)

func (f Family) String() string {
	switch f {
	case IPv4:
		return "ip"
	case Inet:
		return "inet"
	case Bridge:
		return "bridge"
	case IPv6:
		return "ip6"
	}
	return fmt.Sprintf("family(%d)", uint8(f))
}

// Table is a table of ours, whole: what it does not name is not in it. Sets
// and chains have unique names and keep their order.
type Table struct {
	Family Family
	Name   string
	Sets   []Set
	Chains []Chain
}

// Set is a set, or a map if Value is given or Verdicts is true.
type Set struct {
	Name     string
	Key      []Type
	Value    []Type
	Verdicts bool // a map to verdicts, used by VerdictMap
	// Timeout makes elements go by themselves after this time. Dynamic lets
	// rules add elements (Remember); Size bounds them, 65535 if 0. Diff leaves
	// the elements of a dynamic set alone.
	Timeout  time.Duration
	Dynamic  bool
	Size     uint32
	Elements []Element
}

// Element is a member of a set or an entry of a map.
type Element struct {
	Key     Data
	Value   Data    // of a map
	Verdict Verdict // of a map to verdicts
}

// Chain is a list of rules; with a Hook, one that packets enter by themselves.
type Chain struct {
	Name  string
	Hook  *Hook
	Rules []Rule
}

// Hook is where, and in which order, the kernel calls a chain. Its policy is
// to accept.
type Hook struct {
	Type     string // "filter" or "nat"
	At       HookPoint
	Priority int
}

// HookPoint is a stop on a packet's way.
type HookPoint uint8

// The hook points.
const (
	Prerouting HookPoint = iota
	Input
	Forward
	Output
	Postrouting
)

func (p HookPoint) String() string {
	return [...]string{"prerouting", "input", "forward", "output", "postrouting"}[p]
}

// The usual priorities.
const (
	PriorityRaw    = -300
	PriorityMangle = -150
	PriorityDNAT   = -100
	PriorityFilter = 0
	PrioritySNAT   = 100
)

// Rule is a list of statements; the first that does not match ends it.
type Rule []Statement

// Verdict is what becomes of a packet.
type Verdict struct {
	Action Action
	Chain  string // of Jump and GoTo
}

// Action is the kind of a verdict.
type Action uint8

// The actions.
const (
	Accept Action = iota + 1
	Drop
	Return
	Jump
	GoTo
)

func (v Verdict) String() string {
	switch v.Action {
	case Accept:
		return "accept"
	case Drop:
		return "drop"
	case Return:
		return "return"
	case Jump:
		return "jump " + v.Chain
	case GoTo:
		return "goto " + v.Chain
	}
	return ""
}
