package pki

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPendingKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	hash := func() string {
		t.Helper()
		key, err := PendingKey(dir)
		if err != nil {
			t.Fatal(err)
		}
		h, err := KeyHash(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	first := hash()
	if again := hash(); again != first {
		t.Errorf("asked again with %s after %s", again, first)
	}
	if err := DropPendingKey(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
	if other := hash(); other == first {
		t.Error("the key of a join that has ended is used again")
	}
	if err := os.WriteFile(filepath.Join(dir, pendingFile), []byte("half a"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := PendingKey(dir); err == nil || !strings.Contains(err.Error(), "remove it to join with a new key") {
		t.Errorf("a damaged key: %v", err)
	}
}
