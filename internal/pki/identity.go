package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The users and groups that programs of Wherry act as.
const (
	MembersGroup = "system:wherry:controls"
	NodesGroup   = "system:nodes"
	MastersGroup = "system:masters"
	AdminUser    = "kubernetes-admin"

	memberPrefix = "system:wherry:control:"
	nodePrefix   = "system:node:"
)

// ReservedGroups are the groups whose members have their rights by the group
// alone. No certificate of them is made on anybody's request: nodes and members
// join with tokens, and administrators are made by who holds the CA.
func ReservedGroups() []string { return []string{MastersGroup, NodesGroup, MembersGroup} }

// Role is what a certificate makes of its holder.
type Role string

// The roles. A connection without a certificate has the role Nobody.
const (
	Nobody Role = ""
	Member Role = "member" // a controld
	Node   Role = "node"   // a noded
	User   Role = "user"   // anybody else
)

// Peer is who is at the other end of a connection.
type Peer struct {
	Role Role
	// Name of the member or node, without its prefix; empty for users.
	Name string
	// User and Groups as the certificate states them.
	User   string
	Groups []string
	// Key is the [Hash] of the certificate: what is pinned.
	Key string
	// Expires is the certificate's last date.
	Expires time.Time
}

// MemberRequest is the certificate of a controld.
func MemberRequest(name string, names []string, addrs []netip.Addr) Request {
	return Request{User: memberPrefix + name, Groups: []string{MembersGroup}, Names: names, Addresses: addrs, Life: HostLife}
}

// NodeRequest is the certificate of a noded.
func NodeRequest(name string, names []string, addrs []netip.Addr) Request {
	return Request{User: nodePrefix + name, Groups: []string{NodesGroup}, Names: names, Addresses: addrs, Life: HostLife}
}

// AdminRequest is the certificate of the cluster's first user.
func AdminRequest() Request {
	return Request{User: AdminUser, Groups: []string{MastersGroup}, Life: UserLife}
}

// ServerNames returns what a controld's certificate states, for
// [MemberRequest]: the names given (its host's, and the one name of all
// controlds), localhost, the service's names, and every address.
func ServerNames(given []string, addrs []netip.Addr, service netip.Addr, clusterDomain string) ([]string, []netip.Addr) {
	names := append(slices.Clone(given), "localhost", "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc."+clusterDomain)
	all := append(slices.Clone(addrs), netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	if service.IsValid() {
		all = append(all, service)
	}
	slices.Sort(names)
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(names), slices.Compact(all)
}

// peerOf reads a certificate.
func peerOf(c *x509.Certificate) Peer {
	p := Peer{Role: User, User: c.Subject.CommonName, Groups: c.Subject.Organization, Key: Hash(c), Expires: c.NotAfter}
	if name, ok := strings.CutPrefix(p.User, memberPrefix); ok && slices.Contains(p.Groups, MembersGroup) {
		p.Role, p.Name = Member, name
	} else if name, ok := strings.CutPrefix(p.User, nodePrefix); ok && slices.Contains(p.Groups, NodesGroup) {
		p.Role, p.Name = Node, name
	}
	return p
}

// NewCSR returns a PKCS #10 request (DER) for key, with the names and addresses
// that its holder would like to serve under.
func NewCSR(key crypto.Signer, user string, names []string, addrs []netip.Addr) ([]byte, error) {
	tmpl := &x509.CertificateRequest{Subject: pkix.Name{CommonName: user}, DNSNames: names}
	for _, a := range addrs {
		tmpl.IPAddresses = append(tmpl.IPAddresses, net.IP(a.Unmap().AsSlice()))
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

// CSR is a certificate request whose sender has the key. What it asks for is a
// wish; the signer decides.
type CSR struct {
	Public    crypto.PublicKey
	PublicDER []byte // PKIX
	Key       string // the Hash of a certificate for it
	User      string
	Names     []string
	Addresses []netip.Addr
}

// ParseCSR reads a PKCS #10 request (DER) and checks that it is signed by the
// key it holds.
func ParseCSR(der []byte) (CSR, error) {
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return CSR{}, fmt.Errorf("certificate request: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return CSR{}, fmt.Errorf("certificate request: %w", err)
	}
	hash, err := KeyHash(r.PublicKey)
	if err != nil {
		return CSR{}, err
	}
	c := CSR{Public: r.PublicKey, PublicDER: r.RawSubjectPublicKeyInfo, Key: hash, User: r.Subject.CommonName, Names: r.DNSNames}
	for _, ip := range r.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			c.Addresses = append(c.Addresses, a.Unmap())
		}
	}
	return c, nil
}
