package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc"
)

const (
	objectBytes = 1024
	// fillers is how many clients write the objects.
	fillers = 100
)

// filled is what a store with many objects takes.
type filled struct {
	memory, started int64 // before and after a restart
	disk            int64
	start           time.Duration
}

// manyObjects measures one member with many objects.
func (b *bench) manyObjects(ctx context.Context) error {
	t := &table{
		title: fmt.Sprintf("One member with %d objects of %d B", b.objects, objectBytes),
		about: fmt.Sprintf("Written by %d clients. Memory: PSS %s after the last write, and after a restart. Disk: blocks of all files. Start: from the start of the process, stopped by SIGTERM before, to the first linearizable read.", fillers, settle),
		head:  []string{"", "memory", "after a restart", "disk", "start"},
	}
	show := func(name string, f filled) {
		t.add(name, mebi(f.memory), mebi(f.started), mebi(f.disk), millis(f.start))
	}
	var etcd, bare filled
	var err error
	if b.measures("etcd") {
		if etcd, err = b.fillTrio(ctx, b.etcd); err != nil {
			return fmt.Errorf("etcd: %w", err)
		}
		show("etcd", etcd)
	}
	if b.measures("store") {
		if bare, err = b.fillTrio(ctx, b.bareStore); err != nil {
			return fmt.Errorf("bare store: %w", err)
		}
		show("bare store", bare)
		if etcd.memory > 0 {
			ratio := func(a, b int64) float64 { return float64(a) / float64(b) }
			t.add("— store ÷ etcd", goal(2*bare.memory <= etcd.memory, fmt.Sprintf("%.2f× ≤ 0.5×", ratio(bare.memory, etcd.memory))),
				fmt.Sprintf("%.2f×", ratio(bare.started, etcd.started)), fmt.Sprintf("%.2f×", ratio(bare.disk, etcd.disk)),
				fmt.Sprintf("%.2f×", ratio(int64(bare.start), int64(etcd.start))))
		}
	}
	b.out.show(t)
	return nil
}

func (b *bench) fillTrio(ctx context.Context, open func(context.Context, int) (*trio, error)) (f filled, err error) {
	t, err := open(ctx, 1)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	if err := b.fill(ctx, t); err != nil {
		return f, err
	}
	if err := pause(ctx, settle); err != nil {
		return f, err
	}
	m := t.members[0]
	if f.memory, err = pss(m.proc.pid()); err != nil {
		return f, err
	}
	if f.disk, err = blocks(t.dir); err != nil {
		return f, err
	}
	if err := m.proc.stop(); err != nil {
		return f, err
	}
	start := time.Now()
	if err := m.up(t); err != nil {
		return f, err
	}
	for {
		if err = t.get(ctx, m.conn, 1); err == nil {
			break
		}
		if time.Since(start) > time.Minute {
			return f, fmt.Errorf("started again, it does not answer: %w", err)
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return f, err
		}
	}
	f.start = time.Since(start)
	if err := pause(ctx, settle); err != nil {
		return f, err
	}
	f.started, err = pss(m.proc.pid())
	return f, err
}

// fill writes the objects.
func (b *bench) fill(ctx context.Context, t *trio) error {
	conns, closeAll, err := t.connectLeader(ctx, fillers)
	if err != nil {
		return err
	}
	defer closeAll()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, fillers)
	for i := range fillers {
		go func() { failed <- b.fillPart(ctx, t, conns[i%len(conns)], i) }()
	}
	for range fillers {
		if e := <-failed; e != nil {
			err = errors.Join(err, e)
			cancel()
		}
	}
	return firstOf(err)
}

func (b *bench) fillPart(ctx context.Context, t *trio, conn *grpc.ClientConn, part int) error {
	for key := part; key < b.objects; key += fillers {
		value := make([]byte, objectBytes)
		for i := range value {
			value[i] = byte(key*31 + i*i) // not what compresses to nothing
		}
		if err := t.put(ctx, conn, uint64(key), value); err != nil {
			return err
		}
	}
	return nil
}

// blocks is what the files below a folder take on the disk.
func blocks(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !e.IsDir() {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum, err
}
