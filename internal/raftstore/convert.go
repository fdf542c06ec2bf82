package raftstore

import (
	"time"

	"github.com/hashicorp/raft"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// Between the library's requests and the messages on the wire.

func headerOut(h raft.RPCHeader) *wherryv1.RaftHeader {
	return &wherryv1.RaftHeader{Protocol: uint32(h.ProtocolVersion), Id: string(h.ID), Address: string(h.Addr)}
}

// recipient is whom a request is for.
type recipient struct{ member, cluster string }

func (t recipient) headerOut(h raft.RPCHeader) *wherryv1.RaftHeader {
	m := headerOut(h)
	m.To, m.Cluster = t.member, t.cluster
	return m
}

func headerIn(h *wherryv1.RaftHeader) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(h.GetProtocol()), ID: []byte(h.GetId()), Addr: []byte(h.GetAddress())}
}

// messageBytes is where an append request is cut into several messages. One
// entry stays well below gRPC's limit of 4 MiB.
const messageBytes = 1 << 20

// appendOut cuts a request into messages. The commit index never goes past the
// request's own last entry: only up to there does a success say that the
// follower's log is the leader's.
func appendOut(to recipient, r *raft.AppendEntriesRequest) []*wherryv1.AppendRequest {
	first := &wherryv1.AppendRequest{
		Header: to.headerOut(r.RPCHeader), Term: r.Term,
		PrevIndex: r.PrevLogEntry, PrevTerm: r.PrevLogTerm,
		CommitIndex: min(r.LeaderCommitIndex, r.PrevLogEntry+uint64(len(r.Entries))),
	}
	out, last, size := []*wherryv1.AppendRequest{first}, first, 0
	for _, l := range r.Entries {
		if size > 0 && size+len(l.Data) > messageBytes {
			last.More = true
			last, size = &wherryv1.AppendRequest{}, 0
			out = append(out, last)
		}
		size += len(l.Data) + logCost
		e := &wherryv1.RaftEntry{Index: l.Index, Term: l.Term, Type: uint32(l.Type), Data: l.Data}
		if !l.AppendedAt.IsZero() {
			e.AppendedAt = l.AppendedAt.UnixNano()
		}
		last.Entries = append(last.Entries, e)
	}
	return out
}

func appendIn(m *wherryv1.AppendRequest) *raft.AppendEntriesRequest {
	r := &raft.AppendEntriesRequest{
		RPCHeader: headerIn(m.GetHeader()), Term: m.GetTerm(),
		PrevLogEntry: m.GetPrevIndex(), PrevLogTerm: m.GetPrevTerm(),
		LeaderCommitIndex: m.GetCommitIndex(),
	}
	r.Entries = entriesIn(nil, m)
	return r
}

func entriesIn(to []*raft.Log, m *wherryv1.AppendRequest) []*raft.Log {
	for _, e := range m.GetEntries() {
		l := &raft.Log{Index: e.GetIndex(), Term: e.GetTerm(), Type: raft.LogType(e.GetType()), Data: e.GetData()}
		if e.GetAppendedAt() != 0 {
			l.AppendedAt = time.Unix(0, e.GetAppendedAt())
		}
		to = append(to, l)
	}
	return to
}

// isHeartbeat recognises what the library sends only to be heard.
func isHeartbeat(r *raft.AppendEntriesRequest) bool {
	return r.Term != 0 && r.PrevLogEntry == 0 && r.PrevLogTerm == 0 && len(r.Entries) == 0 && r.LeaderCommitIndex == 0
}

func appendResponseOut(r *raft.AppendEntriesResponse) *wherryv1.AppendResponse {
	return &wherryv1.AppendResponse{
		Header: headerOut(r.RPCHeader), Term: r.Term, LastIndex: r.LastLog,
		Success: r.Success, NoRetryBackoff: r.NoRetryBackoff,
	}
}

func appendResponseIn(m *wherryv1.AppendResponse, r *raft.AppendEntriesResponse) {
	*r = raft.AppendEntriesResponse{
		RPCHeader: headerIn(m.GetHeader()), Term: m.GetTerm(), LastLog: m.GetLastIndex(),
		Success: m.GetSuccess(), NoRetryBackoff: m.GetNoRetryBackoff(),
	}
}

func snapshotOut(to recipient, r *raft.InstallSnapshotRequest) *wherryv1.SnapshotHeader {
	return &wherryv1.SnapshotHeader{
		Header: to.headerOut(r.RPCHeader), Version: uint32(r.SnapshotVersion), Term: r.Term,
		LastIndex: r.LastLogIndex, LastTerm: r.LastLogTerm,
		Configuration: r.Configuration, ConfigurationIndex: r.ConfigurationIndex, Size: r.Size,
	}
}

func snapshotIn(m *wherryv1.SnapshotHeader) *raft.InstallSnapshotRequest {
	return &raft.InstallSnapshotRequest{
		RPCHeader: headerIn(m.GetHeader()), SnapshotVersion: raft.SnapshotVersion(m.GetVersion()),
		Term: m.GetTerm(), Leader: []byte(m.GetHeader().GetAddress()),
		LastLogIndex: m.GetLastIndex(), LastLogTerm: m.GetLastTerm(),
		Configuration: m.GetConfiguration(), ConfigurationIndex: m.GetConfigurationIndex(), Size: m.GetSize(),
	}
}
