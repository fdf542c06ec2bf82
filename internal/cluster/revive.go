package cluster

import (
	"crypto/ecdh"
	"errors"
	"slices"
	"time"

	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/seal"
	"github.com/wherry-project/wherry/internal/store"
)

// A cluster that is brought back, from a backup or from one survivor, may have
// forgotten revisions that nodes and clients have seen. So its revisions go on
// far above: at 2^20 for every second since 1970, which is more than it can
// have used meanwhile, and than any earlier bringing back gave it. A revision
// is thus of one life of the cluster only, nodes take the new life's state for
// the newer one, and watches of the old life are told that they are too old.
const revisionsASecond = 1 << 20

// RevivedRevision is where the revisions of a revived cluster begin. It refuses
// a clock that is behind the state.
func RevivedRevision(revision uint64, now, made time.Time) (uint64, error) {
	if now.Before(made.Add(-time.Minute)) {
		return 0, errors.New("this machine's clock says " + now.UTC().Format(time.RFC3339) + ", but the state is from " +
			made.UTC().Format(time.RFC3339) + "; set the clock first: nodes and clients would take what comes for old news")
	}
	return max(revision+revisionsASecond, uint64(now.Unix())*revisionsASecond), nil
}

// Alone gives the command that makes one member the only one of a cluster that
// is brought back: the others' keys are taken out and marked as removed, so
// that they have to join again, and a new data key takes over. It gives the
// names of those others.
func Alone(snap *store.Snapshot, k *Keyring, survivor Founder) (c store.Command, others []string, err error) {
	members, err := memberNames(snap)
	if err != nil {
		return c, nil, err
	}
	for _, m := range members {
		if m.Key == survivor.Key {
			continue
		}
		others = append(others, m.Name)
		if m.Name != survivor.Name { // else its record is written below
			c.Changes = append(c.Changes, store.Change{Op: store.Delete, Key: identityKey(pki.Member, m.Name)})
		}
		mark, err := put(removedKey(m.Key), removed{m.Name}, store.Cond{})
		if err != nil {
			return c, nil, err
		}
		c.Changes = append(c.Changes, mark)
	}
	slices.Sort(others)
	pin, err := put(identityKey(pki.Member, survivor.Name), survivor.identity(), store.Cond{})
	if err != nil {
		return c, nil, err
	}
	c.Changes = append(c.Changes, pin)
	keys, wraps, _, err := k.keysAt(snap)
	if err != nil || len(keys) == 0 {
		return c, others, err
	}
	pub, err := survivor.identity().publicKey()
	if err != nil {
		return c, nil, err
	}
	if pub != nil {
		// Those others know the keys of before: what is written from now on is
		// sealed with one that they never had, and the rest soon.
		fresh, err := seal.NewKey(keys[len(keys)-1].ID() + 1)
		if err != nil {
			return c, nil, err
		}
		keys = append(keys, fresh)
	}
	data, err := putKeys(keys, map[string]*ecdh.PublicKey{survivor.Key: pub}, wraps, store.Cond{})
	c.Changes = append(c.Changes, data)
	return c, others, err
}

// Known is what a state knows of a member, to bring the cluster back with it.
func Known(snap *store.Snapshot, key string) (Founder, bool, error) {
	members, err := memberNames(snap)
	if err != nil {
		return Founder{}, false, err
	}
	for _, m := range members {
		if m.Key == key {
			return Founder{Name: m.Name, Member: m.Member, Key: m.Key, Public: m.Public, Names: m.Names, Addresses: m.Addresses}, true, nil
		}
	}
	return Founder{}, false, nil
}

// Authority opens the CA of a state.
func Authority(snap *store.Snapshot) (*pki.Authority, error) {
	v, revision, err := read[authority](snap, authorityKey())
	if err != nil {
		return nil, err
	}
	if revision == 0 {
		return nil, errors.New("the state has no CA: it is not of a whole cluster")
	}
	return pki.OpenAuthority(v.Certificate, v.Key)
}
