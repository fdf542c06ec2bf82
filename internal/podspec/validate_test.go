package podspec_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/podspec"
)

// good is a spec with a bit of everything.
func good() *corev1.PodSpec {
	always := corev1.ContainerRestartPolicyAlways
	s := &corev1.PodSpec{
		Volumes: []corev1.Volume{
			{Name: "scratch"},
			{Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}}},
			{Name: "all", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}},
			}}}},
		},
		InitContainers: []corev1.Container{
			{Name: "first", Image: "busybox"},
			{Name: "sidecar", Image: "busybox:1", RestartPolicy: &always, StartupProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}}},
		},
		Containers: []corev1.Container{
			{
				Name: "app", Image: "example.com:5000/app:1.2",
				Ports:         []corev1.ContainerPort{{Name: "http", ContainerPort: 80}},
				Env:           []corev1.EnvVar{{Name: "A", Value: "b"}, {Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}},
				VolumeMounts:  []corev1.VolumeMount{{Name: "scratch", MountPath: "/tmp"}, {Name: "conf", MountPath: "/etc/app"}},
				LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("http")}}},
				Lifecycle:     &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}}},
				Resources: corev1.ResourceRequirements{
					Requests: list("cpu", "100m"), Limits: list("cpu", "1", "memory", "64Mi"),
				},
			},
			{Name: "other", Image: "busybox@sha256:0000"},
		},
		Tolerations: []corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpExists}},
	}
	podspec.Default(s)
	podspec.DefaultPod(s)
	return s
}

func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func ptr[T any](v T) *T { return &v }

func TestGoodSpecIsValid(t *testing.T) {
	for _, in := range []podspec.Where{podspec.InPod, podspec.InTemplate} {
		if errs := podspec.Validate(good(), in, field.NewPath("spec")); len(errs) > 0 {
			t.Errorf("in pod %v: %v", in, errs)
		}
	}
}

func TestValidate(t *testing.T) {
	type spec = corev1.PodSpec
	for _, tt := range []struct {
		name string
		do   func(s *spec)
		want []string // beginnings of the errors, in order
	}{
		{"no containers", func(s *spec) { s.Containers = nil }, []string{"spec.containers: Required value"}},
		{"no name", func(s *spec) { s.Containers[0].Name = "" }, []string{"spec.containers[0].name: Required value"}},
		{"bad name", func(s *spec) { s.Containers[0].Name = "A_" }, []string{`spec.containers[0].name: Invalid value: "A_": a lowercase RFC 1123 label must consist of`}},
		{"same name", func(s *spec) { s.Containers[1].Name = "app" }, []string{`spec.containers[1].name: Duplicate value: "app"`}},
		{"same name as an init container", func(s *spec) { s.InitContainers[0].Name = "app" }, []string{`spec.initContainers[0].name: Duplicate value: "app"`}},
		{"no image", func(s *spec) { s.Containers[0].Image = "" }, []string{"spec.containers[0].image: Required value"}},
		{"blank image", func(s *spec) { s.Containers[0].Image = " x" }, []string{`spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace`}},
		{"pull policy", func(s *spec) { s.Containers[0].ImagePullPolicy = "Sometimes" }, []string{`spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"`}},
		{"termination message policy", func(s *spec) { s.Containers[0].TerminationMessagePolicy = "" }, []string{"spec.containers[0].terminationMessagePolicy: Required value"}},
		{"restart policy", func(s *spec) { s.RestartPolicy = "Often" }, []string{`spec.restartPolicy: Unsupported value: "Often": supported values: "Always", "OnFailure", "Never"`}},
		{"dns policy", func(s *spec) { s.DNSPolicy = "Magic" }, []string{`spec.dnsPolicy: Unsupported value: "Magic"`}},
		{"dns none without config", func(s *spec) { s.DNSPolicy = "None" }, []string{"spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"}},
		{"dns none without servers", func(s *spec) { s.DNSPolicy = "None"; s.DNSConfig = &corev1.PodDNSConfig{} }, []string{"spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver"}},
		{"nameserver", func(s *spec) { s.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"a"}} }, []string{`spec.dnsConfig.nameservers[0]: Invalid value: "a"`}},
		{"search", func(s *spec) { s.DNSConfig = &corev1.PodDNSConfig{Searches: []string{"a b"}} }, []string{`spec.dnsConfig.searches[0]: Invalid value: "a b"`}},
		{"port number", func(s *spec) { s.Containers[0].Ports[0].ContainerPort = 70000 }, []string{"spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"}},
		{"no port", func(s *spec) { s.Containers[0].Ports[0].ContainerPort = 0 }, []string{"spec.containers[0].ports[0].containerPort: Required value"}},
		{"port name", func(s *spec) { s.Containers[0].Ports[0].Name = "123" }, []string{`spec.containers[0].ports[0].name: Invalid value: "123": must contain at least one letter`}},
		{"long port name", func(s *spec) { s.Containers[0].Ports[0].Name = strings.Repeat("a", 16) }, []string{`spec.containers[0].ports[0].name: Invalid value: "aaaaaaaaaaaaaaaa": must be no more than 15`}},
		{"protocol", func(s *spec) { s.Containers[0].Ports[0].Protocol = "ICMP" }, []string{`spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"`}},
		{"host port taken twice", func(s *spec) {
			s.Containers[0].Ports[0].HostPort = 80
			s.Containers[1].Ports = []corev1.ContainerPort{{ContainerPort: 81, HostPort: 80, Protocol: "TCP"}}
		}, []string{`spec.containers[1].ports[0].hostPort: Duplicate value: "TCP//80"`}},
		{"host network", func(s *spec) { s.HostNetwork = true }, []string{"spec.containers[0].ports[0].hostPort: Invalid value: 0: must match `containerPort` when `hostNetwork` is true"}},
		{"env without name", func(s *spec) { s.Containers[0].Env[0].Name = "" }, []string{"spec.containers[0].env[0].name: Required value"}},
		{"env name", func(s *spec) { s.Containers[0].Env[0].Name = "a=b" }, []string{`spec.containers[0].env[0].name: Invalid value: "a=b"`}},
		{"env with value and source", func(s *spec) { s.Containers[0].Env[1].Value = "x" }, []string{"spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"}},
		{"env source empty", func(s *spec) { s.Containers[0].Env[1].ValueFrom = &corev1.EnvVarSource{} }, []string{`spec.containers[0].env[1].valueFrom: Invalid value: "": must specify one of:`}},
		{"env field", func(s *spec) { s.Containers[0].Env[1].ValueFrom.FieldRef.FieldPath = "status.phase" }, []string{`spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name",`}},
		{"env field unknown", func(s *spec) { s.Containers[0].Env[1].ValueFrom.FieldRef.FieldPath = "spec.x" }, []string{`spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: "spec.x": error converting fieldPath: field label not supported: spec.x`}},
		{"env key ref", func(s *spec) {
			s.Containers[0].Env[1].ValueFrom = &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{}}
		}, []string{"spec.containers[0].env[1].valueFrom.secretKeyRef.name: Required value", "spec.containers[0].env[1].valueFrom.secretKeyRef.key: Required value"}},
		{"env resource", func(s *spec) {
			s.Containers[0].Env[1].ValueFrom = &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.gpu"}}
		}, []string{`spec.containers[0].env[1].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.gpu"`}},
		{"env divisor", func(s *spec) {
			s.Containers[0].Env[1].ValueFrom = &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu", Divisor: resource.MustParse("1k")}}
		}, []string{`spec.containers[0].env[1].valueFrom.resourceFieldRef.divisor: Invalid value: "1k": only divisor's values 1m and 1 are supported with the cpu resource`}},
		{"env from nothing", func(s *spec) { s.Containers[0].EnvFrom = []corev1.EnvFromSource{{}} }, []string{"spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"}},
		{"mount of no volume", func(s *spec) { s.Containers[0].VolumeMounts[0].Name = "none" }, []string{`spec.containers[0].volumeMounts[0].name: Not found: "none"`}},
		{"mount path twice", func(s *spec) { s.Containers[0].VolumeMounts[1].MountPath = "/tmp" }, []string{`spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/tmp": must be unique`}},
		{"no mount path", func(s *spec) { s.Containers[0].VolumeMounts[1].MountPath = "" }, []string{"spec.containers[0].volumeMounts[1].mountPath: Required value"}},
		{"sub path", func(s *spec) { s.Containers[0].VolumeMounts[0].SubPath = "../x" }, []string{`spec.containers[0].volumeMounts.subPath: Invalid value: "../x": must not contain '..'`}},
		{"absolute sub path", func(s *spec) { s.Containers[0].VolumeMounts[0].SubPath = "/x" }, []string{`spec.containers[0].volumeMounts.subPath: Invalid value: "/x": must be a relative path`}},
		{"propagation", func(s *spec) {
			s.Containers[0].VolumeMounts[0].MountPropagation = ptr(corev1.MountPropagationBidirectional)
		}, []string{"spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers"}},
		{"volume twice", func(s *spec) { s.Volumes[1].Name = "scratch"; s.Containers[0].VolumeMounts = nil }, []string{`spec.volumes[1].name: Duplicate value: "scratch"`}},
		{"volume with two sources", func(s *spec) { s.Volumes[1].EmptyDir = &corev1.EmptyDirVolumeSource{} }, []string{"spec.volumes[1].configMap: Forbidden: may not specify more than 1 volume type"}},
		{"volume without source", func(s *spec) { s.Volumes[0].VolumeSource = corev1.VolumeSource{} }, []string{"spec.volumes[0]: Required value: must specify a volume type"}},
		{"volume mode", func(s *spec) { s.Volumes[1].ConfigMap.DefaultMode = ptr(int32(0o1000)) }, []string{"spec.volumes[1].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive"}},
		{"host path", func(s *spec) {
			s.Volumes[0].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/a/../b", Type: ptr(corev1.HostPathType("Hole"))}}
		}, []string{`spec.volumes[0].hostPath.path: Invalid value: "/a/../b": must not contain '..'`, `spec.volumes[0].hostPath.type: Unsupported value: "Hole"`}},
		{"token expiry", func(s *spec) {
			s.Volumes[2].Projected.Sources[0].ServiceAccountToken.ExpirationSeconds = ptr(int64(60))
		}, []string{"spec.volumes[2].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes"}},
		{"projected paths", func(s *spec) { s.Volumes[2].Projected.Sources[1].DownwardAPI.Items[0].Path = "token" }, []string{`spec.volumes[2].projected.sources[1].downwardAPI.path: Invalid value: "token": conflicting duplicate paths`}},
		{"request above limit", func(s *spec) { s.Containers[0].Resources.Requests = list("cpu", "2") }, []string{`spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`}},
		{"negative limit", func(s *spec) {
			s.Containers[0].Resources = corev1.ResourceRequirements{Limits: list("memory", "-1")}
		}, []string{`spec.containers[0].resources.limits[memory]: Invalid value: "-1": must be greater than or equal to 0`}},
		{"unknown resource", func(s *spec) {
			s.Containers[0].Resources = corev1.ResourceRequirements{Limits: list("gpu", "1")}
		}, []string{
			`spec.containers[0].resources.limits[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified`,
			`spec.containers[0].resources.limits[gpu]: Invalid value: "gpu": must be a standard resource for containers`,
		}},
		{"extended resource without limit", func(s *spec) {
			s.Containers[0].Resources = corev1.ResourceRequirements{Requests: list("example.com/gpu", "1")}
		}, []string{"spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources"}},
		{"half an extended resource", func(s *spec) {
			s.Containers[0].Resources = corev1.ResourceRequirements{Limits: list("example.com/gpu", "500m")}
		}, []string{`spec.containers[0].resources.limits[example.com/gpu]: Invalid value: "500m": must be an integer`}},
		{"huge pages alone", func(s *spec) {
			s.Containers[0].Resources = corev1.ResourceRequirements{Limits: list("hugepages-2Mi", "4Mi")}
		}, []string{"spec.containers[0].resources: Forbidden: HugePages require cpu or memory"}},
		{"probe without handler", func(s *spec) { s.Containers[0].LivenessProbe.ProbeHandler = corev1.ProbeHandler{} }, []string{"spec.containers[0].livenessProbe: Required value: must specify a handler type"}},
		{"probe with two handlers", func(s *spec) {
			s.Containers[0].LivenessProbe.Exec = &corev1.ExecAction{Command: []string{"a"}}
		}, []string{"spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type"}},
		{"probe threshold", func(s *spec) { s.Containers[0].LivenessProbe.SuccessThreshold = 2 }, []string{"spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"}},
		{"probe period", func(s *spec) { s.Containers[0].LivenessProbe.PeriodSeconds = -1 }, []string{"spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0"}},
		{"probe scheme", func(s *spec) { s.Containers[0].LivenessProbe.HTTPGet.Scheme = "FTP" }, []string{`spec.containers[0].livenessProbe.httpGet.scheme: Unsupported value: "FTP": supported values: "HTTP", "HTTPS"`}},
		{"probe port", func(s *spec) { s.Containers[0].LivenessProbe.HTTPGet.Port = intstr.FromInt32(0) }, []string{"spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive"}},
		{"readiness grace", func(s *spec) {
			p := *s.Containers[0].LivenessProbe
			p.TerminationGracePeriodSeconds = ptr(int64(5))
			s.Containers[0].ReadinessProbe = &p
		}, []string{"spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes"}},
		{"probe of an init container", func(s *spec) { s.InitContainers[0].LivenessProbe = s.Containers[0].LivenessProbe }, []string{"spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"}},
		{"hook", func(s *spec) { s.Containers[0].Lifecycle.PreStop.Sleep.Seconds = 31 }, []string{"spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"}},
		{"user id", func(s *spec) { s.SecurityContext.RunAsUser = ptr(int64(-1)) }, []string{"spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"}},
		{"sysctl", func(s *spec) { s.SecurityContext.Sysctls = []corev1.Sysctl{{Name: "A"}} }, []string{`spec.securityContext.sysctls[0].name: Invalid value: "A": must have at most 253 characters and match regex`}},
		{"seccomp", func(s *spec) { s.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: "Localhost"} }, []string{"spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost"}},
		{"privileged without escalation", func(s *spec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr(true), AllowPrivilegeEscalation: ptr(false)}
		}, []string{"spec.containers[0].securityContext: Invalid value: "}},
		{"shared processes of the host", func(s *spec) { s.HostPID = true; s.ShareProcessNamespace = ptr(true) }, []string{"spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled"}},
		{"toleration without key", func(s *spec) { s.Tolerations[0] = corev1.Toleration{} }, []string{`spec.tolerations[0].operator: Invalid value: "": operator must be Exists when`}},
		{"toleration seconds", func(s *spec) { s.Tolerations[0].TolerationSeconds = ptr(int64(1)) }, []string{`spec.tolerations[0].effect: Invalid value: "": effect must be 'NoExecute' when`}},
		{"toleration effect", func(s *spec) { s.Tolerations[0].Effect = "Maybe" }, []string{`spec.tolerations[0].effect: Unsupported value: "Maybe"`}},
		{"node selector", func(s *spec) { s.NodeSelector = map[string]string{"a b": ""} }, []string{`spec.nodeSelector: Invalid value: "a b": name part must consist of`}},
		{"affinity without terms", func(s *spec) {
			s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{}}}
		}, []string{"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term"}},
		{"affinity weight", func(s *spec) {
			s.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 101, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: "a"}}}}}
		}, []string{"spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100"}},
		{"topology key", func(s *spec) {
			s.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{}}}}
		}, []string{"spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty"}},
		{"spread", func(s *spec) {
			s.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{TopologyKey: "a", WhenUnsatisfiable: "Panic"}}
		}, []string{"spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero", `spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Panic": supported values: "DoNotSchedule", "ScheduleAnyway"`}},
		{"spread selector", func(s *spec) {
			s.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: "a", WhenUnsatisfiable: "ScheduleAnyway", LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "In"}}}}}
		}, []string{"spec.topologySpreadConstraints[0].labelSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"}},
		{"deadline", func(s *spec) { s.ActiveDeadlineSeconds = ptr(int64(0)) }, []string{"spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"}},
		{"hostname", func(s *spec) { s.Hostname = "a.b" }, []string{`spec.hostname: Invalid value: "a.b": must not contain dots`}},
		{"service account", func(s *spec) { s.ServiceAccountName = "A" }, []string{`spec.serviceAccountName: Invalid value: "A": a lowercase RFC 1123 subdomain`}},
		{"node name", func(s *spec) { s.NodeName = "A" }, []string{`spec.nodeName: Invalid value: "A": a lowercase RFC 1123 subdomain`}},
		{"pull secret", func(s *spec) { s.ImagePullSecrets = []corev1.LocalObjectReference{{}} }, nil}, // it is warned of
		{"host alias", func(s *spec) { s.HostAliases = []corev1.HostAlias{{IP: "x", Hostnames: []string{"A"}}} }, []string{`spec.hostAliases[0].ip: Invalid value: "x"`, `spec.hostAliases[0].hostnames[0]: Invalid value: "A"`}},
		{"gate twice", func(s *spec) { s.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a"}, {Name: "a"}} }, []string{`spec.schedulingGates[1]: Duplicate value: "a"`}},
		{"readiness gate", func(s *spec) { s.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "a b"}} }, []string{`spec.readinessGates[0].conditionType: Invalid value: "a b"`}},
		{"preemption", func(s *spec) { s.PreemptionPolicy = ptr(corev1.PreemptionPolicy("x")) }, []string{`spec.preemptionPolicy: Unsupported value: "x"`}},
		{"os", func(s *spec) { s.OS = &corev1.PodOS{Name: "plan9"} }, []string{`spec.os.name: Unsupported value: "plan9"`}},
		{"pod-level below containers", func(s *spec) { s.Resources = &corev1.ResourceRequirements{Requests: list("cpu", "1m")} }, []string{`spec.resources.requests[cpu]: Invalid value: "1m": must be greater than or equal to aggregate container requests of 100m`}},
		{"restart rules", func(s *spec) {
			s.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: "Restart", ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: "In", Values: []int32{1}}}}
		}, []string{"spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := good()
			tt.do(s)
			match(t, podspec.Validate(s, podspec.InPod, field.NewPath("spec")), tt.want)
		})
	}
}

func match(t *testing.T, errs field.ErrorList, want []string) {
	t.Helper()
	for i, e := range errs {
		if i >= len(want) || !strings.HasPrefix(e.Error(), want[i]) {
			t.Errorf("error %d is %s", i, e)
		}
	}
	if len(errs) != len(want) {
		t.Errorf("%d errors, want %d: %q", len(errs), len(want), want)
	}
}

func TestTemplateRules(t *testing.T) {
	template := &corev1.PodTemplateSpec{Spec: *good()}
	template.Labels = map[string]string{"a b": "c"}
	template.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "i"}}}
	podspec.DefaultTemplate(template)
	template.Spec.HostNetwork = true // an unset host port is filled in on the pod
	template.Spec.Containers[0].Image = " x"
	match(t, podspec.ValidateTemplate(template, field.NewPath("spec", "template")), []string{
		`spec.template.labels: Invalid value: "a b"`,
		"spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template",
	})
}
