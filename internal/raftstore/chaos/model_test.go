package chaos

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

// register is what a key is: reads, writes, and compare-and-set at a revision.
type register struct {
	value    string
	revision uint64 // 0 while a write whose revision nobody knows was the last
	any      bool
}

// model says which outcomes a linearizable store may have.
func model() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			by := map[string][]porcupine.Operation{}
			for _, o := range history {
				by[o.Input.(Op).Key] = append(by[o.Input.(Op).Key], o)
			}
			var parts [][]porcupine.Operation
			for _, part := range by {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() any { return register{} },
		Step: func(state, in, out any) (bool, any) { return step(state.(register), in.(Op), out.(Done)) },
	}
}

func step(s register, in Op, out Done) (bool, any) {
	switch in.Kind {
	case "read":
		if out.Unknown {
			return true, s
		}
		if s.any { // the revision of an open write shows now
			return out.Value == s.value, register{value: s.value, revision: out.Revision}
		}
		return out.Value == s.value && out.Revision == s.revision, s
	case "write":
		if out.Unknown {
			return true, register{value: in.Value, any: true}
		}
		return s.any || out.Revision > s.revision, register{value: in.Value, revision: out.Revision}
	}
	// cas
	holds := s.revision == in.Revision || s.any
	switch {
	case out.Unknown && !holds, !out.Unknown && !out.OK:
		// With an open write before it the revision is not known, so either.
		return out.Unknown || s.revision != in.Revision || s.any, s
	case out.Unknown:
		return true, register{value: in.Value, any: true}
	}
	return holds, register{value: in.Value, revision: out.Revision}
}

func TestModel(t *testing.T) {
	at := func(i int64, in Op, out Done) porcupine.Operation {
		return porcupine.Operation{ClientId: int(i), Input: in, Call: 2 * i, Output: out, Return: 2*i + 1}
	}
	for name, test := range map[string]struct {
		history []porcupine.Operation
		legal   bool
	}{
		"read after write": {[]porcupine.Operation{
			at(1, Op{Kind: "write", Value: "a"}, Done{Revision: 5}),
			at(2, Op{Kind: "read"}, Done{Value: "a", Revision: 5})}, true},
		"stale read": {[]porcupine.Operation{
			at(1, Op{Kind: "write", Value: "a"}, Done{Revision: 5}),
			at(2, Op{Kind: "write", Value: "b"}, Done{Revision: 6}),
			at(3, Op{Kind: "read"}, Done{Value: "a", Revision: 5})}, false},
		"two at one revision": {[]porcupine.Operation{
			at(1, Op{Kind: "write", Value: "a"}, Done{Revision: 5}),
			at(2, Op{Kind: "cas", Value: "b", Revision: 5}, Done{Revision: 6, OK: true}),
			at(3, Op{Kind: "cas", Value: "c", Revision: 5}, Done{Revision: 7, OK: true})}, false},
		"lost write": {[]porcupine.Operation{
			at(1, Op{Kind: "write", Value: "a"}, Done{Revision: 5}),
			at(2, Op{Kind: "read"}, Done{})}, false},
		"revision goes back": {[]porcupine.Operation{
			at(1, Op{Kind: "write", Value: "a"}, Done{Revision: 5}),
			at(2, Op{Kind: "write", Value: "b"}, Done{Revision: 4})}, false},
	} {
		if got := porcupine.CheckOperations(model(), test.history); got != test.legal {
			t.Errorf("%s: %v, want %v", name, got, test.legal)
		}
	}
}
