package core

import (
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// The labels that name what a node is for.
const (
	roleLabelPrefix = "node-role.kubernetes.io/"
	roleLabel       = "kubernetes.io/role"
)

// Node is the kind of nodes.
func Node() *api.Kind {
	info := corev1.NodeSystemInfo{}.SwaggerDoc()
	return &api.Kind{
		Version: "v1", Kind: "Node",
		Resource: "nodes", Singular: "node",
		Warn:       api.Warn(warnNode),
		ShortNames: []string{"no"},
		Verbs:      allVerbs(),
		Subresources: []api.Subresource{
			{Name: "proxy", Kind: "NodeProxyOptions", Verbs: proxyVerbs()},
			{Name: "status", Verbs: statusVerbs()},
		},
		New:     func() api.Object { return &corev1.Node{} },
		Default: api.On(defaultNode),
		OnUpdate: api.OnPair(func(n, old *corev1.Node) {
			n.Status = *old.Status.DeepCopy()
		}),
		OnStatus: api.OnPair(func(n, old *corev1.Node) {
			api.KeepMeta(n, old)
			n.Spec = *old.Spec.DeepCopy()
		}),
		Validate:       api.Check(validateNode),
		ValidateUpdate: api.CheckPair(validateNodeUpdate),
		ValidateStatus: api.CheckPair(validateNodeStatus),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Status", "Whether the node is ready, and whether new pods may come."),
			api.TextColumn("Roles", "What the node's labels say it is for."),
			api.AgeColumn(),
			api.TextColumn("Version", info["kubeletVersion"]),
			wideText("Internal-IP", "The first address of type InternalIP."),
			wideText("External-IP", "The first address of type ExternalIP."),
			wideText("OS-Image", info["osImage"]),
			wideText("Kernel-Version", info["kernelVersion"]),
			wideText("Container-Runtime", info["containerRuntimeVersion"]),
		},
		Cells:      api.Row(nodeCells),
		FieldNames: []string{"spec.unschedulable"},
		Fields: api.Of(func(n *corev1.Node) map[string]string {
			return map[string]string{"spec.unschedulable": strconv.FormatBool(n.Spec.Unschedulable)}
		}),
	}
}

// defaultNode makes the two fields for pod ranges agree, and lets pods have all
// the capacity where nothing else is said.
func defaultNode(n *corev1.Node) {
	if n.Spec.PodCIDR == "" && len(n.Spec.PodCIDRs) > 0 {
		n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	}
	if n.Spec.PodCIDR != "" && len(n.Spec.PodCIDRs) == 0 {
		n.Spec.PodCIDRs = []string{n.Spec.PodCIDR}
	}
	if n.Status.Allocatable == nil && n.Status.Capacity != nil {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
}

func nodeCells(n *corev1.Node, now time.Time) []any {
	roles := nodeRoles(n)
	if roles == "" {
		roles = api.CellNone
	}
	info := n.Status.NodeInfo
	return []any{
		n.Name, nodeStatus(n), roles, api.Age(n.CreationTimestamp, now), info.KubeletVersion,
		nodeAddress(n, corev1.NodeInternalIP), nodeAddress(n, corev1.NodeExternalIP),
		orUnknown(info.OSImage), orUnknown(info.KernelVersion), orUnknown(info.ContainerRuntimeVersion),
	}
}

func orUnknown(s string) string {
	if s == "" {
		return api.CellUnknown
	}
	return s
}

func nodeStatus(n *corev1.Node) string {
	status := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if status = "NotReady"; c.Status == corev1.ConditionTrue {
			status = "Ready"
		}
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	return status
}

func nodeRoles(n *corev1.Node) string {
	var roles []string
	for key, value := range n.Labels {
		if role, ok := strings.CutPrefix(key, roleLabelPrefix); ok && role != "" {
			roles = append(roles, role)
		} else if key == roleLabel && value != "" {
			roles = append(roles, value)
		}
	}
	slices.Sort(roles)
	return strings.Join(slices.Compact(roles), ",")
}

func nodeAddress(n *corev1.Node, t corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == t {
			return a.Address
		}
	}
	return api.CellNone
}
