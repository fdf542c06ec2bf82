package kinds_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

// madePod is a pod of a Deployment as it is stored once it runs: some 1.2 KB of
// its own, and the managed fields of its controller and its node.
func madePod(deployment, i int) *corev1.Pod {
	name := fmt.Sprintf("web-%03d", deployment)
	now := metav1.Now().Rfc3339Copy()
	yes, ip := true, fmt.Sprintf("10.244.%d.%d", i/250, i%250)
	entry := func(manager, sub, set string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Operation: "Update", APIVersion: "v1", Time: &now, FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: []byte(set)}, Subresource: sub}
	}
	spec := `{"f:metadata":{"f:generateName":{},"f:labels":{".":{},"f:app":{},"f:pod-template-hash":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"` + fmt.Sprintf("%036d", deployment) + `\"}":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:env":{".":{},"k:{\"name\":\"A\"}":{".":{},"f:name":{},"f:value":{}}},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}},"f:resources":{".":{},"f:limits":{".":{},"f:cpu":{},"f:memory":{}},"f:requests":{".":{},"f:cpu":{},"f:memory":{}}},"f:terminationMessagePath":{},"f:terminationMessagePolicy":{}}},"f:dnsPolicy":{},"f:enableServiceLinks":{},"f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":{},"f:terminationGracePeriodSeconds":{}}}`
	status := `{"f:status":{"f:conditions":{"k:{\"type\":\"ContainersReady\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Initialized\"}":{".":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Ready\"}":{".":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}}},"f:containerStatuses":{},"f:hostIP":{},"f:hostIPs":{},"f:phase":{},"f:podIP":{},"f:podIPs":{".":{},"k:{\"ip\":\"` + ip + `\"}":{".":{},"f:ip":{}}},"f:startTime":{}}}`
	res := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	condition := func(t corev1.PodConditionType) corev1.PodCondition {
		return corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s-5d59d67564-%05d", name, i), GenerateName: name + "-5d59d67564-", Namespace: "demo", UID: types.UID(fmt.Sprintf("7f8e9a10-0000-4000-8000-%012d", i)),
			CreationTimestamp: now, Labels: map[string]string{"app": name, "pod-template-hash": "5d59d67564"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name + "-5d59d67564", UID: types.UID(fmt.Sprintf("%036d", deployment)), Controller: &yes, BlockOwnerDeletion: &yes}},
			ManagedFields:   []metav1.ManagedFieldsEntry{entry("kube-controller-manager", "", spec), entry("kubelet", "status", status)},
		},
		Spec: corev1.PodSpec{
			NodeName: fmt.Sprintf("node-%d", i%50), RestartPolicy: "Always", DNSPolicy: "ClusterFirst", ServiceAccountName: "default", DeprecatedServiceAccount: "default", SchedulerName: "default-scheduler",
			Containers: []corev1.Container{{
				Name: "web", Image: "registry.example.com/team/web:1.2.3", ImagePullPolicy: "IfNotPresent", Resources: corev1.ResourceRequirements{Limits: res, Requests: res},
				Env: []corev1.EnvVar{{Name: "A", Value: "some value"}}, Ports: []corev1.ContainerPort{{ContainerPort: 8080, Protocol: "TCP"}},
				TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: "File",
				VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access-x5d2f", ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}},
			}},
			Tolerations: []corev1.Toleration{{Key: "node.kubernetes.io/not-ready", Operator: "Exists", Effect: "NoExecute"}, {Key: "node.kubernetes.io/unreachable", Operator: "Exists", Effect: "NoExecute"}},
		},
		Status: corev1.PodStatus{
			Phase: "Running", HostIP: "192.168.1.7", HostIPs: []corev1.HostIP{{IP: "192.168.1.7"}}, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, StartTime: &now, QOSClass: "Guaranteed",
			Conditions:        []corev1.PodCondition{condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled")},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "web", Ready: true, Image: "registry.example.com/team/web:1.2.3", ImageID: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", ContainerID: fmt.Sprintf("wherry://%064d", i), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}},
		},
	}
}

// TestPodMemory stores 10,000 pods of 100 Deployments and prints what each
// takes, index included.
func TestPodMemory(t *testing.T) {
	const deployments, each = 100, 100
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // what the first let go of
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	codec := api.NewCodec(kinds.Table(), 0)
	k, _ := codec.Kinds().ByKey("pods")
	s := store.NewLocalLimits(codec, store.Limits{RingEvents: 16})
	before := heap()
	size := 0
	for d := range deployments {
		for i := range each {
			r, err := k.Record(madePod(d, d*each+i))
			if err != nil {
				t.Fatal(err)
			}
			size += r.Len()
			if _, err := s.Commit(context.Background(), store.Command{Changes: []store.Change{{Op: store.Put, If: store.Cond{Absent: true}, Key: r.Key, Record: r}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	per := float64(heap()-before) / (deployments * each)
	t.Logf("a pod of %d B takes %.0f B with its place in the store", size/(deployments*each), per)
	if per > 3<<10 {
		t.Errorf("a pod takes %.0f B, over 3 KiB", per)
	}
	runtime.KeepAlive(s)
}
