package patch_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/patch"
)

// TestVeryWideIsNotTracked would take minutes otherwise.
func TestVeryWideIsNotTracked(t *testing.T) {
	kinds, k := table()
	f := patch.NewFields(kinds)
	for n, tracked := range map[int]bool{9_000: true, 100_000: false} {
		obj := deployment()
		obj.UID, obj.ResourceVersion, obj.Annotations = "", "", map[string]string{}
		for i := range n {
			obj.Annotations[fmt.Sprint("a", i)] = ""
		}
		if err := f.Update(k, nil, obj, "me", ""); err != nil || (len(obj.ManagedFields) > 0) != tracked {
			t.Errorf("%d annotations: %d managed fields, %v", n, len(obj.ManagedFields), err)
		}
		if tracked {
			continue
		}
		if _, err := f.Apply(k, obj, []byte(web), "me", "", true); !errors.Is(err, apierr.ErrTooLarge) {
			t.Errorf("applied to %d annotations: %v", n, err)
		}
	}
}
