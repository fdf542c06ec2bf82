package checkpoint

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func open(t *testing.T, path, secret string) *Store {
	t.Helper()
	s, err := Open(path, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s := open(t, path, "key")
	if b, err := s.Load(); b != nil || err != nil {
		t.Fatalf("an empty folder loads as %q, %v", b, err)
	}
	for _, want := range []string{"one", "a secret value", ""} {
		if err := s.Save([]byte(want)); err != nil {
			t.Fatal(err)
		}
		got, err := open(t, path, "key").Load()
		if err != nil || string(got) != want {
			t.Errorf("loaded %q, %v; want %q", got, err, want)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the folder: %v, %v", entries, err)
	}
}

func TestSealed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := open(t, path, "key").Save([]byte("a secret value")); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("secret")) {
		t.Error("the file shows what is in it")
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", st.Mode(), err)
	}
	for name, damage := range map[string]func([]byte) ([]byte, string){
		"another key":   func(b []byte) ([]byte, string) { return b, "other" },
		"a changed bit": func(b []byte) ([]byte, string) { b[len(b)-1] ^= 1; return b, "key" },
		"cut off":       func(b []byte) ([]byte, string) { return b[:7], "key" },
		"newer format":  func(b []byte) ([]byte, string) { b[4]++; return b, "key" },
	} {
		bad, key := damage(bytes.Clone(b))
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := open(t, path, key).Load()
		if err == nil || !strings.Contains(err.Error(), "remove") {
			t.Errorf("%s: %v; want an error that says what to do", name, err)
		}
	}
}
