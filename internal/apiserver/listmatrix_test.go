package apiserver_test

import (
	"fmt"
	"strconv"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

// TestListMatrix is the table of resourceVersion × resourceVersionMatch × limit
// × continue: which revision a list is of, or why it is refused.
func TestListMatrix(t *testing.T) {
	codec := api.NewCodec(kinds.Table(), 1<<20)
	c := open(t, codec, store.NewLocalLimits(codec, store.Limits{RingEvents: 64}), apiserver.Config{})
	at := c.at("configmaps", "demo", "", "")
	for i := range 80 { // what was before them is forgotten
		c.must(c.create("configmaps", "demo", fmt.Sprintf(`metadata: {name: m%02d}`, i)))
	}
	mid := c.snapshot().Revision()
	first, err := c.api.List(t.Context(), admin, at, api.ListOptions{Limit: 10})
	if err != nil || len(first.Records) != 10 || first.Continue == "" || first.Remaining == nil || *first.Remaining != 70 {
		t.Fatalf("first page: %+v, %v", first, err)
	}
	for i := range 5 {
		c.must(c.create("configmaps", "demo", fmt.Sprintf(`metadata: {name: n%02d}`, i)))
	}
	now := c.snapshot().Revision()
	const newest, exactly = -1, -2 // the revision of now; that which is asked for
	type answer struct {
		revision int // of the list, or one of the constants
		kind     error
		text     string
	}
	ok, ofMid := answer{revision: newest}, answer{revision: exactly}
	refused := func(kind error, text string) answer { return answer{kind: kind, text: text} }
	alone := refused(apierr.ErrInvalid, `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided`)
	odd := refused(apierr.ErrInvalid, `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Unsupported value: "Near"`)
	old := refused(apierr.ErrExpired, "too old resource version: 1")
	future := refused(apierr.ErrTimeout, "Timeout: Too large resource version: ")
	notAny := refused(apierr.ErrInvalid, `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"`)
	with := refused(apierr.ErrBadRequest, "specifying resource version is not allowed when using continue")
	matched := refused(apierr.ErrInvalid, `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided`)
	both := refused(apierr.ErrInvalid, `ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided, `)
	rvs := map[string]string{"unset": "", "0": "0", "mid": strconv.FormatUint(mid, 10), "old": "1", "future": strconv.FormatUint(now+1000, 10)}
	tests := []struct {
		rv        string
		match     metav1.ResourceVersionMatch
		noLimit   answer
		limited   answer
		continued answer
	}{
		{"unset", "", ok, ok, answer{revision: int(mid)}},
		{"unset", "NotOlderThan", alone, alone, refused(apierr.ErrInvalid, `ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: `)},
		{"unset", "Exact", alone, alone, refused(apierr.ErrInvalid, `ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: `)},
		{"0", "", ok, ok, answer{revision: int(mid)}},
		{"0", "NotOlderThan", ok, ok, matched},
		{"0", "Exact", notAny, notAny, both},
		{"mid", "", ok, ofMid, with},
		{"mid", "NotOlderThan", ok, ok, matched},
		{"mid", "Exact", ofMid, ofMid, matched},
		{"mid", "Near", odd, odd, both},
		{"old", "", ok, old, with},
		{"old", "NotOlderThan", ok, ok, matched},
		{"old", "Exact", old, old, matched},
		{"future", "NotOlderThan", future, future, matched},
	}
	t.Run("matrix", func(t *testing.T) {
		for _, tt := range tests {
			for how, want := range map[string]answer{"no limit": tt.noLimit, "limit": tt.limited, "continue": tt.continued} {
				t.Run(tt.rv+" "+string(tt.match)+" "+how, func(t *testing.T) {
					t.Parallel()
					o := api.ListOptions{ResourceVersion: rvs[tt.rv], ResourceVersionMatch: tt.match}
					if how != "no limit" {
						o.Limit = 10
					}
					if how == "continue" {
						o.Continue = first.Continue
					}
					p, err := c.api.List(t.Context(), admin, at, o)
					wants(t, err, want.kind, want.text)
					if err != nil || want.kind != nil {
						return
					}
					revision := uint64(want.revision)
					switch want.revision {
					case newest:
						revision = now
					case exactly:
						revision = mid
					}
					n := 85
					if revision == mid {
						n = 80
					}
					if how != "no limit" {
						n = 10
					}
					if p.Revision != revision || len(p.Records) != n {
						t.Errorf("%d objects at %d, want %d at %d", len(p.Records), p.Revision, n, revision)
					}
					if how == "continue" && p.Records[0].Name != "m10" {
						t.Errorf("goes on with %s", p.Records[0].Name)
					}
				})
			}
		}
	})
	t.Run("a token that is too old", func(t *testing.T) {
		for i := range 80 {
			c.must(c.create("configmaps", "default", fmt.Sprintf(`metadata: {name: o%02d}`, i)))
		}
		_, err := c.api.List(t.Context(), admin, at, api.ListOptions{Limit: 10, Continue: first.Continue})
		wants(t, err, apierr.ErrExpired, "The provided continue parameter is too old to display a consistent list result.")
		st := apierr.StatusOf(err)
		if st.Code != 410 || st.ListMeta.Continue == "" {
			t.Fatalf("answered %+v", st)
		}
		rest, err := c.api.List(t.Context(), admin, at, api.ListOptions{Continue: st.ListMeta.Continue})
		if err != nil || len(rest.Records) != 75 || rest.Records[0].Name != "m10" || rest.Revision <= now {
			t.Errorf("the rest by the new token: %d objects, %v", len(rest.Records), err)
		}
	})
}
