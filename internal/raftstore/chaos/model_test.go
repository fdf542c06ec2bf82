package chaos

import (
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/wherry-project/wherry/internal/store"
)

// register is what a key is; the zero one is of a key that is not there.
type register struct {
	value    string
	revision uint64
	open     bool // it was written last by a command whose revision nobody knows
}

// pair is the state of two keys that commands change together.
type pair struct {
	keys [2]register
	last uint64 // the newest revision that is known
}

func (p *pair) key(name string) *register { return &p.keys[name[len(name)-1]-'a'] }

// partOf is the pair that an operation is about.
func partOf(op Op) string {
	key := op.Key
	if op.Steps != nil {
		key = op.Steps[0].Key
	}
	return key[:len(key)-1]
}

// model says which outcomes a linearizable store may have.
func model() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			by := map[string][]porcupine.Operation{}
			for _, o := range history {
				of := partOf(o.Input.(Op))
				by[of] = append(by[of], o)
			}
			var parts [][]porcupine.Operation
			for _, part := range by {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() any { return pair{} },
		Step: func(state, in, out any) (bool, any) { return step(state.(pair), in.(Op), out.(Done)) },
	}
}

// Whether a condition holds of a key.
const (
	no     = iota
	either // the key's revision is not known
	yes
)

func meets(k register, s Step) int {
	there, holds := k.value != "", false
	switch {
	case s.If.Absent:
		holds = !there
	case !there:
		holds = s.Do == store.Put && s.If.Revision == 0
	case s.If.Revision != 0 && k.open:
		return either
	default:
		holds = s.If.Revision == 0 || s.If.Revision == k.revision
	}
	if holds {
		return yes
	}
	return no
}

func step(p pair, in Op, out Done) (bool, any) {
	if in.Steps == nil {
		return read(p, in, out)
	}
	holds := yes
	for _, s := range in.Steps {
		holds = min(holds, meets(*p.key(s.Key), s))
	}
	switch {
	case out.Unknown && holds == no:
		return true, p
	case !out.Unknown && !out.OK:
		return holds != yes, p
	case !out.Unknown && (holds == no || out.Revision <= p.last):
		return false, p
	}
	for _, s := range in.Steps {
		switch k := p.key(s.Key); {
		case s.Do == store.Put:
			*k = register{s.Value, out.Revision, out.Unknown}
		case s.Do == store.Delete:
			*k = register{}
		case s.If.Revision != 0:
			k.revision, k.open = s.If.Revision, false
		}
	}
	p.last = max(p.last, out.Revision)
	return true, p
}

func read(p pair, in Op, out Done) (bool, any) {
	k := p.key(in.Key)
	if k.open { // its revision shows now
		k.revision, k.open = out.Revision, false
		p.last = max(p.last, out.Revision)
	}
	return out.Value == k.value && out.Revision == k.revision, p
}

func TestModel(t *testing.T) {
	at := func(i int64, in Op, out Done) porcupine.Operation {
		return porcupine.Operation{ClientId: int(i), Input: in, Call: 2 * i, Output: out, Return: 2*i + 1}
	}
	with := func(op Op, more Step) Op {
		op.Steps = append(op.Steps, more)
		return op
	}
	write := func(value string) Op { return set("a", value, store.Cond{}) }
	cas := func(value string, revision uint64) Op { return set("a", value, store.Cond{Revision: revision}) }
	create := func(value string) Op { return set("a", value, store.Cond{Absent: true}) }
	remove := Op{Steps: []Step{{Key: "a", Do: store.Delete}}}
	read, readB := Op{Key: "a"}, Op{Key: "b"}
	ok := func(revision uint64) Done { return Done{Revision: revision, OK: true} }
	for name, test := range map[string]struct {
		history []porcupine.Operation
		legal   bool
	}{
		"read after write":    {[]porcupine.Operation{at(1, write("x"), ok(5)), at(2, read, Done{Value: "x", Revision: 5})}, true},
		"stale read":          {[]porcupine.Operation{at(1, write("x"), ok(5)), at(2, write("y"), ok(6)), at(3, read, Done{Value: "x", Revision: 5})}, false},
		"two at one revision": {[]porcupine.Operation{at(1, write("x"), ok(5)), at(2, cas("y", 5), ok(6)), at(3, cas("z", 5), ok(7))}, false},
		"lost write":          {[]porcupine.Operation{at(1, write("x"), ok(5)), at(2, read, Done{})}, false},
		"revision goes back":  {[]porcupine.Operation{at(1, write("x"), ok(5)), at(2, write("y"), ok(4))}, false},
		"an open write shows": {[]porcupine.Operation{
			{ClientId: 1, Input: write("x"), Call: 1, Output: Done{Unknown: true}, Return: 100},
			at(2, read, Done{Value: "x", Revision: 5}), at(3, cas("y", 5), ok(6)), at(4, read, Done{Value: "y", Revision: 6})}, true},
		"made, gone, made":          {[]porcupine.Operation{at(1, create("x"), ok(5)), at(2, remove, ok(6)), at(3, read, Done{}), at(4, create("y"), ok(7))}, true},
		"made twice":                {[]porcupine.Operation{at(1, create("x"), ok(5)), at(2, create("y"), ok(6))}, false},
		"refused where none is":     {[]porcupine.Operation{at(1, create("x"), Done{})}, false},
		"removed where none is":     {[]porcupine.Operation{at(1, remove, ok(5))}, false},
		"removed, and still there":  {[]porcupine.Operation{at(1, write("x"), ok(5)), at(2, remove, ok(6)), at(3, read, Done{Value: "x", Revision: 5})}, false},
		"not removed, and gone":     {[]porcupine.Operation{at(1, write("x"), ok(5)), at(2, remove, Done{}), at(3, read, Done{})}, false},
		"at a revision that is not": {[]porcupine.Operation{at(1, write("x"), ok(5)), at(2, remove, ok(6)), at(3, cas("y", 5), ok(7))}, false},
		"both": {[]porcupine.Operation{at(1, write("x"), ok(5)),
			at(2, with(cas("y", 5), Step{Key: "b", Value: "y", Do: store.Put, If: store.Cond{Absent: true}}), ok(6)), at(3, readB, Done{Value: "y", Revision: 6})}, true},
		"half of both": {[]porcupine.Operation{at(1, write("x"), ok(5)),
			at(2, with(cas("y", 5), Step{Key: "b", Value: "y", Do: store.Put}), ok(6)), at(3, readB, Done{})}, false},
		"both, though the other is there": {[]porcupine.Operation{at(1, write("x"), ok(5)), at(2, set("b", "x", store.Cond{}), ok(6)),
			at(3, with(cas("y", 5), Step{Key: "b", Do: store.Check, If: store.Cond{Absent: true}}), ok(7))}, false},
		"told as failed, and done later": {[]porcupine.Operation{at(1, write("x"), ok(5)), at(2, set("b", "x", store.Cond{}), ok(6)),
			at(3, with(cas("y", 5), Step{Key: "b", Value: "y", Do: store.Put, If: store.Cond{Absent: true}}), Done{}),
			at(4, Op{Steps: []Step{{Key: "b", Do: store.Delete}}}, ok(7)), at(5, readB, Done{Value: "y", Revision: 8})}, false},
	} {
		if got := porcupine.CheckOperations(model(), test.history); got != test.legal {
			t.Errorf("%s: %v, want %v", name, got, test.legal)
		}
	}
}
