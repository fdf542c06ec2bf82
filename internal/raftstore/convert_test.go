package raftstore

import (
	"testing"

	"github.com/hashicorp/raft"
)

// TestAppendIsCutIntoMessages puts requests together again from their messages.
func TestAppendIsCutIntoMessages(t *testing.T) {
	for _, test := range []struct{ entries, size, messages int }{
		{0, 0, 1}, {1, 100, 1}, {64, 1000, 1}, {1, 3 << 20, 1}, {3, messageBytes, 3}, {64, 100 << 10, 7},
	} {
		req := &raft.AppendEntriesRequest{Term: 7, PrevLogEntry: 40, PrevLogTerm: 6, LeaderCommitIndex: 1000}
		for i := range test.entries {
			req.Entries = append(req.Entries, &raft.Log{Index: uint64(41 + i), Term: 7, Data: make([]byte, test.size)})
		}
		messages := appendOut(recipient{}, req)
		if len(messages) != test.messages {
			t.Errorf("%+v: %d messages", test, len(messages))
		}
		got := appendIn(messages[0])
		for i, m := range messages {
			if m.GetMore() != (i < len(messages)-1) {
				t.Errorf("%+v: message %d says more=%v", test, i, m.GetMore())
			}
			if i > 0 {
				got.Entries = entriesIn(got.Entries, m)
			}
		}
		if len(got.Entries) != test.entries || got.Term != 7 || got.PrevLogEntry != 40 || got.PrevLogTerm != 6 {
			t.Errorf("%+v: %+v", test, got)
		}
		for i, l := range got.Entries {
			if l.Index != uint64(41+i) || len(l.Data) != test.size {
				t.Errorf("%+v: entry %d is %d with %d bytes", test, i, l.Index, len(l.Data))
			}
		}
		// The follower's log is the leader's only as far as the request says.
		if want := uint64(40 + test.entries); got.LeaderCommitIndex != want {
			t.Errorf("%+v: commit index %d, want %d", test, got.LeaderCommitIndex, want)
		}
	}
}
