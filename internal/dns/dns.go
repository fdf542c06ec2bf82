// Package dns answers the names of the cluster on every node: services, their
// endpoints and pods below the cluster domain and their addresses in reverse,
// as the Kubernetes DNS specification 1.1.0 says; everything else is asked of
// upstream resolvers and kept for at most 30 s.
//
// Answers come from one immutable [Records] at a time, which is replaced whole;
// making the next one out of the last costs what changed, not what there is.
// The package also writes resolv.conf and hosts files of pods, as pure functions.
//
// It is the only importer of miekg/dns.
package dns

import (
	"net/netip"
	"time"
)

// Config is what a server is made from.
type Config struct {
	Domain    string           // cluster domain; default cluster.local
	Listen    []netip.AddrPort // UDP and TCP each; port 0 picks one for both
	Upstreams []netip.AddrPort // asked in order; see Server.SetUpstreams
	TTL       time.Duration    // of the cluster's records; default 5 s, at most 1 h
	Pods      PodNames         // whether a-b-c-d.N.pod names are answered; default Insecure
	Timeout   time.Duration    // for a forwarded question in all; default 5 s
	Attempt   time.Duration    // for one upstream; default 2 s
	Forwards  int              // questions at upstreams at once; default 512
	Cache     int              // upstream answers kept; default 2048, negative none
}

// PodNames says how a-b-c-d.N.pod.Z is answered.
type PodNames int

// The ways to answer pod names.
const (
	Insecure PodNames = iota // with a.b.c.d, if the namespace exists
	Verified                 // with a.b.c.d, if a pod of the namespace has it
	Disabled                 // not at all
)

// Service is what the records need to know of a Service and its endpoints.
type Service struct {
	Namespace, Name string
	ClusterIPs      []netip.Addr
	Headless        bool
	ExternalName    string // if set, nothing but namespace and name counts beside it
	Ports           []Port // of a service that is not headless
	Endpoints       []Endpoint
	PublishNotReady bool
}

// Port is a port under its name.
type Port struct {
	Name     string // may be empty
	Protocol string // TCP, UDP or SCTP
	Port     uint16
}

// Endpoint is one address behind a service.
type Endpoint struct {
	Address  netip.Addr
	Hostname string // if empty, the address with dashes is the name
	Ready    bool
	Ports    []Port // the endpoint's own, target, ports
}

// Pod is a pod's addresses, for Verified pod names.
type Pod struct {
	Namespace, Name string
	Addresses       []netip.Addr
}

// Stats counts what a server did since it was opened.
type Stats struct {
	Queries   uint64 // all
	Forwarded uint64 // questions that went to an upstream
	CacheHits uint64
	Failures  uint64 // forwarded questions that got no answer
}
