package nft

import (
	"maps"
	"slices"
	"strings"
)

// Changes lead from one state of a table to another. The zero value changes
// nothing. They are made in this order, in one transaction: the table (Replace
// or Remove), new sets, new chains, rules, elements gone, elements added,
// chains gone, sets gone.
type Changes struct {
	Family Family
	Table  string
	// Replace makes the table anew, whatever it held: the first commit of a
	// process, which takes over what a killed one left.
	Replace bool
	// Remove deletes the table; nothing else is looked at.
	Remove bool

	AddSets   []Set // their Elements are added too
	AddChains []Chain
	SetRules  []Chain // chains that are there and get these rules instead
	// DelElements and AddElements are of sets that are there, or in AddSets.
	DelElements []Elements
	AddElements []Elements
	DelChains   []string
	DelSets     []string
}

// Elements are elements of one set. The set is described, not only named,
// since the kernel wants its types; its own Elements are not looked at.
type Elements struct {
	Set  *Set
	List []Element
}

// Empty reports whether there is nothing to change.
func (c *Changes) Empty() bool {
	return !c.Replace && !c.Remove && len(c.AddSets)+len(c.AddChains)+len(c.SetRules)+
		len(c.DelElements)+len(c.AddElements)+len(c.DelChains)+len(c.DelSets) == 0
}

// Diff returns what changes from into to. A nil from replaces the table
// whatever it is, a nil to removes it.
func Diff(from, to *Table) Changes {
	switch {
	case to == nil && from == nil:
		return Changes{}
	case to == nil:
		return Changes{Family: from.Family, Table: from.Name, Remove: true}
	case from == nil:
		return Changes{Family: to.Family, Table: to.Name, Replace: true, AddSets: to.Sets, AddChains: to.Chains}
	}
	c := Changes{Family: to.Family, Table: to.Name}
	c.diffSets(from, to)
	c.diffChains(from, to)
	return c
}

func (c *Changes) diffSets(from, to *Table) {
	old := make(map[string]*Set, len(from.Sets))
	for i := range from.Sets {
		old[from.Sets[i].Name] = &from.Sets[i]
	}
	for i := range to.Sets {
		s := &to.Sets[i]
		was, ok := old[s.Name]
		if !ok {
			c.AddSets = append(c.AddSets, *s)
			continue
		}
		delete(old, s.Name)
		if !s.Dynamic {
			c.diffElements(was, s)
		}
	}
	c.DelSets = slices.Sorted(maps.Keys(old))
}

func (c *Changes) diffElements(was, s *Set) {
	old := make(map[Data]Element, len(was.Elements))
	for _, e := range was.Elements {
		old[e.Key] = e
	}
	var add, del []Element
	for _, e := range s.Elements {
		switch o, ok := old[e.Key]; {
		case !ok:
			add = append(add, e)
		case o != e:
			del, add = append(del, o), append(add, e)
		}
		delete(old, e.Key)
	}
	for _, k := range slices.Sorted(maps.Keys(old)) {
		del = append(del, old[k])
	}
	if len(del) > 0 {
		c.DelElements = append(c.DelElements, Elements{Set: s, List: del})
	}
	if len(add) > 0 {
		c.AddElements = append(c.AddElements, Elements{Set: s, List: add})
	}
}

func (c *Changes) diffChains(from, to *Table) {
	old := make(map[string]*Chain, len(from.Chains))
	for i := range from.Chains {
		old[from.Chains[i].Name] = &from.Chains[i]
	}
	for _, ch := range to.Chains {
		was, ok := old[ch.Name]
		switch {
		case !ok:
			c.AddChains = append(c.AddChains, ch)
		case rulesText(was.Rules) != rulesText(ch.Rules):
			c.SetRules = append(c.SetRules, ch)
		}
		delete(old, ch.Name)
	}
	c.DelChains = slices.Sorted(maps.Keys(old))
}

func rulesText(rules []Rule) string {
	var b strings.Builder
	for _, r := range rules {
		b.WriteString(r.String())
		b.WriteByte('\n')
	}
	return b.String()
}
