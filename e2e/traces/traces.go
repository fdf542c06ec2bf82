// Package traces tells what a testbed consists of on a machine, and afterwards
// what of it is still there. It knows testbeds from outside only, by what the
// kernel shows, and looks at nothing of others that run meanwhile.
package traces

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Traces is what was there of one testbed, and of the machine's own network.
type Traces struct {
	dir, name  string
	processes  map[string]string // the moment of its start by process id
	namespaces map[string]bool   // network namespaces, but for the machine's own
	cgroup     string            // the testbed's folder below wherry-testbed
	cgroups    int
	mounts     []string
	network    map[string]bool // links and nftables tables of the machine
}

// Before looks at the machine before the testbed of that name below dir is made.
func Before(dir, name string) (*Traces, error) {
	network, err := machineNetwork()
	return &Traces{dir: filepath.Join(dir, name), name: name, network: network}, err
}

// Look notes all that there is of the testbed now.
func (t *Traces) Look() error {
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, p := range pids {
		if argv := strings.Split(read(p+"/cmdline"), "\x00"); len(argv) > 2 && argv[0] == "wherry-testbed-host" && strings.HasPrefix(argv[1], t.name+"/") {
			if in := folder(read(p + "/cgroup")); strings.HasPrefix(in, t.name+"-") {
				t.cgroup = in
			}
		}
	}
	if t.cgroup == "" {
		return fmt.Errorf("no host of the testbed %s runs", t.name)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	others := map[string]bool{} // pinned on the machine, by another testbed
	for _, m := range mounts("/proc/self") {
		if !strings.HasPrefix(m.at, t.dir+"/") {
			others[m.root] = true
		}
	}
	t.processes, t.namespaces = map[string]string{}, map[string]bool{}
	for _, p := range pids {
		if folder(read(p+"/cgroup")) != t.cgroup {
			continue
		}
		t.processes[p] = started(p)
		if ns, err := os.Readlink(p + "/ns/net"); err == nil && ns != own {
			t.namespaces[ns] = true
		}
		for _, m := range mounts(p) {
			if strings.HasPrefix(m.root, "net:[") && m.root != own && !others[m.root] {
				t.namespaces[m.root] = true
			}
		}
	}
	t.mounts = below(t.dir)
	dirs, err := t.cgroupDirs()
	t.cgroups = len(dirs)
	return err
}

// String counts what Look found.
func (t *Traces) String() string {
	return fmt.Sprintf("%d processes, %d network namespaces, %d cgroups, %d mounts", len(t.processes), len(t.namespaces), t.cgroups, len(t.mounts))
}

// AwaitGone waits a moment for the kernel to tidy up. What is left then is the
// error.
func (t *Traces) AwaitGone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		left, err := t.Left()
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("left behind:\n  " + strings.Join(left, "\n  "))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Left lists what is there of what Look noted, and what carries the testbed's
// name.
func (t *Traces) Left() (left []string, err error) {
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, p := range pids {
		if was := t.processes[p]; was != "" && was == started(p) || t.cgroup != "" && folder(read(p+"/cgroup")) == t.cgroup {
			left = append(left, "process "+p+" "+strings.ReplaceAll(read(p+"/cmdline"), "\x00", " "))
		}
		if ns, err := os.Readlink(p + "/ns/net"); err == nil && t.namespaces[ns] {
			left = append(left, "network namespace "+ns+" of process "+p)
		}
	}
	for _, m := range mounts("/proc/self") {
		if t.namespaces[m.root] {
			left = append(left, "network namespace "+m.root+" at "+m.at)
		}
	}
	for _, m := range below(t.dir) {
		left = append(left, "mount at "+m)
	}
	dirs, err := t.cgroupDirs()
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		left = append(left, "cgroup "+d)
	}
	if _, err := os.Lstat(t.dir); !errors.Is(err, fs.ErrNotExist) {
		left = append(left, "folder "+t.dir)
	}
	network, err := machineNetwork()
	if err != nil {
		return nil, err
	}
	for thing := range network {
		if !t.network[thing] {
			left = append(left, thing+" on the machine itself")
		}
	}
	slices.Sort(left)
	return left, nil
}

func (t *Traces) cgroupDirs() (dirs []string, err error) {
	if t.cgroup == "" {
		return nil, nil
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // a cgroup may go while it is being looked at
		}
		if strings.Contains(path+"/", "/wherry-testbed/"+t.cgroup+"/") {
			dirs = append(dirs, path)
		}
		return nil
	})
	return dirs, err
}

// folder is the testbed's folder in the text of a process' cgroups.
func folder(cgroups string) string {
	_, rest, ok := strings.Cut(cgroups, "/wherry-testbed/")
	if !ok {
		return ""
	}
	end := strings.IndexAny(rest, "/\n")
	return rest[:max(end, 0)]
}

type mount struct{ root, at string }

func mounts(process string) (all []mount) {
	for line := range strings.Lines(read(process + "/mountinfo")) {
		if f := strings.Fields(line); len(f) > 4 {
			all = append(all, mount{f[3], f[4]})
		}
	}
	return all
}

// below lists the machine's mounts at dir or below it.
func below(dir string) (at []string) {
	for _, m := range mounts("/proc/self") {
		if strings.HasPrefix(m.at+"/", dir+"/") {
			at = append(at, m.at)
		}
	}
	return at
}

// started tells a process from a later one of the same id.
func started(process string) string {
	_, rest, _ := strings.Cut(read(process+"/stat"), ") ")
	if f := strings.Fields(rest); len(f) > 19 && f[0] != "Z" {
		return f[19]
	}
	return ""
}

// read returns "" for what is gone.
func read(file string) string {
	b, _ := os.ReadFile(file)
	return string(b)
}

// machineNetwork lists the links of this network namespace and, if there is a
// program to ask, its nftables tables.
func machineNetwork() (map[string]bool, error) {
	all := map[string]bool{}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		all["link "+l.Name()] = true
	}
	nft, err := exec.LookPath("nft")
	if err != nil {
		return all, nil //nolint:nilerr // not installed
	}
	out, err := exec.Command(nft, "list", "tables").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("nft list tables: %w: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		all["nftables "+strings.TrimSpace(line)] = true
	}
	return all, nil
}
