// Package stats measures what cgroups and the machine use. It knows cgroup v1,
// hybrid and v2, and nothing of Kubernetes.
package stats

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
	"time"

	"github.com/wherry-project/wherry/internal/shim"
)

// Usage is what a cgroup, or the machine, uses.
type Usage struct {
	Time time.Time
	// CPU is the processors' time since the cgroup was made, in nanoseconds.
	CPU uint64
	// Memory is all that is charged, in bytes; WorkingSet leaves out what the
	// kernel would drop first.
	Memory, WorkingSet uint64
	// Available is what may still be taken, of the machine only.
	Available uint64
}

// Reader reads cgroups by their path below each hierarchy's mount.
type Reader struct{ cpu, memory hierarchy }

// hierarchy is where one controller's files are.
type hierarchy struct {
	mount string
	v2    bool
}

// Open finds the machine's cgroup hierarchies.
func Open() (*Reader, error) {
	all, err := shim.FindCgroups()
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	return newReader(all)
}

func newReader(all shim.Cgroups) (*Reader, error) {
	r := &Reader{}
	for _, h := range all.Hierarchies {
		// A v2 hierarchy counts processor time without any controller, but in a
		// hybrid set-up it is the v1 ones that are used.
		if slices.Contains(h.Controllers, "cpuacct") || h.V2 && r.cpu.mount == "" {
			r.cpu = hierarchy{h.Mount, h.V2}
		}
		if slices.Contains(h.Controllers, "memory") {
			r.memory = hierarchy{h.Mount, h.V2}
		}
	}
	if r.cpu.mount == "" || r.memory.mount == "" {
		return nil, errors.New("find cgroups: no hierarchy counts processor time and memory")
	}
	return r, nil
}

// Cgroup reads one cgroup. One that is gone is an error of kind fs.ErrNotExist.
func (r *Reader) Cgroup(path string) (Usage, error) {
	u := Usage{Time: time.Now()}
	dir := filepath.Join(r.cpu.mount, path)
	var err error
	if r.cpu.v2 {
		u.CPU, err = field(filepath.Join(dir, "cpu.stat"), "usage_usec")
		u.CPU *= 1000
	} else {
		u.CPU, err = number(filepath.Join(dir, "cpuacct.usage"))
	}
	if err != nil {
		return u, fmt.Errorf("read cgroup %s: %w", path, err)
	}
	dir = filepath.Join(r.memory.mount, path)
	total, inactive := "memory.usage_in_bytes", "total_inactive_file"
	if r.memory.v2 {
		total, inactive = "memory.current", "inactive_file"
	}
	if u.Memory, err = number(filepath.Join(dir, total)); err != nil {
		return u, fmt.Errorf("read cgroup %s: %w", path, err)
	}
	droppable, err := field(filepath.Join(dir, "memory.stat"), inactive)
	if err != nil {
		return u, fmt.Errorf("read cgroup %s: %w", path, err)
	}
	u.WorkingSet = u.Memory - min(droppable, u.Memory)
	return u, nil
}

// userHz is in what /proc/stat counts; it is the same on every Linux that Go
// runs on.
const userHz = 100

// Machine reads what the whole machine uses.
func Machine() (Usage, error) { return machine("/proc") }

func machine(proc string) (Usage, error) {
	u := Usage{Time: time.Now()}
	err := lines(filepath.Join(proc, "stat"), func(f []string) error {
		if f[0] != "cpu" || len(f) < 9 {
			return nil
		}
		for i, s := range f[1:9] { // user nice system idle iowait irq softirq steal
			n, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				return err
			}
			if i != 3 && i != 4 {
				u.CPU += n * uint64(time.Second/userHz)
			}
		}
		return nil
	})
	if err != nil {
		return u, fmt.Errorf("read the machine's processor time: %w", err)
	}
	info := map[string]uint64{}
	err = lines(filepath.Join(proc, "meminfo"), func(f []string) error {
		if len(f) < 2 {
			return nil
		}
		n, err := strconv.ParseUint(f[1], 10, 64)
		info[f[0]] = n << 10
		return err
	})
	if err != nil {
		return u, fmt.Errorf("read the machine's memory: %w", err)
	}
	u.Memory = info["MemTotal:"] - info["MemFree:"]
	u.Available = info["MemAvailable:"]
	u.WorkingSet = info["MemTotal:"] - info["MemAvailable:"]
	return u, nil
}

// lines hands on the fields of a file's lines.
func lines(name string, do func([]string) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	for in.Scan() {
		if fields := strings.Fields(in.Text()); len(fields) > 0 {
			if err := do(fields); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return in.Err()
}

func field(name, key string) (uint64, error) {
	var value uint64
	found := false
	err := lines(name, func(f []string) (err error) {
		if f[0] == key && len(f) == 2 {
			found = true
			value, err = strconv.ParseUint(f[1], 10, 64)
		}
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("%s has no %s", name, key)
	}
	return value, err
}

func number(name string) (uint64, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

// Gone reports whether an error is of a cgroup that is no longer there.
func Gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
