package main

import (
	"context"

	"github.com/wherry-project/wherry/internal/daemon"
)

// leaderParts are what runs on the leader only, afresh for each term.
func (d *controld) leaderParts(uint64) []daemon.Part {
	return []daemon.Part{{Name: "nodes' grace", Run: func(ctx context.Context, ready func()) error {
		d.nodes.Lead()
		ready()
		<-ctx.Done()
		return nil
	}}}
}
