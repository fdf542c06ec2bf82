package raftstore

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// InstallSnapshot implements wherryv1.RaftServer. The library reads the data
// where it does everything else too: while it waits for more, this replica gives
// no vote. So it does not wait for a leader that has gone silent.
func (v *service) InstallSnapshot(stream grpc.ClientStreamingServer[wherryv1.InstallSnapshotRequest, wherryv1.InstallSnapshotResponse]) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	if m.GetHeader() == nil {
		return apierr.ToGRPC(apierr.BadRequest("a snapshot begins with its header"))
	}
	in := &incoming{}
	data, write := io.Pipe()
	defer data.Close() // whoever still reads or writes is told
	go in.receive(stream, write)
	watched := make(chan struct{})
	defer close(watched)
	go v.watch(in, watched, data)
	r, err := handed[*raft.InstallSnapshotResponse](v, stream.Context(), m.GetHeader().GetHeader(), snapshotIn(m.GetHeader()), data)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&wherryv1.InstallSnapshotResponse{Header: headerOut(r.RPCHeader), Term: r.Term, Success: r.Success})
}

// incoming is a snapshot's data on its way here.
type incoming struct {
	since atomic.Pointer[time.Time] // since when a message is waited for, or nil
}

// receive passes the data on until its end, or until nobody wants it.
func (in *incoming) receive(stream grpc.ClientStreamingServer[wherryv1.InstallSnapshotRequest, wherryv1.InstallSnapshotResponse], to *io.PipeWriter) {
	for {
		now := time.Now()
		in.since.Store(&now)
		m, err := stream.Recv()
		in.since.Store(nil)
		if err != nil { // also the end
			_ = to.CloseWithError(err) // never fails
			return
		}
		if _, err := to.Write(m.GetData()); err != nil {
			return
		}
	}
}

// waits is for how long nothing has come.
func (in *incoming) waits() time.Duration {
	if since := in.since.Load(); since != nil {
		return time.Since(*since)
	}
	return 0
}

// watch ends the waiting for a leader that is gone: nothing has come for a while,
// and no heartbeat either. One that lives and sends none for very long is not
// waited for either.
func (v *service) watch(in *incoming, until <-chan struct{}, data *io.PipeReader) {
	own := v.s.transport
	look := time.NewTicker(own.callTimeout / 4)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-until:
			return
		}
		wait := in.waits()
		if wait > own.bulkTimeout || wait > own.callTimeout && time.Since(v.s.raft.LastContact()) > own.callTimeout {
			_ = data.CloseWithError(fmt.Errorf("the snapshot: nothing came for %s: %w", wait.Round(time.Millisecond), errSilent)) // never fails
			return
		}
	}
}
