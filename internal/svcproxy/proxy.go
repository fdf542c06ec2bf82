package svcproxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/wherry-project/wherry/internal/link"
	"github.com/wherry-project/wherry/internal/nft"
)

// ruleset is what Proxy needs of nftables. nft.Conn and nft.Fake provide it.
type ruleset interface {
	Commit(ctx context.Context, changes nft.Changes) error // all or nothing
	Intact(ctx context.Context, family nft.Family, table string) (bool, error)
	DropElements(ctx context.Context, family nft.Family, table string, set *nft.Set, drop func(nft.Element) bool) error
}

// connections are those that the kernel tracks.
type connections interface {
	ForgetConnections(drop func(link.Connection) bool) (int, error)
}

// Proxy holds the service rules of one node. One Apply runs at a time.
type Proxy struct {
	rules ruleset
	conns connections
	close func() error

	mu sync.Mutex
	// state is that of the last commit of this process; nil before the first
	// and after one that failed, then the table is made anew.
	state   *state
	pending stale
}

// Options say where the rules live.
type Options struct {
	// NetNS is the path of the node's network namespace; empty is the
	// caller's own.
	NetNS string
}

// Problem is a part of a service that could not be served.
type Problem struct {
	Service string
	What    string
}

// Open makes a Proxy. It changes nothing: the first Apply replaces what an
// earlier process left, in one transaction.
func Open(ctx context.Context, opts Options) (*Proxy, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rules, err := nft.Open(opts.NetNS)
	if err != nil {
		return nil, fmt.Errorf("open service rules: %w", err)
	}
	links, err := link.Open(opts.NetNS)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open service rules: %w", err), rules.Close())
	}
	p := newProxy(rules, links)
	p.close = func() error { return errors.Join(rules.Close(), links.Close()) }
	return p, nil
}

func newProxy(rules ruleset, conns connections) *Proxy {
	return &Proxy{rules: rules, conns: conns, close: func() error { return nil }, pending: newStale()}
}

// Close lets go of the kernel connections. The rules stay.
func (p *Proxy) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.close()
}

// Apply makes the kernel's service rules those of cfg. Applying the same cfg
// again does nothing unless somebody took the table away. When the commit
// fails the former rules still hold. An error after it, of clearing what the
// kernel remembers of former endpoints, leaves the new rules in force; the next
// Apply clears again.
func (p *Proxy) Apply(ctx context.Context, cfg Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil || !same(p.state.cfg.Services, cfg.Services) {
		var err error
		if cfg.Services, err = sorted(cfg.Services); err != nil {
			return err
		}
	}
	if err := p.commit(ctx, cfg); err != nil {
		return fmt.Errorf("commit service rules: %w", err)
	}
	return p.clear(ctx)
}

func (p *Proxy) commit(ctx context.Context, cfg Config) error {
	if p.state != nil {
		ok, err := p.rules.Intact(ctx, nft.IPv4, tableName)
		if err != nil {
			return err
		}
		if !ok || !sameFrame(&p.state.cfg, &cfg) {
			p.state = nil
		}
	}
	s, fresh := p.state, p.state == nil
	if fresh {
		empty := cfg
		empty.Services, empty.HostPorts = nil, nil
		s = newState(empty)
	}
	changes, left := s.advance(cfg)
	if fresh {
		base := nft.Diff(nil, frame(&cfg))
		changes.Replace = true
		left = newStale()
		left.all = true
		changes.AddSets = append(base.AddSets, changes.AddSets...)
		changes.AddChains = append(base.AddChains, changes.AddChains...)
	}
	if err := p.rules.Commit(ctx, changes); err != nil {
		p.state = nil // it has moved on, the kernel has not
		return err
	}
	p.state = s
	p.pending.merge(left)
	return nil
}

// clear makes the kernel forget ways that are no more.
func (p *Proxy) clear(ctx context.Context) error {
	if p.pending.all || len(p.pending.gone)+len(p.pending.opened) > 0 {
		drops := p.pending.drops
		if p.pending.all {
			drops = p.state.strays()
		}
		if _, err := p.conns.ForgetConnections(drops); err != nil {
			return fmt.Errorf("clear UDP connections of former endpoints: %w", err)
		}
		p.pending.all = false
		clear(p.pending.gone)
		clear(p.pending.opened)
	}
	if len(p.pending.kept) > 0 {
		set := fixedSet(setAffinity)
		if err := p.rules.DropElements(ctx, nft.IPv4, tableName, &set, p.pending.forgets); err != nil {
			return fmt.Errorf("clear session affinity to former endpoints: %w", err)
		}
		clear(p.pending.kept)
	}
	return nil
}

// Problems are what the last Apply could not serve, for the user to see.
func (p *Proxy) Problems() []Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil {
		return nil
	}
	var out []Problem
	for _, name := range slices.Sorted(maps.Keys(p.state.problems)) {
		for _, what := range p.state.problems[name] {
			out = append(out, Problem{Service: name, What: what})
		}
	}
	return out
}

// Remove takes the service rules away.
func (p *Proxy) Remove(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = nil
	if err := p.rules.Commit(ctx, nft.Changes{Family: nft.IPv4, Table: tableName, Remove: true}); err != nil {
		return fmt.Errorf("remove service rules: %w", err)
	}
	return nil
}

// sorted is the list itself if it is sorted by name already.
func sorted(list []Service) ([]Service, error) {
	byName := func(a, b Service) int { return strings.Compare(a.Name, b.Name) }
	rising := true
	for i := 1; i < len(list) && rising; i++ {
		rising = list[i-1].Name < list[i].Name
	}
	if rising {
		return list, nil
	}
	list = slices.SortedFunc(slices.Values(list), byName)
	for i := 1; i < len(list); i++ {
		if list[i-1].Name == list[i].Name {
			return nil, fmt.Errorf("service rules: service %s is given twice", list[i].Name)
		}
	}
	return list, nil
}
