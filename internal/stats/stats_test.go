package stats

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/wherry-project/wherry/internal/shim"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCgroups(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "v2", "p"), map[string]string{
		"cpu.stat": "usage_usec 1500\nuser_usec 1\n", "memory.current": "4096\n", "memory.stat": "anon 1\ninactive_file 1024\n",
	})
	write(t, filepath.Join(root, "cpu", "p"), map[string]string{"cpuacct.usage": "1500000\n"})
	write(t, filepath.Join(root, "memory", "p"), map[string]string{
		"memory.usage_in_bytes": "4096\n", "memory.stat": "inactive_file 7\ntotal_inactive_file 1024\n",
	})
	v2 := shim.Hierarchy{Mount: filepath.Join(root, "v2"), V2: true}
	cpu := shim.Hierarchy{Mount: filepath.Join(root, "cpu"), Controllers: []string{"cpu", "cpuacct"}}
	memory := shim.Hierarchy{Mount: filepath.Join(root, "memory"), Controllers: []string{"memory"}}
	full := v2
	full.Controllers = []string{"cpu", "memory"}
	for name, list := range map[string][]shim.Hierarchy{"v2": {full}, "v1": {cpu, memory}, "hybrid": {v2, cpu, memory}, "hybrid, otherwise": {memory, cpu, v2}} {
		r, err := newReader(shim.Cgroups{Hierarchies: list})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		u, err := r.Cgroup("/p")
		if err != nil || u.CPU != 1500000 || u.Memory != 4096 || u.WorkingSet != 3072 || u.Time.IsZero() {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
		if _, err := r.Cgroup("/q"); !Gone(err) {
			t.Errorf("%s: a cgroup that is gone: %v", name, err)
		}
	}
	if _, err := newReader(shim.Cgroups{Hierarchies: []shim.Hierarchy{cpu}}); err == nil {
		t.Error("without memory")
	}
	write(t, filepath.Join(root, "v2", "odd"), map[string]string{"cpu.stat": "user_usec 1\n"})
	r, err := newReader(shim.Cgroups{Hierarchies: []shim.Hierarchy{full}})
	if err != nil {
		t.Fatal(err)
	}
	if u, err := r.Cgroup("/odd"); err == nil {
		t.Errorf("out of nothing came %+v", u)
	}
}

func TestMachine(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"stat":    "cpu  1 2 3 1000 500 4 5 6 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nintr 1\n",
		"meminfo": "MemTotal:       1000 kB\nMemFree:         200 kB\nMemAvailable:    600 kB\n",
	})
	u, err := machine(dir)
	if err != nil || u.CPU != 21*10_000_000 || u.Memory != 800<<10 || u.Available != 600<<10 || u.WorkingSet != 400<<10 {
		t.Errorf("%+v, %v", u, err)
	}
	// The real one says something.
	if u, err := Machine(); err != nil || u.CPU == 0 || u.Memory == 0 {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := machine(filepath.Join(dir, "none")); err == nil {
		t.Error("read nothing")
	}
}
