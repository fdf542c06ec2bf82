package main

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// relay tells the leader what this member has heard of the nodes, on one
// connection for as long as one member leads.
func (d *controld) relay(ctx context.Context) (err error) {
	var conn *grpc.ClientConn
	var address string
	defer func() {
		if conn != nil {
			err = errors.Join(err, conn.Close())
		}
	}()
	return d.nodes.KeepRelaying(ctx, func(ctx context.Context, r *wherryv1.RelayRequest) error {
		now, _ := d.raft.Leadership()
		if now.Address == "" {
			return errors.New("no leader is known")
		}
		if conn == nil || address != now.Address {
			fresh, err := dialer{d.keys.ClientConfig(nil)}.connect(now.Address)
			if err != nil {
				return err
			}
			if conn != nil {
				err = conn.Close()
			}
			conn, address = fresh, now.Address
			if err != nil {
				return err
			}
		}
		_, err := wherryv1.NewNodesClient(conn).Relay(ctx, r)
		return err
	})
}
