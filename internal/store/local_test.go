package store_test

import (
	"testing"

	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/store/storetest"
)

func TestLocal(t *testing.T) {
	storetest.Run(t, func(_ testing.TB, limits store.Limits) []store.Store {
		return []store.Store{store.NewLocalLimits(storetest.Codec(), limits)}
	})
}
