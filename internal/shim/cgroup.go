package shim

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Cgroups are the machine's cgroup hierarchies as one: a path names the same
// directory in each of them. cgroup v2 is one hierarchy, v1 several, hybrid
// several and an empty v2 one.
type Cgroups struct {
	Hierarchies []Hierarchy `json:"hierarchies"`
}

// Hierarchy is one mounted cgroup file system.
type Hierarchy struct {
	Mount string `json:"mount"`
	V2    bool   `json:"v2,omitempty"`
	// Controllers are those of a v1 hierarchy; of v2 those at its root.
	Controllers []string `json:"controllers,omitempty"`
}

// FindCgroups returns the hierarchies that are mounted at or below
// /sys/fs/cgroup.
func FindCgroups() (Cgroups, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return Cgroups{}, err
	}
	defer f.Close()
	var g Cgroups
	seen := map[string]bool{}
	for in := bufio.NewScanner(f); in.Scan(); {
		// 36 35 98:0 /root /mount options … - type source superoptions
		left, right, ok := strings.Cut(in.Text(), " - ")
		a, b := strings.Fields(left), strings.Fields(right)
		if !ok || len(a) < 5 || len(b) < 3 || seen[a[2]] {
			continue
		}
		h := Hierarchy{Mount: a[4]}
		if h.Mount != "/sys/fs/cgroup" && !strings.HasPrefix(h.Mount, "/sys/fs/cgroup/") {
			continue
		}
		switch b[0] {
		case "cgroup":
			h.Controllers = strings.Split(b[2], ",")
		case "cgroup2":
			h.V2 = true
			b, err := os.ReadFile(filepath.Join(h.Mount, "cgroup.controllers"))
			if err != nil {
				return Cgroups{}, err
			}
			h.Controllers = strings.Fields(string(b))
		default:
			continue
		}
		seen[a[2]] = true
		g.Hierarchies = append(g.Hierarchies, h)
	}
	if len(g.Hierarchies) == 0 {
		return Cgroups{}, errors.New("no cgroup file system is mounted at /sys/fs/cgroup")
	}
	return g, nil
}

// Unified reports whether v2 is all there is.
func (g Cgroups) Unified() bool { return len(g.Hierarchies) == 1 && g.Hierarchies[0].V2 }

func (h Hierarchy) has(controller string) bool { return slices.Contains(h.Controllers, controller) }

// Create makes the cgroup at path in every hierarchy. In a v2 one its parents
// hand their controllers down, as far as they may; the root's are taken as they
// are found if path begins in a delegated part.
func (g Cgroups) Create(path string) error {
	for _, h := range g.Hierarchies {
		dir := filepath.Join(h.Mount, path)
		if !h.V2 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			continue
		}
		at := h.Mount
		for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
			for _, c := range h.Controllers {
				// One by one, since one that cannot be handed down
				// must not keep the others; Set says what is missing.
				_ = writeCgroup(at, "cgroup.subtree_control", "+"+c)
			}
			at = filepath.Join(at, name)
			if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	return nil
}

// Limits are what Set sets; zero fields stay as they are, negative ones lift
// the limit.
type Limits struct {
	CPUShares uint64
	CPUQuota  int64 // microseconds of each CPUPeriod
	CPUPeriod uint64
	Memory    int64
	Pids      int64
	CPUs      string
	Mems      string
	Unified   map[string]string // of v2
}

// Set writes limits of the cgroup at path.
func (g Cgroups) Set(path string, l Limits) error {
	period := l.CPUPeriod
	if period == 0 && l.CPUQuota != 0 {
		period = 100_000
	}
	for _, h := range g.Hierarchies {
		dir := filepath.Join(h.Mount, path)
		var err error
		set := func(controller, file, value string) {
			if err == nil && h.has(controller) {
				err = writeCgroup(dir, file, value)
			}
		}
		if h.V2 {
			if l.CPUShares != 0 {
				set("cpu", "cpu.weight", strconv.FormatUint(Weight(l.CPUShares), 10))
			}
			if l.CPUQuota != 0 {
				set("cpu", "cpu.max", maxed(l.CPUQuota)+" "+strconv.FormatUint(period, 10))
			}
			if l.Memory != 0 {
				set("memory", "memory.max", maxed(l.Memory))
			}
			for file, value := range l.Unified {
				controller, _, _ := strings.Cut(file, ".")
				if err == nil && (controller == "cgroup" || h.has(controller)) {
					err = writeCgroup(dir, file, value)
				}
			}
		} else {
			if l.CPUShares != 0 {
				set("cpu", "cpu.shares", strconv.FormatUint(l.CPUShares, 10))
			}
			if l.CPUQuota != 0 {
				set("cpu", "cpu.cfs_period_us", strconv.FormatUint(period, 10))
				set("cpu", "cpu.cfs_quota_us", strconv.FormatInt(max(l.CPUQuota, -1), 10))
			}
			if l.Memory != 0 {
				set("memory", "memory.limit_in_bytes", strconv.FormatInt(max(l.Memory, -1), 10))
			}
			if h.has("cpuset") && (l.CPUs != "" || l.Mems != "") {
				err = inheritCpuset(h.Mount, dir)
			}
		}
		if l.Pids != 0 {
			set("pids", "pids.max", maxed(l.Pids))
		}
		if l.CPUs != "" {
			set("cpuset", "cpuset.cpus", l.CPUs)
		}
		if l.Mems != "" {
			set("cpuset", "cpuset.mems", l.Mems)
		}
		if err != nil {
			return fmt.Errorf("limit cgroup %s: %w", path, err)
		}
	}
	return nil
}

// Weight converts v1's shares to v2's weight: 2 to 1, 1024 to 100, 262144 to
// 10000, in the curve that container runtimes agree on.
func Weight(shares uint64) uint64 {
	shares = min(max(shares, 2), 262144)
	if shares == 1024 {
		return 100
	}
	// Piecewise linear through the three points keeps the order, which is
	// what a weight is for.
	if shares < 1024 {
		return 1 + (shares-2)*99/1022
	}
	return 100 + (shares-1024)*9900/261120
}

func maxed(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// inheritCpuset fills the cpusets from the mount down to dir that are empty: v1
// lets nobody into an empty one.
func inheritCpuset(mount, dir string) error {
	if dir == mount {
		return nil
	}
	if err := inheritCpuset(mount, filepath.Dir(dir)); err != nil {
		return err
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(b)) != "" {
			continue
		}
		if b, err = os.ReadFile(filepath.Join(filepath.Dir(dir), file)); err != nil {
			return err
		}
		if err := writeCgroup(dir, file, strings.TrimSpace(string(b))); err != nil {
			return err
		}
	}
	return nil
}

func writeCgroup(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// Home is the directory of the cgroup at path by which services are told apart:
// that of v2, or of v1's systemd hierarchy where there is no v2. The other
// hierarchies are left alone for processes that need no limits, since to move one
// costs a grace period of the kernel; a process can be started in a v2 one.
func (g Cgroups) Home(path string) (dir string, v2 bool) {
	for _, h := range g.Hierarchies {
		if h.V2 {
			return filepath.Join(h.Mount, path), true
		}
		if h.has("name=systemd") {
			dir = filepath.Join(h.Mount, path)
		}
	}
	return dir, false
}

// Join puts a process into the cgroup at path, in its Home.
func (g Cgroups) Join(path string, pid int) error {
	dir, _ := g.Home(path)
	if dir == "" {
		return nil
	}
	if err := writeCgroup(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
		return fmt.Errorf("join cgroup %s: %w", path, err)
	}
	return nil
}

// Wake makes the kernel ready for moves of processes between cgroups. The first
// one after a while waits for a grace period, some 10 ms; the next ones do not.
// Who knows that a move is coming calls Wake in the meantime. It moves this
// process to where it is.
func (g Cgroups) Wake() {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		// 0::/path is v2's; 5:name=systemd:/path v1's.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || strings.HasPrefix(parts[2], "/..") {
			continue
		}
		for _, h := range g.Hierarchies {
			if h.V2 == (parts[0] == "0") && (h.V2 || h.has(parts[1])) {
				_ = writeCgroup(filepath.Join(h.Mount, parts[2]), "cgroup.procs", strconv.Itoa(os.Getpid()))
				return
			}
		}
	}
}

// Exists reports whether the cgroup at path is there in any hierarchy.
func (g Cgroups) Exists(path string) bool {
	for _, h := range g.Hierarchies {
		if _, err := os.Stat(filepath.Join(h.Mount, path)); err == nil {
			return true
		}
	}
	return false
}

// Pids returns all processes in the cgroup at path and below it.
func (g Cgroups) Pids(path string) ([]int, error) {
	found := map[int]bool{}
	for _, h := range g.Hierarchies {
		err := eachDir(filepath.Join(h.Mount, path), func(dir string) error {
			b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if err != nil {
				if gone(err) {
					return nil
				}
				return err
			}
			for _, f := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
					found[pid] = true
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	pids := make([]int, 0, len(found))
	for pid := range found {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids, nil
}

// Kill kills all processes in the cgroup at path and below it and waits until
// they are gone, at most for the time given.
func (g Cgroups) Kill(path string, within time.Duration) error {
	deadline := time.Now().Add(within)
	for {
		pids, err := g.Pids(path)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := killAndWait(pid, path, time.Until(deadline)); err != nil {
				return fmt.Errorf("kill cgroup %s: %w", path, err)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill cgroup %s: processes %v are still there after %v", path, pids, within)
		}
	}
}

// killAndWait kills one process of the cgroup at path and waits for its end. The
// handle holds the pid: if it is of the cgroup now, it is the one that was found.
func killAndWait(pid int, path string, within time.Duration) error {
	fd, err := pidfdOpen(pid)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	} else if err != nil {
		return err
	}
	defer syscall.Close(fd)
	member, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil || !strings.Contains(string(member), strings.TrimSuffix(path, "/")) {
		return nil
	}
	if err := pidfdKill(fd); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	ended, err := pollIn(fd, within)
	if err == nil && !ended {
		err = fmt.Errorf("process %d does not die", pid)
	}
	return err
}

// Remove removes the cgroup at path and those below it, which must be empty.
func (g Cgroups) Remove(path string) error {
	if strings.Trim(path, "/") == "" {
		return errors.New("refusing to remove the root cgroup")
	}
	for _, h := range g.Hierarchies {
		var dirs []string
		err := eachDir(filepath.Join(h.Mount, path), func(dir string) error {
			dirs = append(dirs, dir)
			return nil
		})
		if err != nil {
			return err
		}
		for _, dir := range slices.Backward(dirs) {
			if err := removeCgroup(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeCgroup tries a few times: for a moment after its last process is gone
// the kernel says that a cgroup is busy, and tells nobody when it no longer is.
func removeCgroup(dir string) error {
	for wait := time.Millisecond; ; wait *= 2 {
		err := syscall.Rmdir(dir)
		if err == nil || err == syscall.ENOENT {
			return nil
		}
		if err != syscall.EBUSY || wait > 256*time.Millisecond {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		<-time.After(wait)
	}
}

// OOMKills returns how many processes in the cgroup at path the kernel killed
// for want of memory.
func (g Cgroups) OOMKills(path string) int {
	for _, h := range g.Hierarchies {
		if !h.has("memory") {
			continue
		}
		file := "memory.oom_control"
		if h.V2 {
			file = "memory.events"
		}
		b, err := os.ReadFile(filepath.Join(h.Mount, path, file))
		if err != nil {
			return 0
		}
		for line := range strings.Lines(string(b)) {
			if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
				kills, _ := strconv.Atoi(n)
				return kills
			}
		}
	}
	return 0
}

// eachDir visits dir and the cgroups below it, parents first. What is not there
// is not visited.
func eachDir(dir string, visit func(string) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	if err := visit(dir); err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := eachDir(filepath.Join(dir, e.Name()), visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}
