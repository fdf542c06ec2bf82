package cluster

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/seal"
	"github.com/wherry-project/wherry/internal/store"
)

// The data keys lie in the state in one record, each wrapped to every member.
// The last one seals, the others still open. Whoever changes who may read
// (join, removal, rotation) changes this record, at its revision, by the same
// command: so two such changes never miss each other.

// dataKeys is the record of the keys.
type dataKeys struct {
	Keys []dataKey `json:"keys"`
}

type dataKey struct {
	ID uint32 `json:"id"`
	// Wraps are by the hash of the member's key, as it is pinned.
	Wraps map[string][]byte `json:"wraps"`
}

func dataKeysKey() api.Key { return api.Key{Resource: "datakeys.internal.wherry", Name: theCluster} }

// Keyring seals and opens records with the cluster's data keys, which it gets
// out of the state with this member's own key. It implements [store.Sealer].
type Keyring struct {
	own    *ecdh.PrivateKey
	hash   string
	reader atomic.Pointer[store.Reader]

	mu   sync.Mutex
	keys map[uint32]seal.Key
	last uint32 // the key that seals; 0 if the cluster has none
	from uint64 // the revision of the record that this is out of
}

// NewKeyring makes the keyring of a member: its private key, and the hash under
// which its public key is pinned.
func NewKeyring(own *ecdh.PrivateKey, hash string) *Keyring {
	return &Keyring{own: own, hash: hash, keys: map[uint32]seal.Key{}}
}

// OpenKeyring is a keyring of keys that are at hand, the last of which seals.
func OpenKeyring(keys []seal.Key) *Keyring {
	k := &Keyring{keys: map[uint32]seal.Key{}}
	for _, one := range keys {
		k.keys[one.ID()], k.last = one, one.ID()
	}
	return k
}

// Use gives the state to read. Until then, nothing can be opened.
func (k *Keyring) Use(r store.Reader) { k.reader.Store(&r) }

// Seal implements [store.Sealer].
func (k *Keyring) Seal(r *api.Record) ([]byte, error) {
	if !seal.Covers(r.Resource) {
		return r.Bytes, nil
	}
	k.refresh()
	k.mu.Lock()
	last := k.last
	key, ok := k.keys[last]
	k.mu.Unlock()
	switch {
	case last == 0 && k.fromBefore(): // its leader is about to make a key
		return r.Bytes, nil
	case last == 0:
		return nil, apierr.Unavailable("%s cannot be sealed: this controld has not been given the cluster's state yet; try again, or ask another", r.Key)
	case !ok:
		return nil, apierr.Unavailable("%s cannot be sealed: this controld has not been given the cluster's key yet; try again, or ask another", r.Key)
	}
	return key.Seal(sealName(r.Key), r.Bytes)
}

// fromBefore reports whether the state at hand is that of a cluster from before
// sealing, and not just one that has yet to arrive.
func (k *Keyring) fromBefore() bool {
	r := k.reader.Load()
	if r == nil {
		return false
	}
	snap, err := (*r).Snapshot(context.Background(), store.At{Level: store.Any})
	if err != nil {
		return false // the replica is closing
	}
	_, founded := snap.Raw().Get(authorityKey())
	_, sealed := snap.Raw().Get(dataKeysKey())
	return founded && !sealed
}

// Open implements [store.Sealer].
func (k *Keyring) Open(r *api.Record) ([]byte, error) {
	id, err := seal.KeyOf(r.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Key, err)
	}
	key, ok := k.key(id)
	if !ok {
		k.refresh()
		key, ok = k.key(id)
	}
	if !ok {
		return nil, fmt.Errorf("%s: %w", r.Key, seal.ErrNoKey)
	}
	b, err := key.Open(sealName(r.Key), r.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Key, err)
	}
	return b, nil
}

// sealName binds sealed bytes to their record; no part of a key has a slash.
func sealName(k api.Key) string { return k.Resource + "/" + k.Namespace + "/" + k.Name }

func (k *Keyring) key(id uint32) (seal.Key, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, ok := k.keys[id]
	return key, ok
}

// Keys gives the keys at hand, the one that seals last.
func (k *Keyring) Keys() []seal.Key {
	k.refresh()
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []seal.Key
	for _, id := range slices.Sorted(maps.Keys(k.keys)) {
		if id != k.last {
			out = append(out, k.keys[id])
		}
	}
	if key, ok := k.keys[k.last]; ok {
		out = append(out, key)
	}
	return out
}

// Lacks reports whether the cluster seals with a key that this member has not
// been given.
func (k *Keyring) Lacks() bool {
	k.refresh()
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.keys[k.last]
	return k.last != 0 && !ok
}

// refresh looks whether the state has other keys than are at hand.
func (k *Keyring) refresh() {
	r := k.reader.Load()
	if r == nil || k.own == nil {
		return
	}
	snap, err := (*r).Snapshot(context.Background(), store.At{Level: store.Any})
	if err != nil {
		return // the replica is closing
	}
	k.learn(snap)
}

// learn takes the keys out of a state, unless it knows them.
func (k *Keyring) learn(snap *store.Snapshot) {
	r, ok := snap.Get(dataKeysKey())
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.Revision <= k.from {
		return
	}
	all, err := decode[dataKeys](r)
	if err != nil || len(all.Keys) == 0 {
		return // it stays sealed, and its readers say so
	}
	k.from = r.Revision
	known := k.keys
	k.keys = map[uint32]seal.Key{}
	for _, d := range all.Keys {
		k.last = d.ID
		if key, ok := known[d.ID]; ok {
			k.keys[d.ID] = key
		} else if key, err := seal.Unwrap(d.Wraps[k.hash], k.own); err == nil && key.ID() == d.ID {
			k.keys[d.ID] = key
		}
	}
}

// found makes the first data key and the change that keeps it for holders. The
// command of this change may have records in it that are to be sealed.
func (k *Keyring) found(cond store.Cond, holders map[string]*ecdh.PublicKey) (store.Change, error) {
	key, err := seal.NewKey(1)
	if err != nil {
		return store.Change{}, err
	}
	change, err := putKeys([]seal.Key{key}, holders, nil, cond)
	if err == nil {
		k.mu.Lock()
		k.keys[1], k.last = key, 1
		k.mu.Unlock()
	}
	return change, err
}

// putKeys writes keys, wrapped to the holders; what is wrapped already stays.
func putKeys(keys []seal.Key, holders map[string]*ecdh.PublicKey, before map[uint32]map[string][]byte, cond store.Cond) (store.Change, error) {
	var all dataKeys
	for _, key := range keys {
		d := dataKey{ID: key.ID(), Wraps: map[string][]byte{}}
		for hash, pub := range holders {
			if w := before[key.ID()][hash]; w != nil {
				d.Wraps[hash] = w
				continue
			}
			if pub == nil {
				continue // it asks when it finds that it has none
			}
			w, err := seal.Wrap(key, pub)
			if err != nil {
				return store.Change{}, err
			}
			d.Wraps[hash] = w
		}
		all.Keys = append(all.Keys, d)
	}
	return put(dataKeysKey(), all, cond)
}

// errNoKeyHere is for a member that is to hand on a key it does not have.
var errNoKeyHere = errors.New("this controld has not been given the cluster's data key yet")

// keysAt gives the keys that a state has, all of them, and how they are wrapped.
func (k *Keyring) keysAt(snap *store.Snapshot) (keys []seal.Key, wraps map[uint32]map[string][]byte, revision uint64, err error) {
	all, revision, err := read[dataKeys](snap, dataKeysKey())
	if err != nil || revision == 0 {
		return nil, nil, 0, err
	}
	k.learn(snap)
	wraps = map[uint32]map[string][]byte{}
	for _, d := range all.Keys {
		key, ok := k.key(d.ID)
		if !ok {
			return nil, nil, 0, apierr.Unavailable("%w; try again, or ask another", errNoKeyHere)
		}
		keys, wraps[d.ID] = append(keys, key), d.Wraps
	}
	return keys, wraps, revision, nil
}

// holders are the members of a state who may have the keys, by the hashes of
// their keys; the public key is nil where the state does not have it.
func holders(snap *store.Snapshot) (map[string]*ecdh.PublicKey, error) {
	members, err := memberNames(snap)
	if err != nil {
		return nil, err
	}
	out := map[string]*ecdh.PublicKey{}
	for _, id := range members {
		if out[id.Key], err = id.publicKey(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (i identity) publicKey() (*ecdh.PublicKey, error) {
	if len(i.Public) == 0 {
		return nil, nil
	}
	pub, err := seal.PublicKey(i.Public)
	if err != nil {
		return nil, fmt.Errorf("member %s: %w", i.Member, err)
	}
	return pub, nil
}

// share gives the change by which a member gets the keys too; ok is false if
// there is nothing to change.
func (k *Keyring) share(snap *store.Snapshot, id identity) (c store.Change, ok bool, err error) {
	if k == nil || len(id.Public) == 0 {
		return c, false, nil
	}
	keys, wraps, revision, err := k.keysAt(snap)
	if err != nil || revision == 0 {
		return c, false, err
	}
	missing := false
	for _, w := range wraps {
		missing = missing || w[id.Key] == nil
	}
	if !missing {
		return c, false, nil
	}
	all, err := holders(snap)
	if err != nil {
		return c, false, err
	}
	if all[id.Key], err = id.publicKey(); err != nil {
		return c, false, err
	}
	// Whom it replaces loses them, and never gets the key that is used from
	// now on.
	before, _, err := read[identity](snap, identityKey(id.Role, id.Name))
	if err != nil {
		return c, false, err
	}
	if before.Key != "" && before.Key != id.Key {
		delete(all, before.Key)
		fresh, err := seal.NewKey(keys[len(keys)-1].ID() + 1)
		if err != nil {
			return c, false, err
		}
		keys = append(keys, fresh)
	}
	c, err = putKeys(keys, all, wraps, store.Cond{Revision: revision})
	return c, err == nil, err
}

// rotate gives the change by which a new key takes over, known to all holders
// but those of the hash given. Older keys stay for as long as anything is
// sealed by them.
func (k *Keyring) rotate(snap *store.Snapshot, without string) (c store.Change, ok bool, err error) {
	if k == nil {
		return c, false, nil
	}
	keys, wraps, revision, err := k.keysAt(snap)
	if err != nil || revision == 0 {
		return c, false, err
	}
	all, err := holders(snap)
	if err != nil {
		return c, false, err
	}
	delete(all, without)
	fresh, err := seal.NewKey(keys[len(keys)-1].ID() + 1)
	if err != nil {
		return c, false, err
	}
	c, err = putKeys(append(keys, fresh), all, wraps, store.Cond{Revision: revision})
	return c, err == nil, err
}
