package store

import (
	"slices"
	"sort"
)

// tree is an ordered set that is copied on write: a B-tree whose nodes belong
// to the tree that made them. A frozen copy shares all nodes; the live tree
// copies a shared node before it changes it, once.
type tree[T any] struct {
	compare func(a, b T) int
	root    *node[T]
	owner   *owner
}

// owner marks the nodes that a live tree may change in place. It has a size so
// that two owners never share an address.
type owner struct{ _ byte }

const (
	maxItems = 32
	minItems = maxItems / 2
)

type node[T any] struct {
	owner *owner
	size  int // items in here and below
	items []T
	kids  []*node[T] // none, or one more than items
}

func newTree[T any](compare func(a, b T) int) tree[T] {
	return tree[T]{compare: compare, owner: new(owner)}
}

// freeze gives a copy that never changes. The caller holds the writer's lock.
func (t *tree[T]) freeze() tree[T] {
	t.owner = new(owner)
	return tree[T]{compare: t.compare, root: t.root}
}

// thaw gives a live copy of a frozen tree.
func (t tree[T]) thaw() tree[T] {
	t.owner = new(owner)
	return t
}

func (t *tree[T]) len() int {
	if t.root == nil {
		return 0
	}
	return t.root.size
}

// get finds the item that is equal to probe.
func (t *tree[T]) get(probe T) (T, bool) {
	for n := t.root; n != nil; {
		i, found := slices.BinarySearchFunc(n.items, probe, t.compare)
		if found {
			return n.items[i], true
		}
		if n.kids == nil {
			break
		}
		n = n.kids[i]
	}
	var none T
	return none, false
}

// put adds an item, or replaces the one that is equal to it.
func (t *tree[T]) put(item T) {
	if t.root == nil {
		t.root = &node[T]{owner: t.owner, size: 1, items: append(make([]T, 0, maxItems), item)}
		return
	}
	t.root = t.own(t.root)
	if len(t.root.items) == maxItems {
		mid, right := t.split(t.root)
		t.root = &node[T]{
			owner: t.owner,
			items: append(make([]T, 0, maxItems), mid),
			kids:  append(make([]*node[T], 0, maxItems+1), t.root, right),
		}
		t.root.recount()
	}
	t.putIn(t.root, item)
}

// delete removes the item that is equal to probe.
func (t *tree[T]) delete(probe T) {
	if _, ok := t.get(probe); !ok {
		return
	}
	t.root = t.own(t.root)
	t.remove(t.root, &probe)
	if len(t.root.items) == 0 {
		if t.root.kids == nil {
			t.root = nil
		} else {
			t.root = t.root.kids[0]
		}
	}
}

// from yields the items from the first one for which at holds; at must hold for
// all that follow. A nil at is the beginning.
func (t *tree[T]) from(at func(T) bool, yield func(T) bool) {
	if t.root != nil {
		t.root.ascend(at, yield)
	}
}

// rank is how many items stand before the first one for which at holds.
func (t *tree[T]) rank(at func(T) bool) int {
	rank := 0
	for n := t.root; n != nil; {
		i := n.seek(at)
		rank += i
		if n.kids == nil {
			break
		}
		for _, kid := range n.kids[:i] {
			rank += kid.size
		}
		n = n.kids[i]
	}
	return rank
}

func (n *node[T]) seek(at func(T) bool) int {
	if at == nil {
		return 0
	}
	return sort.Search(len(n.items), func(i int) bool { return at(n.items[i]) })
}

func (n *node[T]) ascend(at func(T) bool, yield func(T) bool) bool {
	i := n.seek(at)
	if n.kids != nil && !n.kids[i].ascend(at, yield) {
		return false
	}
	for ; i < len(n.items); i++ {
		if !yield(n.items[i]) {
			return false
		}
		if n.kids != nil && !n.kids[i+1].ascend(nil, yield) {
			return false
		}
	}
	return true
}

func (n *node[T]) recount() {
	n.size = len(n.items)
	for _, kid := range n.kids {
		n.size += kid.size
	}
}

// own gives a node that may be changed: n itself or a copy.
func (t *tree[T]) own(n *node[T]) *node[T] {
	if n.owner == t.owner {
		return n
	}
	c := &node[T]{owner: t.owner, size: n.size, items: append(make([]T, 0, maxItems), n.items...)}
	if n.kids != nil {
		c.kids = append(make([]*node[T], 0, maxItems+1), n.kids...)
	}
	return c
}

func (t *tree[T]) ownKid(n *node[T], i int) *node[T] {
	n.kids[i] = t.own(n.kids[i])
	return n.kids[i]
}

// split halves a full node that is owned.
func (t *tree[T]) split(n *node[T]) (mid T, right *node[T]) {
	at := len(n.items) / 2
	mid = n.items[at]
	right = &node[T]{owner: t.owner, items: append(make([]T, 0, maxItems), n.items[at+1:]...)}
	clear(n.items[at:])
	n.items = n.items[:at]
	if n.kids != nil {
		right.kids = append(make([]*node[T], 0, maxItems+1), n.kids[at+1:]...)
		clear(n.kids[at+1:])
		n.kids = n.kids[:at+1]
	}
	n.recount()
	right.recount()
	return mid, right
}

// putIn puts an item into an owned node that is not full; it reports whether
// the item is new.
func (t *tree[T]) putIn(n *node[T], item T) bool {
	i, found := slices.BinarySearchFunc(n.items, item, t.compare)
	if found {
		n.items[i] = item
		return false
	}
	if n.kids == nil {
		n.items = slices.Insert(n.items, i, item)
		n.size++
		return true
	}
	if len(n.kids[i].items) == maxItems {
		mid, right := t.split(t.ownKid(n, i))
		n.items = slices.Insert(n.items, i, mid)
		n.kids = slices.Insert(n.kids, i+1, right)
		switch c := t.compare(item, mid); {
		case c == 0:
			n.items[i] = item
			return false
		case c > 0:
			i++
		}
	}
	added := t.putIn(t.ownKid(n, i), item)
	if added {
		n.size++
	}
	return added
}

// remove takes an item that is there out of an owned node: the one that is
// equal to probe, or the last one if probe is nil.
func (t *tree[T]) remove(n *node[T], probe *T) T {
	i, found := len(n.items), false
	if probe != nil {
		i, found = slices.BinarySearchFunc(n.items, *probe, t.compare)
	}
	if n.kids == nil {
		if probe == nil {
			i--
		}
		out := n.items[i]
		n.items = slices.Delete(n.items, i, i+1)
		n.size--
		return out
	}
	if len(n.kids[i].items) <= minItems {
		t.grow(n, i)
		return t.remove(n, probe)
	}
	kid := t.ownKid(n, i)
	n.size--
	if found {
		out := n.items[i]
		n.items[i] = t.remove(kid, nil)
		return out
	}
	return t.remove(kid, probe)
}

// grow gives kid i one more item, from a neighbour or by joining one.
func (t *tree[T]) grow(n *node[T], i int) {
	switch {
	case i > 0 && len(n.kids[i-1].items) > minItems:
		kid, left := t.ownKid(n, i), t.ownKid(n, i-1)
		last := len(left.items) - 1
		kid.items = slices.Insert(kid.items, 0, n.items[i-1])
		n.items[i-1] = left.items[last]
		left.items = slices.Delete(left.items, last, last+1)
		if left.kids != nil {
			kid.kids = slices.Insert(kid.kids, 0, left.kids[last+1])
			left.kids = slices.Delete(left.kids, last+1, last+2)
		}
		left.recount()
		kid.recount()
	case i < len(n.items) && len(n.kids[i+1].items) > minItems:
		kid, right := t.ownKid(n, i), t.ownKid(n, i+1)
		kid.items = append(kid.items, n.items[i])
		n.items[i] = right.items[0]
		right.items = slices.Delete(right.items, 0, 1)
		if right.kids != nil {
			kid.kids = append(kid.kids, right.kids[0])
			right.kids = slices.Delete(right.kids, 0, 1)
		}
		right.recount()
		kid.recount()
	default:
		if i == len(n.items) {
			i--
		}
		kid, right := t.ownKid(n, i), n.kids[i+1]
		kid.items = append(append(kid.items, n.items[i]), right.items...)
		kid.kids = append(kid.kids, right.kids...)
		kid.recount()
		n.items = slices.Delete(n.items, i, i+1)
		n.kids = slices.Delete(n.kids, i+1, i+2)
	}
}
