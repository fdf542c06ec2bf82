package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/testbed"
)

const (
	memoryPods = 30
	// settle is how long a daemon is left alone before it counts as idle.
	settle = 15 * time.Second
)

// resident is the memory of our programs on a host.
type resident struct {
	controld, noded int64
	shims           int64
	count           int // of shims
}

// memory measures one controld and one noded: the pages that several copies of
// a program share would flatter a larger testbed.
func (b *bench) memory(ctx context.Context) (err error) {
	// Its own copies of the programs: pages that it shared with other testbeds
	// would count in part only.
	bin, err := copyPrograms(b.bin, b.dir)
	if err != nil {
		return err
	}
	d, err := b.newBed(ctx, 1, 1, bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close(ctx)) }()
	if err := pause(ctx, settle); err != nil {
		return err
	}
	before, err := d.cpuTime(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	after, err := d.cpuTime(ctx)
	if err != nil {
		return err
	}
	idle, err := d.resident(ctx)
	if err != nil {
		return err
	}
	full, err := b.memoryWithPods(ctx, d)
	if err != nil {
		return err
	}
	peer, err := b.etcdMemory(ctx)
	if err != nil {
		return err
	}
	t := &table{
		title: "Resident memory",
		about: fmt.Sprintf("PSS of smaps_rollup, our programs only: one controld and one noded, %s after their start, and %s after %d pods run.", 2*settle, settle, memoryPods),
		head:  []string{"", "idle", fmt.Sprint(memoryPods, " pods"), "per pod", "goal"},
	}
	per := func(a, b int64) string { return fmt.Sprintf("%.2f MiB", float64(b-a)/memoryPods/(1<<20)) }
	t.add("controld", mebi(idle.controld), mebi(full.controld), per(idle.controld, full.controld), "")
	t.add("noded", mebi(idle.noded), mebi(full.noded), per(idle.noded, full.noded), "")
	t.add(fmt.Sprintf("podshim × %d", full.count), mebi(idle.shims), mebi(full.shims), per(idle.shims, full.shims), "")
	both := idle.controld + idle.noded
	ours := full.noded + full.shims - idle.noded - idle.shims
	t.add("both daemons", mebi(both), mebi(full.controld+full.noded), "", goal(both <= 80<<20, "≤ 80 MiB idle"))
	t.add("a pod on its node: noded's growth and the shim", "", "", per(0, ours), goal(ours/memoryPods <= 2<<20, "≤ 2 MiB"))
	t.add("beside it: one etcd of three, empty", mebi(peer), "", "", "")
	share := func(r testbed.Role) float64 { return 100 * (after[r] - before[r]).Seconds() / settle.Seconds() }
	t.note("Meanwhile, idle, controld took %.2f %% of a core and noded %.2f %%.", share(testbed.RoleControl), share(testbed.RoleNode))
	b.out.show(t)
	return nil
}

// copyPrograms copies the programs into a folder of their own.
func copyPrograms(bin, parent string) (string, error) {
	dir, err := os.MkdirTemp(parent, "bin-")
	if err != nil {
		return "", err
	}
	for _, p := range []string{"controld", "noded", "wherry", "podshim", "podrun"} {
		b, err := os.ReadFile(filepath.Join(bin, p))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, p), b, 0o755); err != nil {
			return "", err
		}
	}
	return dir, os.Chmod(dir, 0o755)
}

func (b *bench) memoryWithPods(ctx context.Context, d *bed) (r resident, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	_, err = d.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: podNamespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return r, err
	}
	w, err := d.watchPods(ctx)
	if err != nil {
		return r, err
	}
	defer w.stop()
	if _, _, err := w.startMany(ctx, memoryPods, "n1"); err != nil {
		return r, err
	}
	if err := pause(ctx, settle); err != nil {
		return r, err
	}
	if r, err = d.resident(ctx); err == nil && r.count != memoryPods {
		err = fmt.Errorf("%d shims run for %d pods", r.count, memoryPods)
	}
	return r, errors.Join(err, w.clear(ctx))
}

// etcdMemory is that of the leader of three empty ones.
func (b *bench) etcdMemory(ctx context.Context) (_ int64, err error) {
	t, err := b.etcd(ctx, 3)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	if err := pause(ctx, settle/3); err != nil {
		return 0, err
	}
	leader, err := t.leader(ctx)
	if err != nil {
		return 0, err
	}
	return pss(t.members[leader].proc.pid())
}

// resident measures the hosts c1 and n1.
func (d *bed) resident(ctx context.Context) (r resident, err error) {
	control, err := d.Pid(ctx, "c1")
	if err != nil {
		return r, err
	}
	node, err := d.Pid(ctx, "n1")
	if err != nil {
		return r, err
	}
	if r.controld, err = pss(control); err != nil {
		return r, err
	}
	if r.noded, err = pss(node); err != nil {
		return r, err
	}
	shims, err := companions(node, "podshim")
	if err != nil {
		return r, err
	}
	for _, pid := range shims {
		one, err := pss(pid)
		if err != nil {
			return r, err
		}
		r.shims += one
		r.count++
	}
	return r, nil
}

// pss is a process's memory; pages shared by n processes count as one nth.
func pss(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no Pss", pid)
}

// companions are the processes of a name in a process's PID namespace.
func companions(pid int, name string) ([]int, error) {
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, err
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, dir := range all {
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil || strings.TrimSpace(string(comm)) != name {
			continue // or it has ended meanwhile
		}
		if ns, err := os.Readlink(filepath.Join(dir, "ns", "pid")); err == nil && ns == own {
			n, err := strconv.Atoi(filepath.Base(dir))
			if err != nil {
				return nil, err
			}
			found = append(found, n)
		}
	}
	return found, nil
}
