// Package store is the contract of the cluster's state: one revision counter,
// compare-and-set commands over several keys, frozen snapshots, and watches
// out of a ring of recent revisions. Mem is the deterministic state that
// raftstore replicates; nothing here asks the clock or draws random numbers.
package store

import (
	"context"
	"fmt"

	"github.com/wherry-project/wherry/internal/api"
)

// Store is what the API server and the controllers need of the state.
type Store interface {
	Reader
	Writer
	Watcher
}

// Level says how fresh a snapshot must be.
type Level int

// The levels of freshness.
const (
	// Linearizable sees every write acknowledged before the call, on any
	// replica.
	Linearizable Level = iota
	// AtLeast sees At.Revision or something newer; it waits for it.
	AtLeast
	// Any is what this replica has now.
	Any
	// Exactly is the state at At.Revision; an error of kind apierr Expired if
	// it is no longer kept.
	Exactly
)

// At asks for a snapshot.
type At struct {
	Level    Level
	Revision uint64
}

// Reader gives frozen views.
type Reader interface {
	// Snapshot waits until ctx ends for the freshness asked. A replica that
	// cannot reach a quorum answers a linearizable read with an error of kind
	// apierr Unavailable or Timeout, never with old data.
	Snapshot(ctx context.Context, at At) (*Snapshot, error)
}

// Writer changes the state.
type Writer interface {
	// Commit does all of the command or nothing. It returns when the command
	// is durable and applied here, with its revision. A condition that does
	// not hold gives a *CompareError. When ctx ends first the outcome is
	// unknown, as the error says.
	Commit(ctx context.Context, c Command) (revision uint64, err error)
}

// Watcher streams changes.
type Watcher interface {
	// Watch starts after revision from. An error of kind apierr Expired says
	// that from is older than the ring.
	Watch(ctx context.Context, f Filter, from uint64) (*Watch, error)
}

// Filter narrows a watch; empty fields match everything.
type Filter struct {
	Resource  string
	Namespace string
	Name      string
}

// Op is what a command does to one key.
type Op int

// The operations.
const (
	// Put writes Record.
	Put Op = iota + 1
	// Delete removes the key.
	Delete
	// Check only compares.
	Check
)

// Cond is what must hold of a key's current record.
type Cond struct {
	// Absent: there must be none. Else there must be one for Delete and
	// Check, and for Put when Revision or UID is set.
	Absent bool
	// Revision, when not 0, must be the current one.
	Revision uint64
	// UID, when not empty, must be the current one.
	UID string
}

// Change is one step of a command. A command has each key once.
type Change struct {
	Op  Op
	If  Cond
	Key api.Key
	// Record is for Put; its Revision is ignored.
	Record *api.Record
}

// Command is a set of changes that are made together, under one revision.
type Command struct {
	Changes []Change
}

// CompareError says which condition did not hold.
type CompareError struct {
	Key api.Key
	// Current is the record's revision, 0 if there is none.
	Current uint64
}

// Error implements error.
func (e *CompareError) Error() string {
	if e.Current == 0 {
		return fmt.Sprintf("condition on %s does not hold: it does not exist", e.Key)
	}
	return fmt.Sprintf("condition on %s does not hold: it is at revision %d", e.Key, e.Current)
}

// Event is one change, as watchers of the store see it.
type Event struct {
	Revision uint64
	// New is nil for a delete, Old for a create. For a delete, Old has the
	// revision it was written at.
	New, Old *api.Record
}

// Key names what changed.
func (e Event) Key() api.Key {
	if e.New != nil {
		return e.New.Key
	}
	return e.Old.Key
}
