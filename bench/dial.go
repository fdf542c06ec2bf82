package main

import (
	"context"
	"net"

	"github.com/wherry-project/wherry/internal/testbed"
)

// fromClient connects from within a testbed's client host.
func fromClient(t *testbed.Testbed) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		return t.Dial(ctx, testbed.Client, "tcp", address)
	}
}
