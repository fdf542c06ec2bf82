package podspec_test

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/randfill"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/podspec"
)

func TestDefault(t *testing.T) {
	for _, tt := range []struct{ name, in, template, pod string }{
		{
			"the least", `containers: [{name: a, image: b}]`,
			`{containers: [{name: a, image: b, imagePullPolicy: Always, resources: {}, terminationMessagePath: /dev/termination-log, terminationMessagePolicy: File}],
			  restartPolicy: Always, terminationGracePeriodSeconds: 30, dnsPolicy: ClusterFirst, schedulerName: default-scheduler, securityContext: {}}`,
			`{enableServiceLinks: true}`,
		},
		{
			"ports and resources", `{hostNetwork: true, containers: [{name: a, image: "b:1", ports: [{containerPort: 80}], resources: {limits: {cpu: 1000m}}}]}`,
			`{hostNetwork: true, containers: [{name: a, image: "b:1", imagePullPolicy: IfNotPresent, ports: [{containerPort: 80, protocol: TCP}], resources: {limits: {cpu: "1"}},
			  terminationMessagePath: /dev/termination-log, terminationMessagePolicy: File}],
			  restartPolicy: Always, terminationGracePeriodSeconds: 30, dnsPolicy: ClusterFirst, schedulerName: default-scheduler, securityContext: {}}`,
			`{enableServiceLinks: true, containers: [{name: a, image: "b:1", imagePullPolicy: IfNotPresent, ports: [{containerPort: 80, hostPort: 80, protocol: TCP}],
			  resources: {limits: {cpu: "1"}, requests: {cpu: "1"}}, terminationMessagePath: /dev/termination-log, terminationMessagePolicy: File}]}`,
		},
		{
			"account in its old field", `{serviceAccount: me, containers: []}`,
			`{serviceAccount: me, serviceAccountName: me, containers: [], restartPolicy: Always, terminationGracePeriodSeconds: 30, dnsPolicy: ClusterFirst, schedulerName: default-scheduler, securityContext: {}}`,
			`{enableServiceLinks: true}`,
		},
		{
			"volumes", `{containers: [], volumes: [{name: a}, {name: b, secret: {secretName: s}}, {name: c, configMap: {name: m}}, {name: d, hostPath: {path: /p}},
			  {name: e, projected: {sources: [{serviceAccountToken: {path: t}}, {downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}]}},
			  {name: f, ephemeral: {volumeClaimTemplate: {spec: {resources: {}}}}}, {name: g, image: {reference: "r:latest"}}, {name: h, downwardAPI: {}}]}`,
			`{containers: [], volumes: [{name: a, emptyDir: {}}, {name: b, secret: {secretName: s, defaultMode: 420}}, {name: c, configMap: {name: m, defaultMode: 420}}, {name: d, hostPath: {path: /p, type: ""}},
			  {name: e, projected: {defaultMode: 420, sources: [{serviceAccountToken: {path: t, expirationSeconds: 3600}}, {downwardAPI: {items: [{path: l, fieldRef: {apiVersion: v1, fieldPath: metadata.labels}}]}}]}},
			  {name: f, ephemeral: {volumeClaimTemplate: {metadata: {}, spec: {resources: {}, volumeMode: Filesystem}}}}, {name: g, image: {reference: "r:latest", pullPolicy: Always}}, {name: h, downwardAPI: {defaultMode: 420}}],
			  restartPolicy: Always, terminationGracePeriodSeconds: 30, dnsPolicy: ClusterFirst, schedulerName: default-scheduler, securityContext: {}}`,
			`{enableServiceLinks: true}`,
		},
		{
			"probes and env", `containers: [{name: a, image: "b@sha256:00", livenessProbe: {httpGet: {port: 80}}, readinessProbe: {grpc: {port: 1}}, lifecycle: {postStart: {httpGet: {port: 81}}},
			  env: [{name: N, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}]`,
			`{containers: [{name: a, image: "b@sha256:00", imagePullPolicy: IfNotPresent, resources: {}, terminationMessagePath: /dev/termination-log, terminationMessagePolicy: File,
			  livenessProbe: {httpGet: {port: 80, path: /, scheme: HTTP}, timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3},
			  readinessProbe: {grpc: {port: 1, service: ""}, timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3},
			  lifecycle: {postStart: {httpGet: {port: 81, path: /, scheme: HTTP}}},
			  env: [{name: N, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}}]}],
			  restartPolicy: Always, terminationGracePeriodSeconds: 30, dnsPolicy: ClusterFirst, schedulerName: default-scheduler, securityContext: {}}`,
			`{enableServiceLinks: true}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := read(t, tt.in)
			template := &corev1.PodTemplateSpec{Spec: *s}
			podspec.DefaultTemplate(template)
			equal(t, &template.Spec, read(t, tt.template))
			podspec.DefaultPod(&template.Spec)
			want := read(t, tt.template)
			more := read(t, tt.pod)
			want.EnableServiceLinks = more.EnableServiceLinks
			if len(more.Containers) > 0 {
				want.Containers = more.Containers
			}
			equal(t, &template.Spec, want)
		})
	}
}

func read(t *testing.T, text string) *corev1.PodSpec {
	t.Helper()
	s := &corev1.PodSpec{}
	if err := yaml.UnmarshalStrict([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	return s
}

func equal(t *testing.T, got, want *corev1.PodSpec) {
	t.Helper()
	if !equality.Semantic.DeepEqual(got, want) {
		g, _ := json.MarshalIndent(got, "", " ")
		w, _ := json.MarshalIndent(want, "", " ")
		t.Errorf("got %s\nwant %s", g, w)
	}
}

func TestPullPolicy(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{
		"a": "Always", "a:latest": "Always", "r:5000/a": "Always", "r:5000/a:latest": "Always", "a:latest@sha256:00": "Always",
		"a:1": "IfNotPresent", "a@sha256:00": "IfNotPresent", "r:5000/a:1": "IfNotPresent", "a:1@sha256:00": "IfNotPresent",
	} {
		s := &corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}}
		podspec.Default(s)
		if got := s.Containers[0].ImagePullPolicy; got != want {
			t.Errorf("%s is pulled %s, want %s", image, got, want)
		}
	}
}

func TestAmountsAreRoundedUp(t *testing.T) {
	s := read(t, `containers: [{name: a, resources: {requests: {cpu: 100u, memory: "1.5"}, limits: {cpu: "0.0015"}}}]`)
	podspec.Default(s)
	r := s.Containers[0].Resources
	if cpu, m, limit := r.Requests["cpu"], r.Requests["memory"], r.Limits["cpu"]; cpu.String() != "1m" || m.String() != "1500m" || limit.String() != "2m" {
		t.Errorf("amounts are %s %s %s", cpu.String(), m.String(), limit.String())
	}
}

// TestDefaultTwiceIsOnce defaults random specs twice.
func TestDefaultTwiceIsOnce(t *testing.T) {
	fill := randfill.NewWithSeed(1).NilChance(0.5).NumElements(0, 3).MaxDepth(12).Funcs(
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewQuantity(c.Int63n(1000), resource.DecimalSI)
		},
		func(v *intstr.IntOrString, c randfill.Continue) { *v = intstr.FromInt32(c.Int31n(1000)) },
	)
	for range 300 {
		s := &corev1.PodSpec{}
		fill.Fill(s)
		podspec.Default(s)
		podspec.DefaultPod(s)
		once := s.DeepCopy()
		podspec.Default(s)
		podspec.DefaultPod(s)
		equal(t, s, once)
		if t.Failed() {
			return
		}
	}
}

func TestRequestsAndQOS(t *testing.T) {
	for _, tt := range []struct{ name, in, cpu, memory, qos string }{
		{"nothing", `containers: [{name: a}]`, "0", "0", "BestEffort"},
		{"sum", `containers: [{name: a, resources: {requests: {cpu: 100m}}}, {name: b, resources: {requests: {cpu: 200m}}}]`, "300m", "0", "Burstable"},
		{"init", `{containers: [{name: a, resources: {requests: {cpu: 100m}}}], initContainers: [{name: i, resources: {requests: {cpu: "1", memory: 1Mi}}}]}`, "1", "1Mi", "Burstable"},
		{"sidecar before init", `{containers: [{name: a, resources: {requests: {cpu: 100m}}}], initContainers: [{name: s, restartPolicy: Always, resources: {requests: {cpu: 500m}}}, {name: i, resources: {requests: {cpu: "1"}}}]}`, "1500m", "0", "Burstable"},
		{"sidecar after init", `{containers: [{name: a, resources: {requests: {cpu: 600m}}}], initContainers: [{name: i, resources: {requests: {cpu: "1"}}}, {name: s, restartPolicy: Always, resources: {requests: {cpu: 500m}}}]}`, "1100m", "0", "Burstable"},
		{"guaranteed", `containers: [{name: a, resources: {limits: {cpu: "1", memory: 1Gi}, requests: {cpu: "1", memory: 1Gi}}}]`, "1", "1Gi", "Guaranteed"},
		{"guaranteed but init", `{containers: [{name: a, resources: {limits: {cpu: "1", memory: 1Gi}, requests: {cpu: "1", memory: 1Gi}}}], initContainers: [{name: i}]}`, "1", "1Gi", "Burstable"},
		{"overhead", `{overhead: {cpu: 10m}, containers: [{name: a, resources: {requests: {cpu: 100m}}}]}`, "110m", "0", "Burstable"},
		{"pod level", `{resources: {limits: {cpu: "2", memory: 1Gi}, requests: {cpu: "2", memory: 1Gi}}, containers: [{name: a, resources: {requests: {cpu: 100m}}}]}`, "2", "1Gi", "Guaranteed"},
	} {
		s := read(t, tt.in)
		r := podspec.Requests(s)
		if cpu := r["cpu"]; cpu.Cmp(resource.MustParse(tt.cpu)) != 0 {
			t.Errorf("%s: cpu is %s, want %s", tt.name, cpu.String(), tt.cpu)
		}
		if m := r["memory"]; m.Cmp(resource.MustParse(tt.memory)) != 0 {
			t.Errorf("%s: memory is %s, want %s", tt.name, m.String(), tt.memory)
		}
		if q := podspec.QOS(s); string(q) != tt.qos {
			t.Errorf("%s: quality is %s, want %s", tt.name, q, tt.qos)
		}
	}
}
