package openapi

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-project/wherry/internal/kinds"
)

// TestIdleDocumentsAreDropped: after a while without readers only the hashes
// are kept, and what is then built anew is the same.
func TestIdleDocumentsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := New(kinds.Table())
		if err != nil {
			t.Fatal(err)
		}
		index, err := d.Index()
		if err != nil {
			t.Fatal(err)
		}
		first, err := d.V3Proto("apis/apps/v1")
		if err != nil {
			t.Fatal(err)
		}
		kept := func() int {
			d.mu.Lock()
			defer d.mu.Unlock()
			return len(d.packed)
		}
		if kept() == 0 {
			t.Error("nothing is kept for the next reader")
		}
		time.Sleep(idleAfter)
		synctest.Wait()
		if left := kept(); left != 0 {
			t.Errorf("%d documents are kept that nobody reads", left)
		}
		again, err := d.V3Proto("apis/apps/v1")
		if err != nil {
			t.Fatal(err)
		}
		text, err := d.V3("apis/apps/v1")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, again) || hashOf(text) != index["apis/apps/v1"] {
			t.Error("a document changes when it is built again")
		}
		time.Sleep(idleAfter)
	})
}
