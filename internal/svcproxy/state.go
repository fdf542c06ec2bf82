package svcproxy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/wherry-project/wherry/internal/nft"
)

// state is what the table holds, in so far as services need it: how often
// shared chains, maps and hairpin elements are used, and whose a front is.
type state struct {
	cfg    Config
	owners map[front]string
	chains map[choice]int
	maps   map[choice]int // by n and node alone
	local  map[netip.Addr]int
	// problems are by service; those services are looked at in every Apply,
	// since what is in their way may go.
	problems map[string][]string
}

func newState(cfg Config) *state {
	return &state{
		cfg: cfg, owners: make(map[front]string), chains: make(map[choice]int), maps: make(map[choice]int),
		local: make(map[netip.Addr]int), problems: make(map[string][]string),
	}
}

// step is one Apply: it moves a state from one Config to the next and gathers
// the changes.
type step struct {
	*state
	next     *Config
	add, del map[string][]nft.Element
	// before are the counts of what was touched, to tell what is new or gone.
	chainsBefore map[choice]int
	mapsBefore   map[choice]int
	localBefore  map[netip.Addr]int
	stale        stale
}

// advance moves s to cfg, whose services are sorted by name, and returns the
// changes. After an error of whoever commits them, s is not to be used again.
func (s *state) advance(cfg Config) (nft.Changes, stale) {
	st := &step{
		state: s, next: &cfg, add: make(map[string][]nft.Element), del: make(map[string][]nft.Element),
		chainsBefore: make(map[choice]int), mapsBefore: make(map[choice]int), localBefore: make(map[netip.Addr]int),
		stale: newStale(),
	}
	if !same(s.cfg.Services, cfg.Services) || len(s.problems) > 0 {
		st.services()
	}
	if !equal(s.cfg.HostPorts, cfg.HostPorts) {
		st.hostPorts()
	}
	s.cfg = cfg
	return st.changes(), st.stale
}

// pair is a service before and after; either may be missing.
type pair struct {
	was, is *Service
	old     []target
}

// services finds the services that changed, lets go of all fronts they had,
// then claims those they have now.
func (s *step) services() {
	pairs := s.changed()
	if len(s.cfg.Services) == 0 { // everything is new: no growing step by step
		s.add[setServices] = make([]nft.Element, 0, len(pairs))
		s.owners = make(map[front]string, len(pairs))
	}
	for i := range pairs {
		p := &pairs[i]
		if p.was == nil {
			continue
		}
		for _, t := range targets(&s.cfg, p.was, func(string) {}) {
			if s.owners[t.front] == p.was.Name {
				p.old = append(p.old, t)
				delete(s.owners, t.front)
			}
		}
		delete(s.problems, p.was.Name)
	}
	for i := range pairs {
		p := &pairs[i]
		if p.is != nil {
			s.replace(p.old, s.claim(p.is))
			continue
		}
		s.replace(p.old, nil)
	}
}

// claim gives a service its fronts, but for those that another one has.
func (s *step) claim(svc *Service) []target {
	problem := func(what string) { s.problems[svc.Name] = append(s.problems[svc.Name], what) }
	want := targets(s.next, svc, problem)
	return slices.DeleteFunc(want, func(t target) bool {
		if owner, taken := s.owners[t.front]; taken {
			if owner != svc.Name {
				problem(fmt.Sprintf("%v is not served: it belongs to service %s", t.front, owner))
			}
			return true
		}
		s.owners[t.front] = svc.Name
		return false
	})
}

func (f front) String() string {
	if f.node() {
		return fmt.Sprintf("node port %d/%v", f.port, f.proto)
	}
	return fmt.Sprintf("%v:%d/%v", f.addr, f.port, f.proto)
}

// changed walks both sorted lists of services side by side.
func (s *step) changed() []pair {
	a, b := s.cfg.Services, s.next.Services
	out := make([]pair, 0, max(len(b)-len(a), 8))
	for len(a) > 0 || len(b) > 0 {
		order := 0
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = strings.Compare(a[0].Name, b[0].Name)
		}
		switch {
		case order < 0:
			out, a = append(out, pair{was: &a[0]}), a[1:]
		case order > 0:
			out, b = append(out, pair{is: &b[0]}), b[1:]
		default:
			if !equalServices(&a[0], &b[0]) || s.problems[a[0].Name] != nil {
				out = append(out, pair{was: &a[0], is: &b[0]})
			}
			a, b = a[1:], b[1:]
		}
	}
	return out
}

type entryKey struct {
	set string
	key nft.Data
}

// grow appends to a list of elements, in leaps: the first load has many.
func grow(list []nft.Element, e nft.Element) []nft.Element {
	if len(list) == cap(list) && len(list) > 0 {
		list = slices.Grow(list, 3*len(list))
	}
	return append(list, e)
}

// replace turns the elements of a service's former targets into those of its
// present ones.
func (s *step) replace(old, now []target) {
	var former map[entryKey]nft.Element
	if len(old) > 0 {
		former = make(map[entryKey]nft.Element)
	}
	for _, t := range old {
		t.entries(func(set string, e nft.Element) { former[entryKey{set, e.Key}] = e })
		s.use(t, -1)
	}
	for _, t := range now {
		t.entries(func(set string, e nft.Element) {
			k := entryKey{set, e.Key}
			was, there := former[k]
			if there && was == e {
				delete(former, k)
				return
			}
			s.add[set] = grow(s.add[set], e)
		})
		s.use(t, +1)
	}
	for k, e := range former {
		s.del[k.set] = append(s.del[k.set], e)
	}
	s.stale.compare(old, now)
}

// use counts what a target shares with others.
func (s *step) use(t target, by int) {
	if len(t.endpoints) == 0 {
		return
	}
	c := t.choice()
	count(s.chains, s.chainsBefore, c, by)
	count(s.maps, s.mapsBefore, choice{n: c.n, node: c.node}, by)
	for _, ep := range t.endpoints {
		if s.next.localPod(ep.Addr()) {
			count(s.local, s.localBefore, ep.Addr(), by)
		}
	}
}

// count changes a count and notes what it was at first.
func count[K comparable](m, before map[K]int, k K, by int) {
	if _, noted := before[k]; !noted {
		before[k] = m[k]
	}
	if m[k] += by; m[k] == 0 {
		delete(m, k)
	}
}

func (s *step) hostPorts() {
	was, is := hostTargets(s.cfg.HostPorts), hostTargets(s.next.HostPorts)
	former := make(map[entryKey]nft.Element)
	for _, h := range was {
		former[entryKey{h.set, h.element.Key}] = h.element
		s.useLocal(h.port.Endpoint.Addr(), -1)
	}
	for _, h := range is {
		k := entryKey{h.set, h.element.Key}
		if e, there := former[k]; there && e == h.element {
			delete(former, k)
		} else {
			s.add[h.set] = append(s.add[h.set], h.element)
		}
		s.useLocal(h.port.Endpoint.Addr(), +1)
	}
	for k, e := range former {
		s.del[k.set] = append(s.del[k.set], e)
	}
	s.stale.compareHostPorts(was, is)
}

func (s *step) useLocal(a netip.Addr, by int) {
	if s.next.localPod(a) {
		count(s.local, s.localBefore, a, by)
	}
}

type hostTarget struct {
	set     string
	element nft.Element
	port    HostPort
}

// hostTargets are the elements of host ports; of two with the same port the
// first has it, as the scheduler sees to.
func hostTargets(list []HostPort) []hostTarget {
	var out []hostTarget
	seen := make(map[front]bool, len(list))
	for _, h := range list {
		f := front{addr: h.Address, proto: h.Protocol, port: h.Port}
		if seen[f] || !h.Endpoint.Addr().Is4() || h.Address.IsValid() && !h.Address.Is4() {
			continue
		}
		seen[f] = true
		set := setHostPortsAt
		if f.node() {
			set = setHostPorts
		}
		out = append(out, hostTarget{set, nft.Element{Key: f.key(), Value: nft.Endpoint(h.Endpoint)}, h})
	}
	return out
}

// changes puts the step together: what is new or gone by the counts, and the
// elements.
func (s *step) changes() nft.Changes {
	c := nft.Changes{Family: nft.IPv4, Table: tableName}
	for ch, before := range s.chainsBefore {
		switch after := s.chains[ch]; {
		case before == 0 && after > 0:
			c.AddChains = append(c.AddChains, ch.chain())
		case before > 0 && after == 0:
			c.DelChains = append(c.DelChains, ch.chainName())
		}
	}
	sets := make(map[string]*nft.Set)
	for m, before := range s.mapsBefore {
		set := m.mapSet()
		sets[set.Name] = &set
		switch after := s.maps[m]; {
		case before == 0 && after > 0:
			c.AddSets = append(c.AddSets, set)
		case before > 0 && after == 0:
			c.DelSets = append(c.DelSets, set.Name)
		}
	}
	for a, before := range s.localBefore {
		e := nft.Element{Key: nft.Addr(a) + nft.Addr(a)}
		switch after := s.local[a]; {
		case before == 0 && after > 0:
			s.add[setHairpin] = append(s.add[setHairpin], e)
		case before > 0 && after == 0:
			s.del[setHairpin] = append(s.del[setHairpin], e)
		}
	}
	slices.Sort(c.DelChains)
	slices.Sort(c.DelSets)
	slices.SortFunc(c.AddChains, func(a, b nft.Chain) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(c.AddSets, func(a, b nft.Set) int { return strings.Compare(a.Name, b.Name) })
	c.DelElements = elements(s.del, sets)
	c.AddElements = elements(s.add, sets)
	return c
}

func elements(by map[string][]nft.Element, sets map[string]*nft.Set) []nft.Elements {
	var out []nft.Elements
	for _, name := range slices.Sorted(maps.Keys(by)) {
		set, ok := sets[name]
		if !ok {
			fixed := fixedSet(name)
			set = &fixed
		}
		out = append(out, nft.Elements{Set: set, List: by[name]})
	}
	return out
}
