package store

import "sync"

// words shares what many records have in common: resource names, namespaces,
// label sets, owners. Each table is emptied when it is full, which costs
// memory and nothing else.
type words struct {
	mu    sync.Mutex
	one   map[string]string
	maps  map[string]map[string]string
	lists map[string][]string
}

const maxWords = 4096

func newWords() *words {
	return &words{one: map[string]string{}, maps: map[string]map[string]string{}, lists: map[string][]string{}}
}

func (w *words) word(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wordLocked(b)
}

func (w *words) wordLocked(b []byte) string {
	if s, ok := w.one[string(b)]; ok {
		return s
	}
	if len(w.one) >= maxWords {
		clear(w.one)
	}
	s := string(b)
	w.one[s] = s
	return s
}

// stringMap reads a block of keys and values.
func (w *words) stringMap(block []byte, outer *decoder) map[string]string {
	if len(block) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if m, ok := w.maps[string(block)]; ok {
		return m
	}
	m := map[string]string{}
	d := decoder{rest: block}
	for len(d.rest) > 0 && !d.bad {
		k := w.wordLocked(d.bytes())
		m[k] = w.wordLocked(d.bytes())
	}
	outer.bad = outer.bad || d.bad
	if len(w.maps) >= maxWords {
		clear(w.maps)
	}
	w.maps[string(block)] = m
	return m
}

// list reads a block of strings.
func (w *words) list(block []byte, outer *decoder) []string {
	if len(block) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if l, ok := w.lists[string(block)]; ok {
		return l
	}
	var l []string
	d := decoder{rest: block}
	for len(d.rest) > 0 && !d.bad {
		l = append(l, w.wordLocked(d.bytes()))
	}
	outer.bad = outer.bad || d.bad
	if len(w.lists) >= maxWords {
		clear(w.lists)
	}
	w.lists[string(block)] = l
	return l
}
