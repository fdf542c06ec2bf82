package api

import (
	"container/list"
	"fmt"
	"sync"
)

// Codec decodes records and keeps decoded copies in one cache that is bounded
// in bytes. It may be used by many goroutines.
type Codec struct {
	kinds *Kinds

	mu    sync.Mutex
	limit int
	used  int
	byKey map[cacheKey]*list.Element
	order *list.List // front is newest
}

type cacheKey struct {
	key      Key
	revision uint64
}

type cacheEntry struct {
	key cacheKey
	// record is what obj was decoded from. One key and revision may stand for
	// two contents: a watcher whose selection an object leaves is given the
	// former state under the new revision.
	record *Record
	obj    Object
	// cost is about what obj takes with its place here; the record is the
	// store's.
	cost int
}

// NewCodec makes a codec whose cache holds about limit bytes of decoded
// objects; 0 keeps none.
func NewCodec(kinds *Kinds, limit int) *Codec {
	return &Codec{kinds: kinds, limit: limit, byKey: map[cacheKey]*list.Element{}, order: list.New()}
}

// Kinds is the table that the codec decodes by.
func (c *Codec) Kinds() *Kinds { return c.kinds }

// Decode gives the record's object with resourceVersion, apiVersion and kind
// set. The object is shared: it must not be modified.
func (c *Codec) Decode(r *Record) (Object, error) {
	ck := cacheKey{r.Key, r.Revision}
	if r.Revision != 0 {
		if obj := c.cached(ck, r); obj != nil {
			return obj, nil
		}
	}
	k, ok := c.kinds.ByKey(r.Resource)
	if !ok {
		return nil, fmt.Errorf("decode %s: kind is not served", r.Key)
	}
	if err := r.Readable(); err != nil {
		return nil, err
	}
	obj := k.New()
	if err := obj.Unmarshal(r.Full()); err != nil {
		return nil, fmt.Errorf("decode %s: %w", r.Key, err)
	}
	obj.GetObjectKind().SetGroupVersionKind(k.GVK())
	if k.OnDecode != nil {
		k.OnDecode(obj)
	}
	if r.Revision != 0 {
		obj.SetResourceVersion(r.ResourceVersion())
		// A Quantity writes its text into itself when it is first asked for it,
		// which Size does: it must not happen when the object is shared.
		_ = obj.Size()
		c.keep(&cacheEntry{ck, r, obj, k.size + 512 + 5*r.Len()})
	}
	return obj, nil
}

func (c *Codec) cached(ck cacheKey, r *Record) Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[ck]
	if e == nil {
		return nil
	}
	entry := e.Value.(*cacheEntry)
	if !entry.record.same(r) { // at once where they are the same bytes
		return nil
	}
	c.order.MoveToFront(e)
	return entry.obj
}

func (c *Codec) keep(e *cacheEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.cost > c.limit || c.byKey[e.key] != nil {
		return
	}
	c.byKey[e.key] = c.order.PushFront(e)
	for c.used += e.cost; c.used > c.limit; {
		last := c.order.Back()
		oldest := last.Value.(*cacheEntry)
		c.order.Remove(last)
		delete(c.byKey, oldest.key)
		c.used -= oldest.cost
	}
}
