package raftstore

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

var boltCuts = flag.Int("boltcuts", 5, "how often the power is cut under a replica with a bolt log")

// lifeVariable says in a child process where its replica's disk is.
const lifeVariable = "WHERRY_TEST_BOLT_LIFE"

// boltLife is what a child process has to know.
type boltLife struct {
	Seed         uint64
	Found        bool
	Acked, Tried map[string]int
}

// TestBoltPowerCut cuts the power of a replica with a bolt log on a disk with a
// real file system, at random moments, also while it starts. Each time the file
// system replays its journal, and the replica starts without help and has every
// write that was acknowledged.
func TestBoltPowerCut(t *testing.T) {
	if at := os.Getenv(lifeVariable); at != "" {
		liveOnBolt(t, at)
		return
	}
	disk := newLoopDisk(t)
	number := *seed
	if number == 0 {
		number = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", number)
	random := rand.New(rand.NewPCG(number, 4))
	p := &boltPower{t: t, disk: disk, life: boltLife{Found: true, Acked: map[string]int{}, Tried: map[string]int{}}}
	for round := range *boltCuts {
		p.life.Seed = number + uint64(round)
		acks, pause := 1+random.IntN(100), time.Duration(random.IntN(3000))*time.Microsecond
		if random.IntN(4) == 0 { // while it starts
			acks, pause = 0, time.Duration(random.IntN(60_000))*time.Microsecond
		}
		p.round = fmt.Sprintf("round %d, %d writes and %v", round, acks, pause)
		p.run(acks, pause)
	}
	p.round = "at the end"
	p.run(1, 0)
	t.Logf("%d cuts, %d while it started; %d writes acknowledged before a cut", *boltCuts, p.starting, p.writes)
}

// boltPower is what the lives of the replica must have, and how they were.
type boltPower struct {
	t     *testing.T
	disk  *loopDisk
	life  boltLife
	round string

	starting, writes int
}

// run is a life that ends with a power cut, some writes and a pause after its
// beginning.
func (p *boltPower) run(acks int, pause time.Duration) {
	p.t.Helper()
	child := startLife(p.t, p.disk, p.life)
	defer child.end()
	ready, count := false, 0
	hear := func(e lifeEvent) {
		switch e.what {
		case "have":
			p.life.Acked[e.key], p.life.Tried[e.key] = e.value, e.value
		case "try":
			p.life.Tried[e.key] = e.value
		case "ack":
			p.life.Acked[e.key] = e.value
			p.life.Found = false
			count++
		case "ready":
			ready = true
		}
	}
	const patience = 60 * time.Second
	deadline := time.After(patience)
	for begun := false; !begun || count < acks; {
		select {
		case e, ok := <-child.events:
			if !ok {
				p.t.Fatalf("%s: it ended: %v\n%s", p.round, child.end(), child.output.String())
			}
			begun = true
			hear(e)
		case <-deadline:
			_ = child.cmd.Process.Signal(syscall.SIGQUIT) // it tells what it waits for
			for range child.events {
			}
			p.t.Fatalf("%s: %d writes in %v: %v\n%s", p.round, count, patience, child.cmd.Wait(), child.output.String())
		}
	}
	for over := time.After(pause); over != nil; {
		select {
		case e, ok := <-child.events:
			if !ok {
				p.t.Fatalf("%s: it ended: %v\n%s", p.round, child.end(), child.output.String())
			}
			hear(e)
		case <-over:
			over = nil
		}
	}
	// From here on nothing counts as acknowledged; what is tried may be there.
	tried := maps.Clone(p.life.Tried)
	later := make(chan struct{})
	go func() {
		defer close(later)
		for e := range child.events {
			if e.what == "try" {
				tried[e.key] = e.value
			}
		}
	}()
	p.disk.save()
	err := child.end()
	<-later
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		p.t.Fatalf("%s: it ended: %v\n%s", p.round, err, child.output.String())
	}
	p.life.Tried = tried
	p.writes += count
	if !ready {
		p.starting++
	}
	p.disk.restore()
}

// lifeChild is a process in which the replica lives.
type lifeChild struct {
	events chan lifeEvent
	output bytes.Buffer
	cmd    *exec.Cmd
	stdin  io.Closer
	ended  bool
	err    error
}

// lifeEvent is what the child tells, one a line.
type lifeEvent struct {
	what, key string
	value     int
}

func startLife(t *testing.T, disk *loopDisk, life boltLife) *lifeChild {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &lifeChild{events: make(chan lifeEvent, 64)}
	c.cmd = exec.Command(os.Args[0], "-test.run=^TestBoltPowerCut$", "-test.timeout=5m")
	c.cmd.Env = append(os.Environ(), lifeVariable+"="+disk.mount)
	c.cmd.Stdout, c.cmd.Stderr = &c.output, &c.output
	c.cmd.ExtraFiles = []*os.File{write, disk.under}
	stdin, err := c.cmd.StdinPipe()
	if err == nil {
		err = c.cmd.Start()
	}
	_ = write.Close()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	go func() {
		defer close(c.events)
		defer read.Close()
		for lines := bufio.NewScanner(read); lines.Scan(); {
			var e lifeEvent
			if n, _ := fmt.Sscan(lines.Text(), &e.what, &e.key, &e.value); n == 3 {
				c.events <- e
			}
		}
	}()
	if err := json.NewEncoder(stdin).Encode(life); err != nil {
		t.Errorf("tell the child: %v", errors.Join(err, c.end()))
	}
	return c
}

// end kills the child if it lives still, and tells how it ended.
func (c *lifeChild) end() error {
	if !c.ended {
		c.ended = true
		_ = c.cmd.Process.Kill() // or it ended
		c.err = c.cmd.Wait()
	}
	return c.err
}

// liveOnBolt is the child: it tells what the replica has and does until it is
// killed.
func liveOnBolt(t *testing.T, at string) {
	events, under := os.NewFile(3, "events"), os.NewFile(4, "under")
	input := json.NewDecoder(os.Stdin)
	var life boltLife
	if err := input.Decode(&life); err != nil {
		t.Fatal(err)
	}
	go func() {
		// The test is gone, perhaps at a bad moment.
		if _, err := io.Copy(io.Discard, os.Stdin); err == nil {
			_ = freeze(under, fsThaw) // it is not frozen mostly
			os.Exit(1)
		}
	}()
	c := &crash{
		t: t, random: rand.New(rand.NewPCG(life.Seed, 5)), acked: life.Acked, tried: life.Tried,
		elsewhere: func(config *Config) {
			config.FS, config.Log, config.Dir = nil, LogBolt, filepath.Join(at, "data")
			config.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
			config.Timeouts.Request = 2 * time.Minute // more than the test's patience
			config.Limits.Mem.RingBytes = 4 << 20     // three snapshots must fit onto the disk
		},
		told: func(what, key string, value int) { _, _ = fmt.Fprintln(events, what, key, value) },
	}
	c.tell("begin", "-", 0)
	n, err := c.live(life.Found)
	t.Fatalf("it ended after %d writes: %v", n, err)
}
