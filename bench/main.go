// Bench measures Wherry and prints each figure beside its floor or a peer that
// was measured in the same run, and beside the goal that it has. `make bench`
// builds the programs and runs it; everything it starts it ends, and what it
// writes lies in one folder that it removes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	bin    string // the built programs
	dir    string // everything that is written lies below
	cell   time.Duration
	rounds int
	procs  *spawner
	out    *report
	beds   map[[2]int]*bed // by the numbers of controls and nodes
	// What of the store is measured.
	sizes, clients, members []int
	what                    []string
	objects                 int
	idleFor                 time.Duration
}

// part is one group of figures.
type part struct {
	name, about string
	run         func(*bench, context.Context) error
}

func parts() []part {
	return []part{
		{"pods", "pod created → Running, beside the kernel's and libcontainer's floor", (*bench).pods},
		{"store", "writes/s and reads/s of the bare store and of the API, beside etcd", (*bench).store},
		{"kubeapi", "the Kubernetes API: create, get, patch, list, fan-out to watchers, memory of a pod", (*bench).kubeAPI},
		{"objects", "memory, disk and start with many objects, beside etcd", (*bench).manyObjects},
		{"idle", "what an idle cluster writes to its disks", (*bench).idle},
		{"memory", "resident memory of the daemons, idle and with pods", (*bench).memory},
		{"failover", "leader killed → next successful write, beside etcd", (*bench).failover},
		{"start", "start of each daemon to serving", (*bench).start},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == memberCommand:
		err = member(ctx, os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == httpCommand:
		err = httpFloor(ctx, os.Args[2:])
	default:
		err = run(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	b := &bench{
		out: &report{to: os.Stdout}, beds: map[[2]int]*bed{},
		sizes: []int{256, 1024, 8192}, clients: []int{1, 16, 100, 1000}, members: []int{1, 3}, what: []string{"etcd", "store", "api"},
	}
	var only, write, parent string
	flag.StringVar(&only, "only", "", "parts to measure, by comma; default all")
	flag.StringVar(&b.bin, "bin", os.Getenv("WHERRY_BIN"), "folder of the built programs; default $WHERRY_BIN")
	flag.StringVar(&parent, "dir", "/var/tmp", "where the data lies: on the disk that is to be measured")
	flag.StringVar(&write, "write", "", "Markdown file whose figures are replaced by this run's")
	flag.DurationVar(&b.cell, "cell", 3*time.Second, "how long each cell of the store is measured")
	flag.IntVar(&b.rounds, "rounds", 10, "rounds of fail-over and of starts")
	flag.Func("sizes", "sizes of the store's values, by comma; default 256,1024,8192", numbers(&b.sizes))
	flag.Func("clients", "numbers of the store's clients, by comma; default 1,16,100,1000", numbers(&b.clients))
	flag.Func("members", "numbers of the store's members, by comma; default 1,3", numbers(&b.members))
	flag.Func("what", "what of etcd, store, api is measured, by comma; default all", func(s string) error {
		b.what = strings.Split(s, ",")
		return nil
	})
	flag.IntVar(&b.objects, "objects", 100_000, "how many objects the part of that name writes")
	flag.DurationVar(&b.idleFor, "idle-for", 10*time.Minute, "for how long an idle cluster is watched")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: bench [flags]    (make bench builds what it needs)")
		flag.PrintDefaults()
		for _, p := range parts() {
			fmt.Fprintf(os.Stderr, "part %-10s %s\n", p.name, p.about)
		}
	}
	flag.Parse()
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("%q is no flag; see -help", flag.Arg(0))
	case b.rounds < 1 || b.cell < 100*time.Millisecond:
		return errors.New("-rounds must be 1 or more, -cell 100ms or more")
	case os.Geteuid() != 0:
		return errors.New("pods, namespaces and cgroups are made: run it as root")
	case b.bin == "":
		return errors.New("-bin does not say where the programs are; `make bench` builds them and says so")
	}
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(parent, "wherry-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	b.procs = newSpawner()
	defer func() { err = errors.Join(err, b.procs.close()) }()
	defer func() { err = errors.Join(err, b.closeBeds(ctx)) }()
	if err := b.describeMachine(); err != nil {
		return err
	}
	for _, p := range chosen {
		// A part that fails does not keep the others from being measured.
		if e := p.run(b, ctx); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", p.name, e))
		}
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	if err == nil && write != "" {
		err = b.out.save(write)
	}
	return err
}

// numbers gives what reads a list of numbers.
func numbers(into *[]int) func(string) error {
	return func(s string) error {
		*into = nil
		for _, text := range strings.Split(s, ",") {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				return fmt.Errorf("%q is no number of 1 or more", text)
			}
			*into = append(*into, n)
		}
		return nil
	}
}

func choose(only string) ([]part, error) {
	all := parts()
	if only == "" { // but for what takes long and measures no speed
		return slices.DeleteFunc(all, func(p part) bool { return p.name == "idle" }), nil
	}
	var chosen []part
	for _, name := range strings.Split(only, ",") {
		i := slices.IndexFunc(all, func(p part) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no part %q; see -help", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}
