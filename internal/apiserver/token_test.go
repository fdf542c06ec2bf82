package apiserver

import (
	"testing"

	"github.com/wherry-project/wherry/internal/api"
)

func FuzzToken(f *testing.F) {
	f.Add(tokenAfter(7, &api.Record{Key: api.Key{Namespace: "demo", Name: "a"}}).encode())
	f.Add("eyJ2IjoibWV0YS53aGVycnkvdjEiLCJydiI6LTEsInN0YXJ0IjoiLyJ9")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := decodeToken(text)
		if err != nil {
			return
		}
		again, err := decodeToken(c.encode())
		if err != nil || again != c || c.Revision == 0 {
			t.Errorf("%q is %+v, and again %+v, %v", text, c, again, err)
		}
	})
}
