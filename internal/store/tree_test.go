package store

import (
	"cmp"
	"math/rand"
	"slices"
	"testing"
)

func items(t *tree[int]) []int {
	var out []int
	t.from(nil, func(i int) bool { out = append(out, i); return true })
	return out
}

// TestTreeAgainstMap does random puts and deletes on a tree and a map; frozen
// copies taken on the way must keep what they had.
func TestTreeAgainstMap(t *testing.T) {
	for seed := range int64(20) {
		r := rand.New(rand.NewSource(seed))
		tr := newTree(cmp.Compare[int])
		want := map[int]bool{}
		type kept struct {
			tree  tree[int]
			items []int
		}
		var frozen []kept
		keys := 50 << (seed % 8)
		for step := range 6000 {
			k := r.Intn(keys)
			if r.Intn(5) < 3 != (step > 3000) {
				tr.put(k)
				want[k] = true
			} else {
				tr.delete(k)
				delete(want, k)
			}
			if r.Intn(300) == 0 {
				f := tr.freeze()
				frozen = append(frozen, kept{f, items(&f)})
			}
			if tr.len() != len(want) {
				t.Fatalf("seed %d step %d: len %d, want %d", seed, step, tr.len(), len(want))
			}
		}
		var sorted []int
		for k := range want {
			sorted = append(sorted, k)
		}
		slices.Sort(sorted)
		if got := items(&tr); !slices.Equal(got, sorted) {
			t.Fatalf("seed %d: items differ: %v, want %v", seed, got, sorted)
		}
		for _, k := range frozen {
			if got := items(&k.tree); !slices.Equal(got, k.items) {
				t.Fatalf("seed %d: a frozen tree changed", seed)
			}
		}
		for range 200 {
			k := r.Intn(keys + 2)
			at := func(i int) bool { return i >= k }
			i, found := slices.BinarySearch(sorted, k)
			if got := tr.rank(at); got != i {
				t.Fatalf("seed %d: rank of %d is %d, want %d", seed, k, got, i)
			}
			if _, ok := tr.get(k); ok != found {
				t.Fatalf("seed %d: get %d: %v, want %v", seed, k, ok, found)
			}
			var rest []int
			tr.from(at, func(i int) bool { rest = append(rest, i); return len(rest) < 40 })
			if n := min(len(sorted), i+40); !slices.Equal(rest, sorted[i:n]) {
				t.Fatalf("seed %d: from %d: %v, want %v", seed, k, rest, sorted[i:n])
			}
		}
	}
}
