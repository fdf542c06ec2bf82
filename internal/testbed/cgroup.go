package testbed

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is one mounted tree of cgroups: the only one with cgroup v2, one
// of several with v1, either with both.
type hierarchy struct {
	Mount string `json:"mount"`
	V2    bool   `json:"v2"`
	// Options are those to mount a v1 hierarchy again with.
	Options string `json:"options"`
	// Delegating is v2's nsdelegate: who is in a cgroup namespace cannot place
	// a process that comes from outside of it.
	Delegating bool `json:"delegating"`
}

func (h hierarchy) cpuset() bool {
	for o := range strings.SplitSeq(h.Options, ",") {
		if o == "cpuset" {
			return !h.V2
		}
	}
	return false
}

func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []hierarchy
	seen := map[string]bool{} // device: the same tree mounted twice counts once
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		head, tail, ok := strings.Cut(lines.Text(), " - ")
		where, what := strings.Fields(head), strings.Fields(tail)
		if !ok || len(where) < 5 || len(what) < 3 || (what[0] != "cgroup" && what[0] != "cgroup2") || seen[where[2]] {
			continue
		}
		seen[where[2]] = true
		h := hierarchy{Mount: where[4], V2: what[0] == "cgroup2", Delegating: strings.Contains(what[2], "nsdelegate")}
		if !h.V2 {
			h.Options = v1Options(what[2])
		}
		out = append(out, h)
	}
	if len(out) == 0 && lines.Err() == nil {
		return nil, errors.New("no cgroup hierarchy is mounted below /sys/fs/cgroup")
	}
	return out, lines.Err()
}

// v1Options keeps of a mount's options those that name the hierarchy.
func v1Options(super string) string {
	var keep []string
	for o := range strings.SplitSeq(super, ",") {
		switch {
		case o == "rw", o == "ro", o == "xattr", o == "clone_children", o == "noprefix", strings.HasPrefix(o, "release_agent="):
		case strings.HasPrefix(o, "name="):
			keep = append(keep, "none", o)
		default:
			keep = append(keep, o)
		}
	}
	return strings.Join(keep, ",")
}

// cgroupBase is the testbed's subtree in every hierarchy. It follows from the
// directory, so that Down finds it without any other record.
func (t *Testbed) cgroupBase() string {
	sum := sha256.Sum256([]byte(t.dir))
	return fmt.Sprintf("wherry-testbed/%s-%x", t.name, sum[:4])
}

func (t *Testbed) hostCgroup(host string) string {
	return t.cgroupBase() + "/" + host
}

// makeCgroup makes rel below base in every hierarchy. With handDown the
// controllers of v2 are switched on on the way to it, as far as they go; no
// process may then be in base, or in what is between.
func makeCgroup(all []hierarchy, base, rel string, handDown bool) error {
	for _, h := range all {
		at := filepath.Join(h.Mount, base)
		for part := range strings.SplitSeq(rel, "/") {
			parent := at
			at = filepath.Join(at, part)
			if h.V2 && handDown {
				delegate(parent)
			}
			if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make cgroup: %w", err)
			}
			if h.cpuset() {
				if err := inherit(parent, at, "cpuset.cpus", "cpuset.mems"); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// delegate switches every controller that the cgroup has on for its children.
// One that cannot be had is left out: a host then has no limits of that kind.
func delegate(dir string) {
	have, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	for c := range strings.FieldsSeq(string(have)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// inherit fills settings without which a v1 cpuset takes no process.
func inherit(parent, child string, files ...string) error {
	for _, f := range files {
		if own, err := os.ReadFile(filepath.Join(child, f)); err != nil || strings.TrimSpace(string(own)) != "" {
			continue
		}
		v, err := os.ReadFile(filepath.Join(parent, f))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(child, f), v, 0); err != nil {
			return fmt.Errorf("inherit %s: %w", f, err)
		}
	}
	return nil
}

// joinThread moves the calling thread into rel of each v1 hierarchy, so that
// what it forks is born there, and returns the v2 cgroup to be born in (nil
// where there is no v2). The thread must be one that is thrown away.
func joinThread(all []hierarchy, rel string) (*os.File, error) {
	var v2 *os.File
	for _, h := range all {
		dir := filepath.Join(h.Mount, rel)
		if h.V2 {
			f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			v2 = f
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "tasks"), []byte("0"), 0); err != nil {
			if v2 != nil {
				v2.Close()
			}
			return nil, fmt.Errorf("enter cgroup: %w", err)
		}
	}
	return v2, nil
}

// members returns the processes in rel and below it that are in a PID
// namespace other than ours. (A thread of a command that is just entering a
// host is in the host's cgroup too, but its process is not the host's.)
func members(all []hierarchy, rel string) []int {
	mine, _ := os.Readlink("/proc/self/ns/pid")
	found := map[int]bool{}
	for _, h := range all {
		_ = filepath.WalkDir(filepath.Join(h.Mount, rel), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return nil
			}
			b, _ := os.ReadFile(path)
			for f := range strings.FieldsSeq(string(b)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
					found[pid] = true
				}
			}
			return nil
		})
	}
	var out []int
	for pid := range found {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
		if err == nil && ns != mine {
			out = append(out, pid)
		}
	}
	return out
}

// killMembers ends every process of rel and waits until none is left.
func killMembers(ctx context.Context, all []hierarchy, rel string) error {
	thaw(all, rel)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		pids := members(all, rel)
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v do not end: %w", pids, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// thaw lets frozen processes run, because in v1 they cannot die before.
func thaw(all []hierarchy, rel string) {
	for _, h := range all {
		_ = filepath.WalkDir(filepath.Join(h.Mount, rel), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "freezer.state" {
				_ = os.WriteFile(path, []byte("THAWED"), 0) // what stays frozen is told of as not ending
			}
			return nil
		})
	}
}

// removeCgroup removes rel and all below it from every hierarchy. It waits for
// processes that are on their way out.
func removeCgroup(ctx context.Context, all []hierarchy, rel string) error {
	for _, h := range all {
		for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
			err := removeTree(filepath.Join(h.Mount, rel))
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("remove cgroup: %w", err)
			case <-time.After(wait):
			}
		}
	}
	return nil
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
