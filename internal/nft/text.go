package nft

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// String is the table much as nft lists it; elements are sorted, so equal
// tables have equal text.
func (t *Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %v %s {\n", t.Family, t.Name)
	for i := range t.Sets {
		writeSet(&b, &t.Sets[i])
	}
	for i := range t.Chains {
		writeChain(&b, &t.Chains[i])
	}
	b.WriteString("}\n")
	return b.String()
}

func writeSet(b *strings.Builder, s *Set) {
	kind, value := "set", ""
	switch {
	case s.Verdicts:
		kind, value = "map", " : verdict"
	case len(s.Value) > 0:
		kind, value = "map", " : "+typesText(s.Value)
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\ttype %s%s\n", kind, s.Name, typesText(s.Key), value)
	if s.Dynamic {
		fmt.Fprintf(b, "\t\tsize %d\n\t\tflags dynamic, timeout\n", s.size())
	}
	if s.Timeout > 0 {
		fmt.Fprintf(b, "\t\ttimeout %v\n", s.Timeout)
	}
	if len(s.Elements) > 0 {
		b.WriteString("\t\telements = {\n")
		for _, e := range sorted(s.Elements) {
			fmt.Fprintf(b, "\t\t\t%s\n", s.elementText(e))
		}
		b.WriteString("\t\t}\n")
	}
	b.WriteString("\t}\n")
}

func sorted(list []Element) []Element {
	return slices.SortedFunc(slices.Values(list), func(a, b Element) int { return cmp.Compare(a.Key, b.Key) })
}

func (s *Set) elementText(e Element) string {
	if len(e.Key) != width(s.Key) {
		return fmt.Sprintf("%q", string(e.Key))
	}
	key := dataText(s.Key, e.Key)
	switch {
	case s.Verdicts:
		return key + " : " + e.Verdict.String()
	case len(s.Value) > 0 && len(e.Value) == width(s.Value):
		return key + " : " + dataText(s.Value, e.Value)
	}
	return key
}

func writeChain(b *strings.Builder, c *Chain) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if c.Hook != nil {
		fmt.Fprintf(b, "\t\ttype %s hook %v priority %d; policy accept;\n", c.Hook.Type, c.Hook.At, c.Hook.Priority)
	}
	for _, r := range c.Rules {
		fmt.Fprintf(b, "\t\t%v\n", r)
	}
	b.WriteString("\t}\n")
}

func (s *Set) size() uint32 {
	if s.Size == 0 {
		return 65535
	}
	return s.Size
}
