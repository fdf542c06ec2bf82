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
	key  cacheKey
	obj  Object
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
		if obj := c.cached(ck); obj != nil {
			return obj, nil
		}
	}
	k, ok := c.kinds.ByKey(r.Resource)
	if !ok {
		return nil, fmt.Errorf("decode %s: kind is not served", r.Key)
	}
	obj := k.New()
	if err := obj.Unmarshal(r.Bytes); err != nil {
		return nil, fmt.Errorf("decode %s: %w", r.Key, err)
	}
	obj.GetObjectKind().SetGroupVersionKind(k.GVK())
	if r.Revision != 0 {
		obj.SetResourceVersion(r.ResourceVersion())
		c.keep(ck, obj, 5*len(r.Bytes)+256)
	}
	return obj, nil
}

func (c *Codec) cached(ck cacheKey) Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[ck]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cacheEntry).obj
}

func (c *Codec) keep(ck cacheKey, obj Object, cost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cost > c.limit || c.byKey[ck] != nil {
		return
	}
	c.byKey[ck] = c.order.PushFront(&cacheEntry{ck, obj, cost})
	for c.used += cost; c.used > c.limit; {
		last := c.order.Back()
		e := last.Value.(*cacheEntry)
		c.order.Remove(last)
		delete(c.byKey, e.key)
		c.used -= e.cost
	}
}
