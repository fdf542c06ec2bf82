package main

import (
	"context"
	"net/netip"
	"time"

	"github.com/wherry-project/wherry/internal/controllers"
	"github.com/wherry-project/wherry/internal/daemon"
	"github.com/wherry-project/wherry/internal/events"
	"github.com/wherry-project/wherry/internal/pki"
)

// leaderParts are what runs on the leader only, afresh for each term.
func (d *controld) leaderParts(uint64) []daemon.Part {
	grace := daemon.Part{Name: "nodes' grace", Run: func(ctx context.Context, ready func()) error {
		d.nodes.Lead()
		ready()
		<-ctx.Done()
		return nil
	}}
	parts := []daemon.Part{grace, daemon.Ready("sealing", d.cluster.KeepSealed), daemon.Ready("removed members", d.cluster.KeepMembers), daemon.Ready("token keys", d.keepTokenKeys)}
	if d.cfg.BackupDir != "" {
		e := events.New(d.api.As(d.self()), d.api.Kinds(), "backup", d.member.Name, d.log)
		parts = append(parts, daemon.Ready("events of backup", e.Run), d.backupPart(e))
	}
	return append(parts, controllers.All(controllers.Config{
		Source: d.raft, API: d.api, LastSeen: d.nodes.LastSeen, NodeGrace: d.cfg.NodeGrace.std(),
		Controls: d.serving, CA: string(pki.EncodeCertificate(d.keys.CA().Raw)), Authority: d.cluster.Authority, Tokens: d.tokens, Host: d.member.Name, Log: d.log,
	})...)
}

// tokenKeyLooks is how often it is looked for keys that have served their time.
const tokenKeyLooks = 24 * time.Hour

// keepTokenKeys sees to it that the cluster has a key to sign tokens with, and
// that old ones are forgotten.
func (d *controld) keepTokenKeys(ctx context.Context) error {
	const soon = 100 * time.Millisecond
	for again := soon; ; {
		wait := tokenKeyLooks
		err := d.tokens.KeepKeys(ctx, d.raft)
		if err != nil {
			wait, again = again, min(2*again, 10*time.Second)
		} else {
			again = soon
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if err != nil {
			d.log.Warn("the keys for service account tokens could not be looked after yet", "err", err)
		}
	}
}

// serving gives where the members that answer now serve HTTPS: the port is the
// same on all.
func (d *controld) serving(ctx context.Context) []netip.AddrPort {
	var out []netip.AddrPort
	for _, address := range d.cluster.Answering(ctx) {
		if a, err := netip.ParseAddrPort(address); err == nil {
			out = append(out, netip.AddrPortFrom(a.Addr(), d.cfg.HTTPSPort))
		}
	}
	return out
}
