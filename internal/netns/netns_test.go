package netns

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/wherry-project/wherry/internal/testkit"
)

func TestLife(t *testing.T) {
	testkit.NeedsRoot(t)
	path := filepath.Join(t.TempDir(), "run", "a")
	t.Cleanup(func() { Delete(path) })
	for i, want := range []bool{true, false} {
		if made, err := Make(path); made != want || err != nil {
			t.Fatalf("Make %d: %v, %v", i, made, err)
		}
	}
	if ok, err := Same(path, ""); ok || err != nil {
		t.Errorf("the new namespace is the own one (%v)", err)
	}
	err := Do(path, func() error {
		links, err := net.Interfaces()
		if len(links) == 0 || links[0].Name != "lo" || links[0].Flags&net.FlagUp != 0 {
			t.Errorf("links of a new namespace: %v", links)
		}
		if ok, err := Same(path, ""); !ok || err != nil {
			t.Errorf("inside is not inside (%v)", err)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if ok, err := Same(path, ""); ok || err != nil {
		t.Errorf("did not come back (%v)", err)
	}
	for range 2 {
		if err := Delete(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left after Delete: %v", err)
	}
	if ok, err := Pinned(path); ok || err != nil {
		t.Errorf("Pinned after Delete: %v, %v", ok, err)
	}
	if err := Do(path, func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Do in a deleted namespace: %v", err)
	}
}

// TestHalfMade finds what a killed Make leaves: a file without a mount.
func TestHalfMade(t *testing.T) {
	testkit.NeedsRoot(t)
	path := filepath.Join(t.TempDir(), "a")
	t.Cleanup(func() { Delete(path) })
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := Delete(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	if _, err := MakeWith(path, func() error { return no }); !errors.Is(err, no) {
		t.Errorf("MakeWith: %v", err)
	}
	if ok, err := Pinned(path); ok || err != nil {
		t.Errorf("pinned though unfinished (%v)", err)
	}
	if made, err := Make(path); !made || err != nil {
		t.Errorf("Make after half a Make: %v, %v", made, err)
	}
}

// TestGoexit leaves a namespace as testing's FailNow would.
func TestGoexit(t *testing.T) {
	testkit.NeedsRoot(t)
	path := filepath.Join(t.TempDir(), "a")
	if _, err := Make(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Delete(path) })
	if err := Do(path, func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("no error")
	}
}

func TestParallel(t *testing.T) {
	testkit.NeedsRoot(t)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			path := filepath.Join(dir, string(rune('a'+i)))
			for range 5 {
				if made, err := Make(path); !made || err != nil {
					t.Errorf("Make: %v, %v", made, err)
				}
				if err := Do(path, func() error { return nil }); err != nil {
					t.Error(err)
				}
				if err := Delete(path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if ok, err := Same("/proc/self/ns/net", ""); !ok || err != nil {
		t.Errorf("this thread is elsewhere (%v)", err)
	}
}
