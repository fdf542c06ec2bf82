package node

import (
	"bufio"
	"context"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	kubeletPort = 10250
	// keptFree of memory is not given to pods: what the node itself needs.
	keptFree = 100 << 20
	// maxImages bounds the images that the status lists.
	maxImages = 50
	// statusEvery is how often the node looks at itself; it says something
	// only when that changed.
	statusEvery = 10 * time.Second
)

func bootID() string { return line("/proc/sys/kernel/random/boot_id") }

// line is the first line of a file of the kernel, empty if it cannot be read.
func line(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(first)
}

// describe is the node as it registers.
func (n *Node) describe() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.cfg.Name, Labels: map[string]string{
			corev1.LabelHostname: n.cfg.Name, corev1.LabelOSStable: goruntime.GOOS, corev1.LabelArchStable: goruntime.GOARCH,
			"beta.kubernetes.io/os": goruntime.GOOS, "beta.kubernetes.io/arch": goruntime.GOARCH,
		}},
		Status: *n.status(),
	}
}

// status is the node's status now.
func (n *Node) status() *corev1.NodeStatus {
	memory := memoryTotal()
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(memory, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(int64(n.cfg.MaxPods), resource.DecimalSI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(diskTotal(n.cfg.DataDir), resource.BinarySI),
	}
	allocatable := capacity.DeepCopy()
	allocatable[corev1.ResourceMemory] = *resource.NewQuantity(max(memory-keptFree, 0), resource.BinarySI)
	st := &corev1.NodeStatus{
		Capacity: capacity, Allocatable: allocatable,
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: n.cfg.Address.String()}, {Type: corev1.NodeHostName, Address: n.cfg.Name},
		},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: kubeletPort}},
		NodeInfo: corev1.NodeSystemInfo{
			MachineID: line("/etc/machine-id"), SystemUUID: line("/sys/class/dmi/id/product_uuid"), BootID: bootID(),
			KernelVersion: line("/proc/sys/kernel/osrelease"), OSImage: osImage(), ContainerRuntimeVersion: "wherry://" + n.cfg.Version,
			KubeletVersion: n.cfg.Version, OperatingSystem: goruntime.GOOS, Architecture: goruntime.GOARCH,
		},
		Conditions: n.conditions(),
	}
	for i, img := range n.parts.Images.List() {
		if i == maxImages {
			break
		}
		st.Images = append(st.Images, corev1.ContainerImage{Names: img.Names(), SizeBytes: img.Size})
	}
	return st
}

func (n *Node) conditions() []corev1.NodeCondition {
	now := metav1.Time{Time: time.Now().Truncate(time.Second)}
	n.mu.Lock()
	up := n.ready
	n.mu.Unlock()
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}
	if !up {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", "the pod network is not set up yet"
	}
	m := measure(n.cfg.DataDir)
	n.mu.Lock()
	list := append(pressures(m, n.pressed, now.Time), ready)
	n.mu.Unlock()
	for i := range list {
		list[i].LastHeartbeatTime, list[i].LastTransitionTime = now, now
	}
	return list
}

// keepStatus reports the node's status when it has changed.
func (n *Node) keepStatus(ctx context.Context) {
	t := time.NewTicker(statusEvery)
	defer t.Stop()
	for last := ""; ; {
		st := n.status()
		if sum := summary(st); sum != last || n.overwritten(st) {
			if err := n.link.ReportNode(st); err != nil {
				n.log.Error("node status not reported", "err", err)
			} else {
				last = sum
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-n.nodeChanged:
		}
	}
}

// overwritten reports that the API shows another readiness than the node's: the
// control plane gave the node up for a while.
func (n *Node) overwritten(st *corev1.NodeStatus) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	self := n.view.Self()
	return self != nil && readiness(self.Status.Conditions) != readiness(st.Conditions)
}

func readiness(list []corev1.NodeCondition) corev1.ConditionStatus {
	for _, c := range list {
		if c.Type == corev1.NodeReady {
			return c.Status
		}
	}
	return ""
}

// summary is a status without its times.
func summary(st *corev1.NodeStatus) string {
	c := st.DeepCopy()
	for i := range c.Conditions {
		c.Conditions[i].LastHeartbeatTime, c.Conditions[i].LastTransitionTime = metav1.Time{}, metav1.Time{}
	}
	return c.String()
}

func memoryTotal() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kib int64
		if _, err := fmt.Sscanf(s.Text(), "MemTotal: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}

func diskTotal(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0
	}
	return int64(st.Blocks) * st.Bsize //nolint:gosec // sizes of disks fit
}

func osImage() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	for _, l := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, "PRETTY_NAME="); ok {
			if name, err := strconv.Unquote(v); err == nil {
				return name
			}
			return v
		}
	}
	return "Linux"
}
