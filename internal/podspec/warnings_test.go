package podspec_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/podspec"
)

func TestWarnings(t *testing.T) {
	for name, tt := range map[string]struct {
		pod  string
		want []string
	}{
		"nothing": {`{metadata: {annotations: {a: b}}, spec: {nodeSelector: {kubernetes.io/arch: arm64}, containers: [{name: a, env: [{name: A}, {name: B}],
 resources: {limits: {memory: 1Gi, cpu: 100m}}, ports: [{name: a, containerPort: 80, protocol: TCP}, {name: b, containerPort: 80, protocol: UDP}]}]}}`, nil},
		"labels of nodes": {`{spec: {nodeSelector: {beta.kubernetes.io/os: linux, beta.kubernetes.io/arch: amd64, a: b},
 affinity: {nodeAffinity: {
 requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In, values: ["-"]}, {key: failure-domain.beta.kubernetes.io/zone, operator: Exists}]}]},
 preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: node-role.kubernetes.io/master, operator: In, values: [a, "-b"]}]}}]}},
 topologySpreadConstraints: [{topologyKey: failure-domain.beta.kubernetes.io/region}]}}`, []string{
			`spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use "kubernetes.io/arch" instead`,
			`spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead`,
			`spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].key: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
			`spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key: node-role.kubernetes.io/master is use "node-role.kubernetes.io/control-plane" instead`,
			`spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values[1]: -b is invalid, a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`,
			`spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/region is deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
			`spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod`,
		}},
		"annotations": {`{metadata: {annotations: {scheduler.alpha.kubernetes.io/critical-pod: "", security.alpha.kubernetes.io/sysctls: "", security.alpha.kubernetes.io/unsafe-sysctls: "",
 seccomp.security.alpha.kubernetes.io/pod: x, container.seccomp.security.alpha.kubernetes.io/a: x, container.seccomp.security.alpha.kubernetes.io/b: x,
 container.apparmor.security.beta.kubernetes.io/a: x, container.apparmor.security.beta.kubernetes.io/b: x}},
 spec: {initContainers: [{name: a}], containers: [{name: b, securityContext: {seccompProfile: {type: RuntimeDefault}, appArmorProfile: {type: Unconfined}}}]}}`, []string{
			`metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "priorityClassName" field instead`,
			`metadata.annotations[security.alpha.kubernetes.io/sysctls]: non-functional in v1.11+; use the "sysctls" field instead`,
			`metadata.annotations[security.alpha.kubernetes.io/unsafe-sysctls]: non-functional in v1.11+; use the "sysctls" field instead`,
			`metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead`,
			`metadata.annotations[container.seccomp.security.alpha.kubernetes.io/a]: non-functional in v1.27+; use the "seccompProfile" field instead`,
			`metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]: deprecated since v1.30; use the "appArmorProfile" field instead`,
		}},
		"annotations with fields": {`{metadata: {annotations: {seccomp.security.alpha.kubernetes.io/pod: x, container.apparmor.security.beta.kubernetes.io/a: x}},
 spec: {securityContext: {seccompProfile: {type: RuntimeDefault}, appArmorProfile: {type: Unconfined}}, containers: [{name: a}]}}`, nil},
		"variables": {`{spec: {containers: [{name: a, env: [{name: A, value: a}, {name: A, value: $(A)}, {name: A, value: $(A)b}, {name: A, value: c}, {name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: B}]}]}}`, []string{
			`spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply`,
			`spec.containers[0].env[3]: hides previous definition of "A", which may be dropped when using apply`,
			`spec.containers[0].env[4]: hides previous definition of "A", which may be dropped when using apply`,
		}},
		"ports": {`{spec: {initContainers: [{name: i, ports: [{name: web, containerPort: 80, protocol: TCP}]}],
 containers: [{name: a, ports: [{name: web, containerPort: 80, protocol: TCP}, {containerPort: 80, protocol: TCP, hostPort: 8080}, {containerPort: 80, protocol: TCP, hostPort: 8080, hostIP: 1.2.3.4}, {containerPort: 81, protocol: TCP, hostIP: 1.2.3.4}]}]}}`, []string{
			`spec.containers[0].ports[0]: duplicate port definition with spec.initContainers[0].ports[0]`,
			`spec.containers[0].ports[1]: overlapping port definition with spec.initContainers[0].ports[0]`,
			`spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]`,
			`spec.containers[0].ports[2]: overlapping port definition with spec.initContainers[0].ports[0]`,
			`spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[0]`,
			`spec.containers[0].ports[2]: dangerously ambiguous port definition with spec.containers[0].ports[1]`,
			`spec.containers[0].ports[3]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:81 Protocol:TCP HostIP:1.2.3.4}`,
			`spec.containers[0].ports[0]: duplicate port name "web" with spec.initContainers[0].ports[0], services and probes that select ports by name will use spec.initContainers[0].ports[0]`,
		}},
		"bytes": {`{spec: {overhead: {memory: 1500m}, containers: [{name: a, resources: {limits: {memory: 1.5, ephemeral-storage: 100m}, requests: {memory: 64Mi, cpu: 100m}}}],
 volumes: [{name: e, ephemeral: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 200m}, limits: {storage: 1.1}}}}}}]}}`, []string{
			`spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: fractional byte value "200m" is invalid, must be an integer`,
			`spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources.limits[storage]: fractional byte value "1100m" is invalid, must be an integer`,
			`spec.overhead[memory]: fractional byte value "1500m" is invalid, must be an integer`,
			`spec.containers[0].resources.limits[memory]: fractional byte value "1500m" is invalid, must be an integer`,
			`spec.containers[0].resources.limits[ephemeral-storage]: fractional byte value "100m" is invalid, must be an integer`,
		}},
		"twice": {`{spec: {hostAliases: [{ip: 1.1.1.1}, {ip: 01.1.1.1}, {ip: 1.1.1.1}], imagePullSecrets: [{name: a}, {name: a}, {}], dnsConfig: {nameservers: [1.1.1.1, "FD00::1"]}, terminationGracePeriodSeconds: -1}}`, []string{
			`spec.hostAliases[2].ip: duplicate ip "1.1.1.1"`,
			`spec.imagePullSecrets[1].name: duplicate name "a"`,
			`spec.imagePullSecrets[2].name: invalid empty name ""`,
			`spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1`,
			`spec.dnsConfig.nameservers[1]: IPv6 address "FD00::1" should be in RFC 5952 canonical format ("fd00::1")`,
			`spec.hostAliases[1].ip: non-standard IP address "01.1.1.1" will be considered invalid in a future Kubernetes release: use "1.1.1.1"`,
		}},
		"affinity": {`{spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {}, topologyKey: a}, {topologyKey: a}]},
 podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: a}}]}}}}`, []string{
			`spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[1].labelSelector: a null labelSelector results in matching no pod`,
			`spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod`,
		}},
		"volumes": {`{spec: {volumes: [{name: a, gitRepo: {repository: x}}, {name: b, rbd: {}}, {name: c, glusterfs: {}}, {name: d, flocker: {}}, {name: e, scaleIO: {}}, {name: f, photonPersistentDisk: {}}]}}`, []string{
			`spec.volumes[0].gitRepo: deprecated in v1.11`,
			`spec.volumes[1].rbd: deprecated in v1.28, non-functional in v1.31+`,
			`spec.volumes[2].glusterfs: deprecated in v1.25, non-functional in v1.26+`,
			`spec.volumes[3].flocker: deprecated in v1.22, non-functional in v1.25+`,
			`spec.volumes[4].scaleIO: deprecated in v1.16, non-functional in v1.22+`,
			`spec.volumes[5].photonPersistentDisk: deprecated in v1.11, non-functional in v1.16+`,
		}},
		"files": {`{spec: {volumes: [{name: c, configMap: {name: cm, items: [{key: a, path: x/}, {key: b, path: x/y}, {key: c, path: xy}]}},
 {name: s, secret: {secretName: se, items: [{key: a, path: x}, {key: b, path: x}]}},
 {name: d, downwardAPI: {items: [{path: a/b}, {path: a}]}},
 {name: p, projected: {sources: [{}, {configMap: {name: cm, items: [{key: a, path: token}]}}, {serviceAccountToken: {path: token}}, {secret: {name: se, items: [{key: a, path: t}]}}, {clusterTrustBundle: {signerName: s, path: t/b}}]}}]}}`, []string{
			`volume "c" (ConfigMap "cm"): overlapping paths: "x/y" with "x"`,
			`volume "s" (Secret "se"): overlapping paths: "x" with "x"`,
			`volume "d" (DownwardAPI): overlapping paths: "a" with "a/b"`,
			`volume "p" (Projected) has no sources provided`,
			`volume "p" (Projected): overlapping paths: "token" (ServiceAccountToken) with "token" (ConfigMap "cm")`,
			`volume "p" (Projected): overlapping paths: "t/b" (ClusterTrustBundle "s") with "t" (Secret "se")`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var pod, before corev1.Pod
			if err := yaml.UnmarshalStrict([]byte(tt.pod), &pod); err != nil {
				t.Fatal(err)
			}
			pod.DeepCopyInto(&before)
			if got := podspec.Warnings(nil, &pod.ObjectMeta, &pod.Spec); !slices.Equal(got, tt.want) {
				for _, line := range got {
					t.Log(line)
				}
				t.Errorf("got %d warnings, want %q", len(got), tt.want)
			}
			if pod.String() != before.String() {
				t.Error("the pod was changed")
			}
			at := field.NewPath("spec", "template")
			if got := podspec.Warnings(at, &pod.ObjectMeta, &pod.Spec); len(got) != len(tt.want) ||
				len(got) > 0 && !strings.HasPrefix(got[0], "spec.template.") && !strings.HasPrefix(got[0], "volume") {
				t.Errorf("in a template they are %q", got)
			}
		})
	}
}

// That there is nothing to warn of costs next to nothing.
func BenchmarkWarnings(b *testing.B) {
	var pod corev1.Pod
	const text = `{metadata: {annotations: {a: b}}, spec: {nodeSelector: {kubernetes.io/arch: arm64}, containers: [{name: a, env: [{name: A}, {name: B}],
 resources: {limits: {memory: 1Gi, cpu: 100m}}, ports: [{name: a, containerPort: 80, protocol: TCP}, {name: b, containerPort: 81, protocol: TCP}]}],
 volumes: [{name: p, projected: {sources: [{serviceAccountToken: {path: token}}, {configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}}, {downwardAPI: {items: [{path: namespace}]}}]}}]}}`
	if err := yaml.UnmarshalStrict([]byte(text), &pod); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if got := podspec.Warnings(nil, &pod.ObjectMeta, &pod.Spec); got != nil {
			b.Fatal(got)
		}
	}
}
