package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// traces is what a testbed could leave on a machine.
type traces map[string][]string

// look lists it: processes of the programs in bin, mounts, network namespaces,
// links, cgroups, nftables tables.
func look(bin string) (traces, error) {
	t := traces{}
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	spaces := map[string]bool{}
	for _, p := range pids {
		if exe, err := os.Readlink(p + "/exe"); err == nil && strings.HasPrefix(exe, bin+"/") {
			t["process"] = append(t["process"], p+" "+exe)
		}
		if ns, err := os.Readlink(p + "/ns/net"); err == nil {
			spaces[ns] = true
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 {
			t["mount"] = append(t["mount"], f[3]+" at "+f[4])
			if strings.HasPrefix(f[3], "net:[") {
				spaces[f[3]] = true
			}
		}
	}
	for ns := range spaces {
		t["network namespace"] = append(t["network namespace"], ns)
	}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		t["link"] = append(t["link"], l.Name())
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			t["cgroup"] = append(t["cgroup"], path)
		}
		return nil // a cgroup may go while it is being looked at
	})
	if err != nil {
		return nil, err
	}
	if nft, err := exec.LookPath("nft"); err == nil {
		out, err := exec.Command(nft, "list", "tables").CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("nft list tables: %w: %s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			t["nftables table"] = append(t["nftables table"], strings.TrimSpace(line))
		}
	}
	return t, nil
}

// compare waits a moment for the kernel to tidy up, and says what is there now
// that was not there before.
func (t traces) compare(ctx context.Context, bin string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for {
		now, err := look(bin)
		if err != nil {
			return "", err
		}
		left := t.left(now)
		if len(left) == 0 {
			return "nothing", nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("left behind, or made by others meanwhile:\n  %s", strings.Join(left, "\n  "))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (t traces) left(now traces) (left []string) {
	for kind, things := range now {
		for _, thing := range things {
			if !slices.Contains(t[kind], thing) {
				left = append(left, kind+" "+thing)
			}
		}
	}
	slices.Sort(left)
	return left
}
