package images

import (
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wherry-project/wherry/internal/testimage"
	"github.com/wherry-project/wherry/internal/testkit"
)

// BenchmarkPull pulls 50 MB in 2,500 files and 5 layers from a registry in this
// process into an empty store.
func BenchmarkPull(b *testing.B) {
	testkit.NeedsRoot(b)
	random := rand.NewChaCha8([32]byte{1})
	var spec testimage.Spec
	for l := range 5 {
		layer := testimage.Layer{{Name: fmt.Sprintf("d%d", l), Dir: true}}
		for f := range 500 {
			body := make([]byte, 20<<10)
			random.Read(body[:len(body)*8/10]) // the rest packs well
			layer = append(layer, testimage.File{Name: fmt.Sprintf("d%d/f%d", l, f), Body: body})
		}
		spec.Layers = append(spec.Layers, layer)
	}
	img, err := testimage.Build(spec)
	if err != nil {
		b.Fatal(err)
	}
	reg := testimage.NewRegistry()
	if err := reg.Push("big:1", img); err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(reg)
	defer srv.Close()
	for b.Loop() {
		s, err := Open(Config{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Pull(b.Context(), strings.TrimPrefix(srv.URL, "http://")+"/big:1"); err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPullCached is a pull of what is here already: what
// imagePullPolicy Always costs.
func BenchmarkPullCached(b *testing.B) {
	t := newBench(b)
	t.push(b, "app:1", two())
	for b.Loop() {
		if _, err := t.Pull(b.Context(), t.host+"/app:1"); err != nil {
			b.Fatal(err)
		}
	}
}
