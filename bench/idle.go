package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	idlePods = 30
	// idleGoal is how much a replica of an idle cluster may write in a day.
	idleGoal = 50 << 20
	// calm is how long the cluster is left alone before it counts as idle.
	calm = time.Minute
)

// idle measures what the replicas of an idle cluster write: all that the kernel
// counts for the processes, whatever the file.
func (b *bench) idle(ctx context.Context) (err error) {
	d, err := b.newBed(ctx, 3, 2, b.bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close(ctx)) }()
	if err := d.runPods(ctx, idlePods); err != nil {
		return err
	}
	if err := pause(ctx, min(calm, b.idleFor)); err != nil {
		return err
	}
	before, err := d.written(ctx)
	if err != nil {
		return err
	}
	revision, err := d.revision(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := pause(ctx, b.idleFor); err != nil {
		return err
	}
	after, err := d.written(ctx)
	if err != nil {
		return err
	}
	now, err := d.revision(ctx)
	if err != nil {
		return err
	}
	took := time.Since(start)
	t := &table{
		title: "What an idle cluster writes",
		about: fmt.Sprintf("3 controld, 2 noded, %d pods that do nothing, %s after the last one runs. What the kernel counts as written for each process (write_bytes of /proc/PID/io: whole pages of all files), over %s, scaled to a day.", idlePods, calm, b.idleFor),
		head:  []string{"", "since its start", "written", "a day", "goal"},
	}
	for _, m := range d.controls {
		n := after[m.Name] - before[m.Name]
		day := float64(n) * (24 * time.Hour).Seconds() / took.Seconds()
		t.add("controld on "+m.Name, mebi(before[m.Name]), fmt.Sprintf("%.1f KiB", float64(n)/1024), fmt.Sprintf("%.1f MB", day/1e6), goal(day <= idleGoal, "≤ 50 MB"))
	}
	t.note("Meanwhile the cluster's revision went up by %d.", now-revision)
	b.out.show(t)
	return nil
}

// runPods makes pods and waits until they run. They stay.
func (d *bed) runPods(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	_, err := d.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: podNamespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	w, err := d.watchPods(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	_, _, err = w.startMany(ctx, n, "n1")
	return err
}

// written is how many bytes each control's controld has written.
func (d *bed) written(ctx context.Context) (map[string]int64, error) {
	out := map[string]int64{}
	for _, m := range d.controls {
		host, err := d.Pid(ctx, m.Name)
		if err != nil {
			return nil, err
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", host))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "write_bytes:"); ok {
				if out[m.Name], err = strconv.ParseInt(strings.TrimSpace(rest), 10, 64); err != nil {
					return nil, err
				}
			}
		}
	}
	return out, nil
}

// revision is the cluster's.
func (d *bed) revision(ctx context.Context) (int64, error) {
	list, err := d.kube.CoreV1().Namespaces().List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(list.ResourceVersion, 10, 64)
}
