package cluster

import (
	"crypto/ecdh"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/store"
)

// The records of the cluster itself. They are in the Raft state beside the
// objects, and no API serves them.
const (
	authorities = "authority.internal.wherry"
	settings    = "settings.internal.wherry"
	identities  = "identities.internal.wherry"
	theCluster  = "cluster"

	recordFormat = 1
)

// Settings are fixed for a cluster's life.
type Settings struct {
	ClusterID   string       `json:"clusterID"`
	Domain      string       `json:"domain"`
	PodCIDR     netip.Prefix `json:"podCIDR"`
	ServiceCIDR netip.Prefix `json:"serviceCIDR"`
}

// DNS is the tenth address of the services' range.
func (s Settings) DNS() netip.Addr {
	a := s.ServiceCIDR.Masked().Addr()
	for range 10 {
		a = a.Next()
	}
	return a
}

// FirstService is the address of default/kubernetes.
func (s Settings) FirstService() netip.Addr { return s.ServiceCIDR.Masked().Addr().Next() }

// authority is the CA as it is stored.
type authority struct {
	Certificate []byte `json:"certificate"` // DER
	Key         []byte `json:"key"`         // PKCS #8 DER
}

// identity is what the cluster knows of a member or node: its pinned key, and
// for a member its id in Raft and what its certificate may serve under.
type identity struct {
	Role pki.Role `json:"role"`
	Name string   `json:"name"`
	Key  string   `json:"key"`
	// Public is a member's whole key (PKIX DER), to wrap data keys to.
	Public []byte `json:"public,omitempty"`
	Member string `json:"member,omitempty"`
	// Replaces are the ids that a member had with data that is lost. They are
	// taken out of the Raft before it enters.
	Replaces  []string     `json:"replaces,omitempty"`
	Names     []string     `json:"names,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// removed marks a key that was taken out of the cluster. Without it, a replica
// could not tell a removed member from one that it has yet to hear of.
type removed struct {
	Name string `json:"name"`
}

// stored is how each of them is written.
type stored[T any] struct {
	Format int `json:"format"`
	Value  T   `json:"value"`
}

func authorityKey() api.Key { return api.Key{Resource: authorities, Name: theCluster} }
func settingsKey() api.Key  { return api.Key{Resource: settings, Name: theCluster} }

func identityKey(role pki.Role, name string) api.Key {
	return api.Key{Resource: identities, Name: string(role) + ":" + name}
}

func removedKey(hash string) api.Key { return api.Key{Resource: identities, Name: "removed:" + hash} }

// put makes the change that writes a record.
func put[T any](key api.Key, v T, cond store.Cond) (store.Change, error) {
	b, err := json.Marshal(stored[T]{recordFormat, v})
	if err != nil {
		return store.Change{}, fmt.Errorf("encode %s: %w", key, err)
	}
	return store.Change{Op: store.Put, If: cond, Key: key, Record: &api.Record{Key: key, Bytes: b}}, nil
}

// read gives a record and its revision; revision 0 says that there is none.
func read[T any](s *store.Snapshot, key api.Key) (v T, revision uint64, err error) {
	r, ok := s.Get(key)
	if !ok {
		return v, 0, nil
	}
	v, err = decode[T](r)
	return v, r.Revision, err
}

func decode[T any](r *api.Record) (T, error) {
	var s stored[T]
	if err := r.Readable(); err != nil {
		return s.Value, err
	}
	if err := json.Unmarshal(r.Bytes, &s); err != nil {
		return s.Value, apierr.Internal(fmt.Errorf("record %s cannot be read: %w", r.Key, err))
	}
	if s.Format != recordFormat {
		return s.Value, apierr.Internal(fmt.Errorf("record %s is of format %d, this version knows %d: upgrade this controld", r.Key, s.Format, recordFormat))
	}
	return s.Value, nil
}

// Founder is the first member of a new cluster.
type Founder struct {
	Name, Member string
	// Key is the [pki.Hash] of its certificate.
	Key string
	// Public is that key (PKIX DER), and Keyring this member's, which gets the
	// cluster's first data key.
	Public    []byte
	Keyring   *Keyring
	Names     []string
	Addresses []netip.Addr
}

func (f Founder) identity() identity {
	return identity{
		Role: pki.Member, Name: f.Name, Key: f.Key, Public: f.Public, Member: f.Member,
		Names: f.Names, Addresses: f.Addresses,
	}
}

// Found gives the records of a new cluster, to be written by one command with
// its first objects.
func Found(a *pki.Authority, s Settings, first Founder) ([]store.Change, error) {
	key, err := a.Key()
	if err != nil {
		return nil, err
	}
	fresh := store.Cond{Absent: true}
	ca, err := put(authorityKey(), authority{a.Certificate().Raw, key}, fresh)
	if err != nil {
		return nil, err
	}
	set, err := put(settingsKey(), s, fresh)
	if err != nil {
		return nil, err
	}
	pin, err := put(identityKey(pki.Member, first.Name), first.identity(), fresh)
	if err != nil {
		return nil, err
	}
	changes := []store.Change{ca, set, pin}
	if first.Keyring == nil {
		return changes, nil
	}
	pub, err := first.identity().publicKey()
	if err != nil {
		return nil, err
	}
	data, err := first.Keyring.found(fresh, map[string]*ecdh.PublicKey{first.Key: pub})
	return append(changes, data), err
}

// ReadSettings gives the cluster's settings out of its state.
func ReadSettings(s *store.Snapshot) (Settings, error) {
	v, revision, err := read[Settings](s, settingsKey())
	if err == nil && revision == 0 {
		err = apierr.Unavailable("the cluster's state has not arrived here yet")
	}
	return v, err
}
