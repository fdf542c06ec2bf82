package main

import (
	"context"
	"net"

	"github.com/wherry-project/wherry/internal/testbed"
)

// from connects from within a testbed's host.
func from(t *testbed.Testbed, host string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		return t.Dial(ctx, host, "tcp", address)
	}
}
