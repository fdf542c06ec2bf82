package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/store"
)

// joinTries bounds how often a join is tried again because somebody wrote in
// between.
const joinTries = 5

// Join implements wherryv1.ClusterServer. Joining again with the same key and
// name, as after an answer that was lost, gives the same identity.
func (s *Server) Join(ctx context.Context, r *wherryv1.JoinRequest) (*wherryv1.JoinResponse, error) {
	role, err := roleOf(r.GetRole())
	if err != nil {
		return nil, err
	}
	token, err := pki.ParsePresented(r.GetToken())
	if err != nil {
		return nil, apierr.BadRequest("%w", err)
	}
	csr, err := pki.ParseCSR(r.GetCsr())
	if err != nil {
		return nil, apierr.BadRequest("%w", err)
	}
	if bad := validation.IsDNS1123Subdomain(r.GetName()); len(bad) > 0 {
		return nil, apierr.BadRequest("name %q: %s; set another with --name", r.GetName(), strings.Join(bad, ", "))
	}
	if role == pki.Member {
		if err := checkAddress(r.GetAddress()); err != nil {
			return nil, err
		}
	}
	for range joinTries {
		resp, err := s.join(ctx, role, r.GetName(), token, csr)
		var lost *store.CompareError
		if errors.As(err, &lost) {
			continue
		}
		if err == nil {
			s.cfg.Log.Info("joined", "role", role, "name", r.GetName(), "token", token.ID, "member", resp.GetMemberId())
		}
		return resp, err
	}
	return nil, apierr.ServerTimeout("members", "join", 0)
}

func roleOf(r wherryv1.Role) (pki.Role, error) {
	switch r {
	case wherryv1.Role_ROLE_CONTROL:
		return pki.Member, nil
	case wherryv1.Role_ROLE_NODE:
		return pki.Node, nil
	}
	return pki.Nobody, apierr.BadRequest("role: must be ROLE_CONTROL or ROLE_NODE")
}

// checkAddress tells what is wrong with a member's address.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" {
		return apierr.BadRequest("address %q: must be HOST:PORT, under which the other members reach this one", address)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		return apierr.BadRequest("address %q: others cannot reach an unspecified address; set --advertise-address", address)
	}
	return nil
}

// join makes one attempt, out of one snapshot, by one command.
func (s *Server) join(ctx context.Context, role pki.Role, name string, token pki.Token, csr pki.CSR) (*wherryv1.JoinResponse, error) {
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return nil, err
	}
	pass, err := s.admit(snap, token, role)
	if err != nil {
		return nil, err
	}
	pin, id, err := s.pin(ctx, snap, role, name, csr)
	if err != nil {
		return nil, err
	}
	cluster, err := ReadSettings(snap)
	if err != nil {
		return nil, err
	}
	cert, ca, err := s.sign(snap, cluster, &id, csr)
	if err != nil {
		return nil, err
	}
	write, err := put(identityKey(role, name), id, pin.cond)
	if err != nil {
		return nil, err
	}
	changes := append([]store.Change{pass, write}, pin.also...)
	shared, ok, err := s.cfg.Keyring.share(snap, id)
	if err != nil {
		return nil, err
	} else if ok {
		changes = append(changes, shared)
	}
	if _, err := s.cfg.Store.Commit(ctx, store.Command{Changes: changes}); err != nil {
		return nil, err
	}
	return &wherryv1.JoinResponse{
		Certificate: cert, Ca: ca, Controls: s.Controls(), MemberId: id.Member,
		ClusterId: cluster.ClusterID, ClusterDomain: cluster.Domain,
		PodCidr: cluster.PodCIDR.String(), ServiceCidr: cluster.ServiceCIDR.String(),
	}, nil
}

// pinning is what must hold for a key to be pinned, and what goes with it.
type pinning struct {
	cond store.Cond
	also []store.Change
}

// pin decides whether a key may have a name.
func (s *Server) pin(ctx context.Context, snap *store.Snapshot, role pki.Role, name string, csr pki.CSR) (pinning, identity, error) {
	now, revision, err := read[identity](snap, identityKey(role, name))
	if err != nil {
		return pinning{}, now, err
	}
	var p pinning
	if _, gone := snap.Get(removedKey(csr.Key)); gone {
		p.also = append(p.also, store.Change{Op: store.Delete, Key: removedKey(csr.Key)})
	}
	fresh := identity{Role: role, Name: name, Key: csr.Key}
	switch {
	case revision == 0:
		p.cond = store.Cond{Absent: true}
	case now.Key == csr.Key:
		p.cond, fresh.Member, fresh.Replaces = store.Cond{Revision: revision}, now.Member, now.Replaces
	case role == pki.Member:
		if at, answers := s.answers(ctx, now.Member); answers {
			return p, now, apierr.New(apierr.ErrConflict, "the name %q is taken by member %s, which answers at %s: choose another --name, or stop that controld first if this machine is to replace it", name, now.Member, at)
		}
		mark, err := put(removedKey(now.Key), removed{name}, store.Cond{})
		if err != nil {
			return p, now, err
		}
		p.cond, p.also = store.Cond{Revision: revision}, append(p.also, mark)
		fresh.Replaces = append(slices.Clone(now.Replaces), now.Member)
	default:
		node := api.Key{Resource: "nodes", Name: name}
		if _, there := snap.Get(node); there {
			return p, now, apierr.New(apierr.ErrConflict, "the name %q is taken by another node with another key: choose another --name, or run `kubectl delete node %s` first if that machine is gone", name, name)
		}
		p.cond = store.Cond{Revision: revision}
		p.also = append(p.also, store.Change{Op: store.Check, If: store.Cond{Absent: true}, Key: node})
	}
	if role == pki.Member {
		fresh.Public = csr.PublicDER
	}
	if role == pki.Member && fresh.Member == "" {
		if fresh.Member, err = NewMemberID(name); err != nil {
			return p, fresh, err
		}
	}
	return p, fresh, nil
}

// NewMemberID makes the id of a new member: its name of now, and something
// that no other has.
func NewMemberID(name string) (string, error) {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make member id: %w", err)
	}
	return name + "-" + hex.EncodeToString(b[:]), nil
}

// sign makes the certificate of an identity, and notes in it what the
// certificate serves under. A member is told what it asks for; a node gets no
// name or address under which a client could take it for a member.
func (s *Server) sign(snap *store.Snapshot, c Settings, id *identity, csr pki.CSR) (cert, ca []byte, err error) {
	a, err := s.authority(snap)
	if err != nil {
		return nil, nil, err
	}
	var req pki.Request
	if id.Role == pki.Member {
		names := append(slices.Clone(csr.Names), id.Name)
		id.Names, id.Addresses = pki.ServerNames(names, csr.Addresses, c.FirstService(), c.Domain)
		req = pki.MemberRequest(id.Name, id.Names, id.Addresses)
	} else {
		names, addresses, err := nodeNames(snap, id.Name, csr.Addresses)
		if err != nil {
			return nil, nil, err
		}
		req = pki.NodeRequest(id.Name, names, addresses)
	}
	cert, err = a.Sign(csr.Public, req, s.cfg.Now())
	if err != nil {
		return nil, nil, apierr.Internal(err)
	}
	return cert, a.Certificate().Raw, nil
}

// nodeNames gives what a node's certificate may serve under. The first name is
// always there, so that the certificate is a server's.
func nodeNames(snap *store.Snapshot, name string, asked []netip.Addr) ([]string, []netip.Addr, error) {
	taken := map[string]bool{"localhost": true}
	held := map[netip.Addr]bool{}
	for r := range snap.Scan(identities, "", api.Key{}) {
		if !strings.HasPrefix(r.Name, string(pki.Member)+":") {
			continue
		}
		m, err := decode[identity](r)
		if err != nil {
			return nil, nil, err
		}
		for _, n := range m.Names {
			taken[strings.ToLower(n)] = true
		}
		for _, a := range m.Addresses {
			held[a] = true
		}
	}
	names := []string{name + ".node.internal.wherry"}
	if !taken[name] {
		names = append(names, name)
	}
	var addresses []netip.Addr
	for _, a := range asked {
		if !held[a] && !a.IsLoopback() && !a.IsUnspecified() {
			addresses = append(addresses, a)
		}
	}
	return names, addresses, nil
}

// Renew implements wherryv1.ClusterServer.
func (s *Server) Renew(ctx context.Context, r *wherryv1.RenewRequest) (*wherryv1.RenewResponse, error) {
	p, err := s.cfg.Peer(ctx)
	if err != nil {
		return nil, apierr.New(apierr.ErrUnauthorized, "%w", err)
	}
	cert, ca, err := s.RenewFor(ctx, p, r.GetCsr())
	if err != nil {
		return nil, err
	}
	return &wherryv1.RenewResponse{Certificate: cert, Ca: ca}, nil
}

// RenewFor makes a new certificate (DER) for the pinned key of a member or
// node, and gives the CA's.
func (s *Server) RenewFor(ctx context.Context, p pki.Peer, request []byte) (cert, ca []byte, err error) {
	if p.Role != pki.Member && p.Role != pki.Node {
		return nil, nil, apierr.Forbidden("", "", errors.New("certificates of members and nodes are renewed here; a user's is made anew"))
	}
	csr, err := pki.ParseCSR(request)
	if err != nil {
		return nil, nil, apierr.BadRequest("%w", err)
	}
	if csr.Key != p.Key {
		return nil, nil, apierr.Forbidden("", "", errors.New("a certificate is renewed for the same key only"))
	}
	for range joinTries {
		cert, ca, err = s.renew(ctx, p, csr)
		var lost *store.CompareError
		if !errors.As(err, &lost) {
			return cert, ca, err
		}
	}
	return nil, nil, apierr.ServerTimeout("members", "renew", 0)
}

func (s *Server) renew(ctx context.Context, p pki.Peer, csr pki.CSR) (cert, ca []byte, err error) {
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return nil, nil, err
	}
	id, revision, err := read[identity](snap, identityKey(p.Role, p.Name))
	if err != nil {
		return nil, nil, err
	}
	if revision == 0 || id.Key != p.Key {
		return nil, nil, apierr.New(apierr.ErrUnauthorized, "%w", pki.ErrPinned)
	}
	c, err := ReadSettings(snap)
	if err != nil {
		return nil, nil, err
	}
	before := id
	if cert, ca, err = s.sign(snap, c, &id, csr); err != nil {
		return nil, nil, err
	}
	if p.Role == pki.Member {
		id.Public = csr.PublicDER // members from before sealing have none
	}
	shared, share, err := s.cfg.Keyring.share(snap, id)
	if err != nil {
		return nil, nil, err
	}
	if !share && bytes.Equal(before.Public, id.Public) && slices.Equal(before.Names, id.Names) && slices.Equal(before.Addresses, id.Addresses) {
		return cert, ca, nil
	}
	write, err := put(identityKey(p.Role, p.Name), id, store.Cond{Revision: revision})
	if err != nil {
		return nil, nil, err
	}
	changes := []store.Change{write}
	if share {
		changes = append(changes, shared)
	}
	_, err = s.cfg.Store.Commit(ctx, store.Command{Changes: changes})
	return cert, ca, err
}
