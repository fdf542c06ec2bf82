package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/daemon"
	"github.com/wherry-project/wherry/internal/store"
)

const (
	// currentWithin is how long a check of health may wait for a quorum.
	currentWithin = 2 * time.Second
	// serveWithin is how long the service manager waits for this member to
	// have the state of now. Without a quorum it is told all the same: the
	// other members may be waiting to be started.
	serveWithin = 10 * time.Second
)

// parts are what runs, in order; they stop in reverse.
func (d *controld) parts() []daemon.Part {
	parts := []daemon.Part{
		{Name: "gRPC", Run: d.serveGRPC},
		{Name: "raft", Run: d.keepRaft, Grace: 15 * time.Second},
		{Name: "HTTPS", Run: d.serveHTTPS, Grace: 15 * time.Second},
		{Name: "membership", Run: d.enter},
		daemon.Ready("certificate", d.keepCertificate),
		daemon.Ready("pinned keys", d.recheck),
		daemon.Ready("member.json", d.remember),
		daemon.Ready("data key", d.keepKey),
		daemon.Ready("relay of heartbeats", d.relay),
		daemon.Ready("events of the disk", d.tellDisk),
		daemon.WhileLeading("controllers", d.log, d.leading, d.leaderParts),
	}
	if d.cfg.DebugSocket != "" {
		parts = append(parts, daemon.Debug(d.cfg.DebugSocket, nil))
	}
	return parts
}

// keepRaft ends when the replica cannot go on, and closes it in its turn.
func (d *controld) keepRaft(ctx context.Context, ready func()) error {
	ready()
	var err error
	select {
	case <-ctx.Done():
	case <-d.raft.Failed():
		err = d.raft.Err()
	}
	return errors.Join(err, d.closeRaft(ctx))
}

func (d *controld) closeRaft(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), daemon.Grace)
	defer cancel()
	return d.raft.Close(ctx)
}

func (d *controld) serveHTTPS(ctx context.Context, ready func()) error {
	ready()
	return errors.Join(d.gateway.Run(ctx, d.http, d.keys.ServerConfig()), d.audit.Close())
}

// alive is the check of /livez.
func (d *controld) alive(context.Context) error { return d.raft.Err() }

// current is the check of /readyz: this member has the state of now.
func (d *controld) current(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, currentWithin)
	defer cancel()
	_, err := d.raft.Snapshot(ctx, store.At{Level: store.Linearizable})
	return err
}

// enter makes this member part of the Raft if it is not yet, and is ready when
// it has the state of now.
func (d *controld) enter(ctx context.Context, ready func()) error {
	again := 100 * time.Millisecond
	for !d.votes() {
		err := d.askEntry(ctx)
		if err == nil {
			break
		} else if cluster.Removed(err) {
			return d.removed(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(again):
			d.log.Warn("not let into the cluster yet", "err", err)
			again = min(2*again, 5*time.Second)
		}
	}
	within, cancel := context.WithTimeout(ctx, serveWithin)
	_, err := d.raft.Snapshot(within, store.At{Level: store.Linearizable})
	cancel()
	if err != nil && ctx.Err() == nil {
		d.log.Warn("serving without a majority of the members", "err", err)
	}
	ready()
	<-ctx.Done()
	return nil
}

// votes reports whether this replica knows itself as a member with a vote.
func (d *controld) votes() bool {
	for _, m := range d.raft.Members() {
		if m.ID == d.member.ID {
			return m.Voter
		}
	}
	return false
}

// leading is what daemon.WhileLeading asks.
func (d *controld) leading() (uint64, bool, <-chan struct{}) {
	now, changed := d.raft.Leadership()
	return now.Term, now.Ready, changed
}

// keepCertificate renews this member's certificate: when its time has come, and
// at once if it is not for the names and addresses of now.
func (d *controld) keepCertificate(ctx context.Context) error {
	failed := func(err error) { d.log.Warn("certificate not renewed", "err", err) }
	again := time.Second
	for !certified(d.keys, d.wanted.names, d.wanted.addrs, d.member.Settings) {
		cert, err := d.renew(ctx)
		if err == nil {
			if err = d.keys.Replace(cert); err == nil {
				d.log.Info("certificate renewed for other names or addresses")
				break
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(again):
			failed(fmt.Errorf("renew certificate: %w", err))
			again = min(2*again, time.Minute)
		}
	}
	return d.keys.KeepFresh(ctx, d.renew, failed)
}

// recheck ends at once what members and nodes have open here whose key is
// believed no more.
func (d *controld) recheck(ctx context.Context) error {
	return d.cluster.FollowIdentities(ctx, d.users.Recheck)
}

// renew gets a certificate from the CA, which every member can use.
func (d *controld) renew(ctx context.Context) ([]byte, error) {
	csr, err := d.keys.CSR(d.wanted.names, d.wanted.addrs)
	if err != nil {
		return nil, err
	}
	cert, _, err := d.cluster.RenewFor(ctx, d.keys.Self(), csr)
	return cert, err
}

// keyLooks is how often a member looks whether it has the key that the cluster
// seals with.
const keyLooks = 5 * time.Second

// keepKey asks the other members for the data key if this one lacks it: one
// from before sealing does, once.
func (d *controld) keepKey(ctx context.Context) error {
	for {
		if d.keyring.Lacks() {
			if err := d.askKey(ctx); err != nil && ctx.Err() == nil {
				d.log.Warn("the cluster's data key was not handed over; it is asked for again", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(keyLooks):
		}
	}
}

// askKey renews the certificate at another member, which hands the key on with
// it.
func (d *controld) askKey(ctx context.Context) error {
	csr, err := d.keys.CSR(d.wanted.names, d.wanted.addrs)
	if err != nil {
		return err
	}
	all := errors.New("no other member has it")
	for _, m := range d.raft.Members() {
		if m.ID == d.member.ID {
			continue
		}
		cert, err := d.renewAt(ctx, m.Address, csr)
		if err == nil {
			return d.keys.Replace(cert)
		}
		all = errors.Join(all, err)
	}
	return all
}
