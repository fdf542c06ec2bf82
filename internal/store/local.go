package store

import (
	"context"

	"github.com/wherry-project/wherry/internal/api"
)

// Local is a Store over a Mem alone, for tests and benchmarks: nothing is
// durable.
type Local struct {
	mem    *Mem
	limits Limits
	sealer Sealer
}

var _ Store = (*Local)(nil)

// NewLocal makes an empty store with default limits.
func NewLocal(codec *api.Codec) *Local { return NewLocalLimits(codec, Limits{}) }

// NewLocalLimits makes an empty store.
func NewLocalLimits(codec *api.Codec, limits Limits) *Local {
	return &Local{mem: NewMem(codec, limits), limits: limits}
}

// NewLocalSealed makes an empty store with default limits whose records are
// sealed.
func NewLocalSealed(codec *api.Codec, s Sealer) *Local {
	l := NewLocal(codec)
	l.sealer = s
	l.mem.Use(s)
	return l
}

// Mem is the store's state.
func (l *Local) Mem() *Mem { return l.mem }

// Snapshot implements Reader.
func (l *Local) Snapshot(ctx context.Context, at At) (*Snapshot, error) {
	if at.Level == AtLeast || at.Level == Exactly {
		if err := l.mem.Wait(ctx, at.Revision); err != nil {
			return nil, err
		}
	}
	if at.Level == Exactly {
		return l.mem.SnapshotAt(at.Revision)
	}
	return l.mem.Snapshot(), nil
}

// Commit implements Writer. The command goes the way of the log, encoded and
// decoded, so that the store keeps nothing of the caller's.
func (l *Local) Commit(ctx context.Context, c Command) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	c, err := c.Sealed(l.sealer)
	if err != nil {
		return 0, err
	}
	b, err := c.Encode(l.limits)
	if err != nil {
		return 0, err
	}
	if c, err = l.mem.DecodeCommand(b); err != nil {
		return 0, err
	}
	return l.mem.Apply(c)
}

// Watch implements Watcher.
func (l *Local) Watch(_ context.Context, f Filter, from uint64) (*Watch, error) {
	return l.mem.Watch(f, from)
}
