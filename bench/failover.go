package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// failover measures how long nobody can write after the leader was killed.
func (b *bench) failover(ctx context.Context) error {
	t := &table{
		title: "Leader killed → next successful write",
		about: fmt.Sprintf("Three members, %d rounds. From SIGKILL on a client begins a write every %s, at one of the two others in turn, until one has succeeded. The killed one is started again before the next round.", b.rounds, tryEvery),
		head:  []string{"", "p50", "max", "goal"},
	}
	took, err := b.controlFailover(ctx)
	if err == nil {
		t.add("controld, a ConfigMap through the API", took.p50(), took.max(),
			goal(took.at(50) <= 500*time.Millisecond, "p50 ≤ 500 ms")+", "+goal(took.at(100) <= time.Second, "max ≤ 1 s"))
	}
	peer, e := b.etcdFailover(ctx)
	if e == nil {
		t.add("etcd with its defaults", peer.p50(), peer.max(), "")
	}
	b.out.show(t)
	return errors.Join(err, e)
}

func (b *bench) controlFailover(ctx context.Context) (took samples, err error) {
	d, err := b.bed(ctx, 3, 2)
	if err != nil {
		return nil, err
	}
	for round := range b.rounds {
		leader, err := d.leader(ctx)
		if err != nil {
			return nil, err
		}
		var conns []*grpc.ClientConn
		for name, c := range d.conns {
			if name != leader {
				conns = append(conns, c)
			}
		}
		var tries atomic.Int64
		one, cancel := context.WithTimeout(ctx, 30*time.Second)
		start := time.Now()
		err = d.Kill(one, leader, "")
		var done time.Time
		if err == nil {
			done, err = firstSuccess(one, len(conns), func(ctx context.Context, i int) error {
				return writeConfigMap(ctx, conns[i], fmt.Sprintf("failover%d-%d", round, tries.Add(1)), 256, 0)
			})
		}
		cancel()
		if err != nil {
			return nil, fmt.Errorf("round %d: %w", round, err)
		}
		took = append(took, done.Sub(start))
		if err := d.Start(ctx, leader, ""); err != nil {
			return nil, err
		}
		if err := pause(ctx, time.Second); err != nil { // the next round begins in quiet
			return nil, err
		}
	}
	return took, nil
}

func (b *bench) etcdFailover(ctx context.Context) (took samples, err error) {
	t, err := b.etcd(ctx, 3)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	for round := range b.rounds {
		leader, err := t.leader(ctx)
		if err != nil {
			return nil, err
		}
		one, cancel := context.WithTimeout(ctx, 30*time.Second)
		start := time.Now()
		err = t.members[leader].proc.kill()
		var done time.Time
		if err == nil {
			done, err = t.firstWrite(one, leader)
		}
		cancel()
		if err != nil {
			return nil, fmt.Errorf("etcd, round %d: %w", round, err)
		}
		took = append(took, done.Sub(start))
		if err := t.members[leader].up(t); err != nil {
			return nil, err
		}
		if err := t.caughtUp(ctx, leader); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// caughtUp waits until a member that was started again takes writes.
func (t *trio) caughtUp(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_, err := firstSuccess(ctx, 1, func(ctx context.Context, _ int) error {
		return t.put(ctx, t.members[i].conn, 1, make([]byte, 256))
	})
	if err != nil {
		return err
	}
	return pause(ctx, time.Second)
}
