package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// startCase is one row: host is as startTimes takes it.
type startCase struct {
	controls, nodes int
	host, name      string
	goal            time.Duration
}

// start measures how long the daemons take to serve.
func (b *bench) start(ctx context.Context) error {
	t := &table{
		title: "Start of a daemon → serving",
		about: fmt.Sprintf("From the start of the process until it tells the service manager READY: controld then answers linearizable reads, noded runs the pods of its checkpoint. %d rounds; stopped by SIGTERM before each.", b.rounds),
		head:  []string{"", "p50", "max", "goal"},
	}
	for _, program := range []string{"controld", "noded"} {
		s, err := b.versionTimes(ctx, program)
		if err != nil {
			return err
		}
		t.add("floor: `"+program+" --version`", s.p50(), s.max(), "")
	}
	cases := []startCase{
		{1, 1, "c1", "controld, the only one", 500 * time.Millisecond},
		{3, 2, "", "controld, the leader of three, stopped and started", 500 * time.Millisecond},
		{3, 2, "follower", "controld, a follower of three", 500 * time.Millisecond},
		{1, 1, "n1", "noded, one controld", 200 * time.Millisecond},
		{3, 2, "n1", "noded, three controlds", 200 * time.Millisecond},
	}
	if b.beds[writtenBed] != nil {
		cases = append(cases, startCase{writtenBed[0], writtenBed[1], "follower", "controld, a follower of three, after all the writes above", 500 * time.Millisecond})
	}
	for _, c := range cases {
		d, err := b.bed(ctx, c.controls, c.nodes)
		if err != nil {
			return err
		}
		s, err := b.startTimes(ctx, d, c.host)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		t.add(c.name, s.p50(), s.max(), goal(s.at(50) <= c.goal, "≤ "+c.goal.String()))
	}
	b.out.show(t)
	return nil
}

// versionTimes is what starting the process alone takes.
func (b *bench) versionTimes(ctx context.Context, program string) (samples, error) {
	var s samples
	for range b.rounds {
		start := time.Now()
		if err := exec.CommandContext(ctx, filepath.Join(b.bin, program), "--version").Run(); err != nil {
			return nil, fmt.Errorf("%s --version: %w", program, err)
		}
		s = append(s, time.Since(start))
	}
	return s, nil
}

// startTimes stops and starts the daemon of a host; "" means whoever leads,
// "follower" a control that does not.
func (b *bench) startTimes(ctx context.Context, d *bed, host string) (samples, error) {
	var s samples
	for range b.rounds {
		chosen := host
		if host == "" || host == "follower" {
			leader, err := d.leader(ctx)
			if err != nil {
				return nil, err
			}
			for _, m := range d.controls {
				if (m.Name == leader) == (host == "") {
					chosen = m.Name
				}
			}
		}
		if err := d.Stop(ctx, chosen, ""); err != nil {
			return nil, err
		}
		start := time.Now()
		if err := d.Start(ctx, chosen, ""); err != nil {
			return nil, err
		}
		s = append(s, time.Since(start))
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return s, nil
}
