// Package raftstore replicates store.Mem by Raft. Every replica serves
// linearizable reads and watches; writes go to the leader from wherever they
// are made, many of them in one log entry.
//
// Replicas talk over gRPC (service wherry.v1.Raft) on connections that the
// caller makes and secures. A member's identity is its id, not its address.
package raftstore
