package nft

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Fake keeps tables in memory, refusing what the kernel refuses: elements that
// are there or are not, chains and sets that are missing or still used. Its
// zero value is an empty kernel.
type Fake struct {
	mu     sync.Mutex
	tables map[string]*Table
	// Commits counts the transactions that changed something.
	Commits int
	// Fail, if set, is what the next Commit returns instead of committing.
	Fail error
}

// Commit makes all changes or none.
func (f *Fake) Commit(ctx context.Context, c Changes) error {
	if err := ctx.Err(); err != nil || c.Empty() {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.Fail; err != nil {
		f.Fail = nil
		return err
	}
	id := fmt.Sprint(c.Family, " ", c.Table)
	old := f.tables[id]
	if c.Replace || c.Remove || old == nil {
		old = &Table{Family: c.Family, Name: c.Table}
	}
	t := clone(old)
	if !c.Remove {
		if err := apply(t, &c); err != nil {
			return fmt.Errorf("commit to table %s: %w", id, err)
		}
	}
	if f.tables == nil {
		f.tables = make(map[string]*Table)
	}
	f.tables[id] = t
	if c.Remove {
		delete(f.tables, id)
	}
	f.Commits++
	return nil
}

// Intact reports whether a table is there and has chains or sets.
func (f *Fake) Intact(_ context.Context, family Family, table string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tables[fmt.Sprint(family, " ", table)]
	return t != nil && len(t.Sets)+len(t.Chains) > 0, nil
}

// DropElements deletes the elements of a map that drop reports true for.
func (f *Fake) DropElements(_ context.Context, family Family, table string, set *Set, drop func(Element) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tables[fmt.Sprint(family, " ", table)]
	if t == nil {
		return fmt.Errorf("table %s: %w", table, unix.ENOENT)
	}
	if s := t.set(set.Name); s != nil {
		s.Elements = slices.DeleteFunc(s.Elements, drop)
		return nil
	}
	return fmt.Errorf("set %s: %w", set.Name, unix.ENOENT)
}

// Text is a table as Table.String writes it, with sets and chains sorted by
// name; empty if it is not there.
func (f *Fake) Text(family Family, table string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tables[fmt.Sprint(family, " ", table)]
	if t == nil {
		return ""
	}
	return t.Sorted().String()
}

// Lose drops a table, as another tool's "flush ruleset" does.
func (f *Fake) Lose(family Family, table string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.tables, fmt.Sprint(family, " ", table))
}

// Sorted is a copy of the table with sets and chains sorted by name.
func (t *Table) Sorted() *Table {
	c := clone(t)
	slices.SortFunc(c.Sets, func(a, b Set) int { return compareNames(a.Name, b.Name) })
	slices.SortFunc(c.Chains, func(a, b Chain) int { return compareNames(a.Name, b.Name) })
	return c
}

func compareNames(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func clone(t *Table) *Table {
	c := &Table{Family: t.Family, Name: t.Name, Sets: slices.Clone(t.Sets), Chains: slices.Clone(t.Chains)}
	for i := range c.Sets {
		c.Sets[i].Elements = slices.Clone(c.Sets[i].Elements)
	}
	return c
}

func (t *Table) set(name string) *Set {
	for i := range t.Sets {
		if t.Sets[i].Name == name {
			return &t.Sets[i]
		}
	}
	return nil
}

func (t *Table) chain(name string) *Chain {
	for i := range t.Chains {
		if t.Chains[i].Name == name {
			return &t.Chains[i]
		}
	}
	return nil
}

func apply(t *Table, c *Changes) error {
	for _, s := range c.AddSets {
		if t.set(s.Name) != nil {
			return fmt.Errorf("set %s: %w", s.Name, unix.EEXIST)
		}
		s.Elements = nil
		t.Sets = append(t.Sets, s)
	}
	for _, ch := range c.AddChains {
		if t.chain(ch.Name) != nil {
			return fmt.Errorf("chain %s: %w", ch.Name, unix.EEXIST)
		}
		t.Chains = append(t.Chains, ch)
	}
	for _, ch := range c.SetRules {
		was := t.chain(ch.Name)
		if was == nil {
			return fmt.Errorf("chain %s: %w", ch.Name, unix.ENOENT)
		}
		was.Rules = ch.Rules
	}
	if err := applyElements(t, c); err != nil {
		return err
	}
	for _, name := range c.DelChains {
		if t.chain(name) == nil {
			return fmt.Errorf("chain %s: %w", name, unix.ENOENT)
		}
		t.Chains = slices.DeleteFunc(t.Chains, func(ch Chain) bool { return ch.Name == name })
	}
	for _, name := range c.DelSets {
		if t.set(name) == nil {
			return fmt.Errorf("set %s: %w", name, unix.ENOENT)
		}
		t.Sets = slices.DeleteFunc(t.Sets, func(s Set) bool { return s.Name == name })
	}
	return t.checkReferences()
}

func applyElements(t *Table, c *Changes) error {
	for _, e := range c.DelElements {
		if err := t.deleteElements(e); err != nil {
			return err
		}
	}
	for i := range c.AddSets {
		if err := t.addElements(Elements{&c.AddSets[i], c.AddSets[i].Elements}); err != nil {
			return err
		}
	}
	for _, e := range c.AddElements {
		if err := t.addElements(e); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) deleteElements(e Elements) error {
	s := t.set(e.Set.Name)
	if s == nil {
		return fmt.Errorf("set %s: %w", e.Set.Name, unix.ENOENT)
	}
	gone := make(map[Data]bool, len(e.List))
	for _, x := range e.List {
		gone[x.Key] = true
	}
	before := len(s.Elements)
	s.Elements = slices.DeleteFunc(s.Elements, func(x Element) bool { return gone[x.Key] })
	if before-len(s.Elements) != len(e.List) {
		return fmt.Errorf("delete %d elements of %s, %d are there: %w", len(e.List), s.Name, before-len(s.Elements), unix.ENOENT)
	}
	return nil
}

func (t *Table) addElements(e Elements) error {
	s := t.set(e.Set.Name)
	if s == nil {
		return fmt.Errorf("set %s: %w", e.Set.Name, unix.ENOENT)
	}
	have := make(map[Data]Element, len(s.Elements))
	for _, x := range s.Elements {
		have[x.Key] = x
	}
	for _, x := range e.List {
		if err := s.check(x); err != nil {
			return err
		}
		if was, ok := have[x.Key]; ok && was != x {
			return fmt.Errorf("element %s of %s: %w", s.elementText(x), s.Name, unix.EEXIST)
		} else if !ok {
			s.Elements = append(s.Elements, x)
		}
		have[x.Key] = x
	}
	return nil
}

// checkReferences refuses rules and elements that name what is not there.
func (t *Table) checkReferences() error {
	for _, ch := range t.Chains {
		for _, r := range ch.Rules {
			if _, err := compile(t.Family, r); err != nil {
				return err
			}
			for _, s := range r {
				if err := t.checkStatement(s); err != nil {
					return fmt.Errorf("chain %s: %w", ch.Name, err)
				}
			}
		}
	}
	for _, s := range t.Sets {
		for _, e := range s.Elements {
			if err := t.checkVerdict(e.Verdict); err != nil {
				return fmt.Errorf("set %s: %w", s.Name, err)
			}
		}
	}
	return nil
}

func (t *Table) checkStatement(s Statement) error {
	var sets []string
	switch s := s.(type) {
	case act:
		return t.checkVerdict(s.verdict)
	case member:
		sets = []string{s.set}
	case verdictMap:
		sets = []string{s.set}
	case translateTo:
		sets = []string{s.set}
	case remember:
		sets = []string{s.set, s.choices}
	}
	for _, name := range sets {
		if t.set(name) == nil {
			return fmt.Errorf("set %s: %w", name, unix.ENOENT)
		}
	}
	return nil
}

func (t *Table) checkVerdict(v Verdict) error {
	if v.Chain != "" && t.chain(v.Chain) == nil {
		return fmt.Errorf("chain %s: %w", v.Chain, unix.ENOENT)
	}
	return nil
}
