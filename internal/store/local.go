package store

import (
	"context"

	"github.com/wherry-project/wherry/internal/api"
)

// Local is a Store over a Mem alone, for tests and benchmarks: nothing is
// durable.
type Local struct{ mem *Mem }

var _ Store = (*Local)(nil)

// NewLocal makes an empty store.
func NewLocal(codec *api.Codec) *Local { return &Local{NewMem(codec, Limits{})} }

// Snapshot implements Reader.
func (l *Local) Snapshot(ctx context.Context, at At) (*Snapshot, error) {
	switch at.Level {
	case AtLeast:
		if err := l.mem.Wait(ctx, at.Revision); err != nil {
			return nil, err
		}
	case Exactly:
		return l.mem.SnapshotAt(at.Revision)
	}
	return l.mem.Snapshot(), nil
}

// Commit implements Writer.
func (l *Local) Commit(ctx context.Context, c Command) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return l.mem.Apply(c)
}

// Watch implements Watcher.
func (l *Local) Watch(_ context.Context, f Filter, from uint64) (*Watch, error) {
	return l.mem.Watch(f, from)
}
