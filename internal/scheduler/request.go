package scheduler

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/podspec"
)

// What a container without a request counts for when nodes are compared, so
// that pods that ask for nothing are spread all the same.
const (
	defaultCPU    = 100
	defaultMemory = 200 << 20
)

// amounts are resources: cpu in thousandths, the rest in units.
type amounts struct {
	cpu, memory, storage int64
	other                map[corev1.ResourceName]int64
}

func amountsOf(list corev1.ResourceList) amounts {
	var a amounts
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			a.cpu = q.MilliValue()
		case corev1.ResourceMemory:
			a.memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			a.storage = q.Value()
		case corev1.ResourcePods:
		default:
			if a.other == nil {
				a.other = map[corev1.ResourceName]int64{}
			}
			a.other[name] = q.Value()
		}
	}
	return a
}

// add adds b times sign.
func (a *amounts) add(b amounts, sign int64) {
	a.cpu += sign * b.cpu
	a.memory += sign * b.memory
	a.storage += sign * b.storage
	for name, n := range b.other {
		if a.other == nil {
			a.other = map[corev1.ResourceName]int64{}
		}
		a.other[name] += sign * n
	}
}

// lacking lists the resources of which want is more than is free.
func (a *amounts) lacking(used, want *amounts) []string {
	var out []string
	lacks := func(name string, has, used, want int64) {
		if want > 0 && want > has-used {
			out = append(out, "Insufficient "+name)
		}
	}
	lacks("cpu", a.cpu, used.cpu, want.cpu)
	lacks("memory", a.memory, used.memory, want.memory)
	lacks("ephemeral-storage", a.storage, used.storage, want.storage)
	if len(want.other) > 0 {
		for _, name := range slices.Sorted(maps.Keys(want.other)) {
			lacks(string(name), a.other[name], used.other[name], want.other[name])
		}
	}
	return out
}

// hostPort is a port of a node that a pod takes.
type hostPort struct {
	ip       string // empty is every address
	protocol corev1.Protocol
	port     int32
}

func (p hostPort) conflicts(q hostPort) bool {
	return p.port == q.port && p.protocol == q.protocol && (p.ip == q.ip || p.ip == "" || q.ip == "")
}

// placed is what the scheduler remembers of a pod that is bound to a node, or
// about to be.
type placed struct {
	uid, namespace, name string
	labels               map[string]string
	node, owner          string
	request              amounts
	weigh                amounts // request with defaults, for comparing nodes
	ports                []hostPort
	priority             int32
	deleting, assumed    bool
	terms                []term // what it asks of later pods
}

func placedOf(pod *corev1.Pod) *placed {
	p := &placed{
		uid: string(pod.UID), namespace: pod.Namespace, name: pod.Name, labels: pod.Labels,
		node: pod.Spec.NodeName, request: amountsOf(podspec.Requests(&pod.Spec)),
		ports: portsOf(&pod.Spec), deleting: pod.DeletionTimestamp != nil, terms: termsOf(pod),
	}
	p.weigh = amounts{cpu: p.request.cpu, memory: p.request.memory}
	for i := range pod.Spec.Containers {
		r := pod.Spec.Containers[i].Resources.Requests
		if _, ok := r[corev1.ResourceCPU]; !ok {
			p.weigh.cpu += defaultCPU
		}
		if _, ok := r[corev1.ResourceMemory]; !ok {
			p.weigh.memory += defaultMemory
		}
	}
	if pod.Spec.Priority != nil {
		p.priority = *pod.Spec.Priority
	}
	if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
		p.owner = string(ref.UID)
	}
	return p
}

func portsOf(s *corev1.PodSpec) []hostPort {
	var out []hostPort
	of := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			ip := p.HostIP
			if ip == "0.0.0.0" || ip == "::" {
				ip = ""
			}
			out = append(out, hostPort{ip, p.Protocol, p.HostPort})
		}
	}
	for i := range s.Containers {
		of(&s.Containers[i])
	}
	for i := range s.InitContainers {
		if podspec.Sidecar(&s.InitContainers[i]) {
			of(&s.InitContainers[i])
		}
	}
	return out
}
