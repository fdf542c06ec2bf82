package node

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/stats"
)

// The limits below which a node is under pressure, as the kubelet's defaults.
const (
	leastMemory = 100 << 20
	leastDisk   = 10 // per cent
	leastInodes = 5  // per cent
	leastPIDs   = 10 // per cent
	// pressedFor is how long a condition stays after the pressure has gone.
	pressedFor = 5 * time.Minute
)

// measured is what is left on the node.
type measured struct {
	memory             uint64 // bytes
	disk, inodes, pids int    // per cent
	memoryErr, diskErr error
	pidsErr            error
}

// measure looks at the machine, and at the file system of dir.
func measure(dir string) measured {
	var m measured
	var usage stats.Usage
	if usage, m.memoryErr = stats.Machine(); m.memoryErr == nil {
		m.memory = usage.Available
	}
	var st unix.Statfs_t
	if m.diskErr = unix.Statfs(dir, &st); m.diskErr == nil {
		m.disk, m.inodes = percent(st.Bavail, st.Blocks), percent(st.Ffree, st.Files)
	}
	m.pids, m.pidsErr = freePIDs()
	return m
}

// percent of a whole; a file system that does not count has all.
func percent(part, whole uint64) int {
	if whole == 0 {
		return 100
	}
	return int(part * 100 / whole) //nolint:gosec // at most 100
}

// freePIDs is the share of process ids that are free: /proc/loadavg counts
// threads, see proc(5).
func freePIDs() (int, error) {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	limit, err := strconv.ParseUint(line("/proc/sys/kernel/pid_max"), 10, 64)
	if err != nil || limit == 0 {
		return 0, fmt.Errorf("read pid_max: %w", err)
	}
	fields := strings.Fields(string(load))
	if len(fields) < 4 {
		return 0, fmt.Errorf("/proc/loadavg is %q", load)
	}
	_, all, _ := strings.Cut(fields[3], "/")
	threads, err := strconv.ParseUint(all, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/loadavg: %w", err)
	}
	return 100 - percent(min(threads, limit), limit), nil
}

// pressures are the conditions that follow. Since notes when each was last
// seen.
func pressures(m measured, since map[corev1.NodeConditionType]time.Time, now time.Time) []corev1.NodeCondition {
	one := func(t corev1.NodeConditionType, pressed bool, err error, bad, good, badText, goodText string) corev1.NodeCondition {
		switch {
		case err != nil:
			return corev1.NodeCondition{Type: t, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", Message: err.Error()}
		case pressed:
			since[t] = now
		}
		if last, ok := since[t]; ok && now.Sub(last) < pressedFor {
			return corev1.NodeCondition{Type: t, Status: corev1.ConditionTrue, Reason: bad, Message: badText}
		}
		return corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: good, Message: goodText}
	}
	return []corev1.NodeCondition{
		one(corev1.NodeMemoryPressure, m.memory < leastMemory, m.memoryErr, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory",
			"kubelet has insufficient memory available", "kubelet has sufficient memory available"),
		one(corev1.NodeDiskPressure, m.disk < leastDisk || m.inodes < leastInodes, m.diskErr, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure",
			"kubelet has disk pressure", "kubelet has no disk pressure"),
		one(corev1.NodePIDPressure, m.pids < leastPIDs, m.pidsErr, "KubeletHasInsufficientPID", "KubeletHasSufficientPID",
			"kubelet has insufficient PID available", "kubelet has sufficient PID available"),
	}
}
