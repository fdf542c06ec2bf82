// Package raftlog keeps a Raft log and its few stable values on disk: records
// in preallocated segments, one sync for each batch. It knows nothing of Raft
// but that an entry has an index, a term and a type.
//
// Everything that was synced is there after a power cut. What was being written
// when the power went is cut off at the last whole record. Damage to what was
// synced is never cut off: it is an error, ErrDamaged.
package raftlog
