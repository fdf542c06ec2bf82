package kubelethttp

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/stats"
)

// Summary is what the node and its pods use, in the form of the kubelet's
// /stats/summary as far as it goes: processor time and memory.
type Summary struct {
	Node NodeStats  `json:"node"`
	Pods []PodStats `json:"pods"`
}

// NodeStats are the machine's.
type NodeStats struct {
	NodeName string `json:"nodeName"`
	CPU      CPU    `json:"cpu"`
	Memory   Memory `json:"memory"`
}

// PodStats are one pod's.
type PodStats struct {
	PodRef     PodRef           `json:"podRef"`
	StartTime  metav1.Time      `json:"startTime"`
	CPU        CPU              `json:"cpu"`
	Memory     Memory           `json:"memory"`
	Containers []ContainerStats `json:"containers"`
}

// PodRef names a pod.
type PodRef struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	UID       string `json:"uid"`
}

// ContainerStats are one running container's.
type ContainerStats struct {
	Name      string      `json:"name"`
	StartTime metav1.Time `json:"startTime"`
	CPU       CPU         `json:"cpu"`
	Memory    Memory      `json:"memory"`
}

// CPU is processor time since the start.
type CPU struct {
	Time                 metav1.Time `json:"time"`
	UsageCoreNanoSeconds uint64      `json:"usageCoreNanoSeconds"`
}

// Memory is in bytes.
type Memory struct {
	Time            metav1.Time `json:"time"`
	AvailableBytes  *uint64     `json:"availableBytes,omitempty"`
	UsageBytes      uint64      `json:"usageBytes"`
	WorkingSetBytes uint64      `json:"workingSetBytes"`
}

// Sandboxes lists what runs.
type Sandboxes interface {
	List(ctx context.Context) ([]runtime.Sandbox, error)
}

// Cgroups measures a cgroup.
type Cgroups interface {
	Cgroup(path string) (stats.Usage, error)
}

// Measure makes the summary of a node and the pods that run on it.
func Measure(ctx context.Context, node string, machine func() (stats.Usage, error), cgroups Cgroups, rt Sandboxes, pods []*corev1.Pod) (*Summary, error) {
	all, err := machine()
	if err != nil {
		return nil, err
	}
	s := &Summary{Node: NodeStats{NodeName: node}, Pods: []PodStats{}}
	s.Node.CPU, s.Node.Memory = of(all)
	s.Node.Memory.AvailableBytes = &all.Available
	list, err := rt.List(ctx)
	if err != nil {
		return nil, err
	}
	byUID := map[string]*corev1.Pod{}
	for _, p := range pods {
		byUID[string(p.UID)] = p
	}
	for _, sb := range list {
		p := byUID[sb.ID]
		if p == nil || sb.State != runtime.SandboxReady {
			continue
		}
		one, err := measurePod(cgroups, sb, p)
		if stats.Gone(err) {
			continue // it ended just now
		}
		if err != nil {
			return nil, err
		}
		s.Pods = append(s.Pods, *one)
	}
	return s, nil
}

func measurePod(cgroups Cgroups, sb runtime.Sandbox, p *corev1.Pod) (*PodStats, error) {
	u, err := cgroups.Cgroup(sb.Cgroup)
	if err != nil {
		return nil, err
	}
	out := &PodStats{
		PodRef: PodRef{Name: p.Name, Namespace: p.Namespace, UID: sb.ID}, StartTime: metav1.Time{Time: sb.StartedAt}, Containers: []ContainerStats{},
	}
	out.CPU, out.Memory = of(u)
	for _, c := range sb.Containers {
		if c.State != runtime.Running {
			continue
		}
		u, err := cgroups.Cgroup(c.Cgroup)
		if stats.Gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		one := ContainerStats{Name: c.Name, StartTime: metav1.Time{Time: c.StartedAt}}
		one.CPU, one.Memory = of(u)
		out.Containers = append(out.Containers, one)
	}
	slices.SortFunc(out.Containers, func(a, b ContainerStats) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func of(u stats.Usage) (CPU, Memory) {
	at := metav1.Time{Time: u.Time}
	return CPU{Time: at, UsageCoreNanoSeconds: u.CPU}, Memory{Time: at, UsageBytes: u.Memory, WorkingSetBytes: u.WorkingSet}
}
