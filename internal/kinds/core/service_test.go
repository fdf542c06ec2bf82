package core_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/kinds/core"
)

func service(spec string) string { return `{metadata: {name: a}, spec: {` + spec + `}}` }

func TestServiceDefaults(t *testing.T) {
	k := core.Service()
	for _, tt := range []struct{ name, in, want string }{
		{
			"cluster", `selector: {a: b}, ports: [{port: 80}]`,
			`{selector: {a: b}, type: ClusterIP, sessionAffinity: None, internalTrafficPolicy: Cluster, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80, protocol: TCP, targetPort: 80}]}`,
		},
		{
			"node port", `type: NodePort, ports: [{port: 80, protocol: UDP, targetPort: dns}]`,
			`{type: NodePort, sessionAffinity: None, internalTrafficPolicy: Cluster, externalTrafficPolicy: Cluster, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80, protocol: UDP, targetPort: dns}]}`,
		},
		{
			"balancer", `type: LoadBalancer, ports: [{port: 80}]`,
			`{type: LoadBalancer, allocateLoadBalancerNodePorts: true, sessionAffinity: None, internalTrafficPolicy: Cluster, externalTrafficPolicy: Cluster, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80, protocol: TCP, targetPort: 80}]}`,
		},
		{
			"affinity", `sessionAffinity: ClientIP, ports: [{port: 80}]`,
			`{type: ClusterIP, sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 10800}}, internalTrafficPolicy: Cluster, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80, protocol: TCP, targetPort: 80}]}`,
		},
		{"name", `type: ExternalName, externalName: a.b`, `{type: ExternalName, externalName: a.b, sessionAffinity: None}`},
		{
			"headless", `clusterIP: None, selector: {a: b}`,
			`{type: ClusterIP, clusterIP: None, clusterIPs: [None], selector: {a: b}, sessionAffinity: None, internalTrafficPolicy: Cluster, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack}`,
		},
		{
			"headless without selector", `clusterIP: None`,
			`{type: ClusterIP, clusterIP: None, clusterIPs: [None], sessionAffinity: None, internalTrafficPolicy: Cluster, ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack}`,
		},
		{
			"own address", `clusterIP: "10.96.0.9", ports: [{port: 80}]`,
			`{type: ClusterIP, clusterIP: "10.96.0.9", clusterIPs: ["10.96.0.9"], sessionAffinity: None, internalTrafficPolicy: Cluster, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80, protocol: TCP, targetPort: 80}]}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := made(t, k, service(tt.in)).(*corev1.Service)
			match(t, check(k, s))
			var want corev1.ServiceSpec
			if err := yaml.UnmarshalStrict([]byte(tt.want), &want); err != nil {
				t.Fatal(err)
			}
			got, _ := yaml.Marshal(s.Spec)
			wanted, _ := yaml.Marshal(want)
			if string(got) != string(wanted) {
				t.Errorf("got\n%swant\n%s", got, wanted)
			}
		})
	}
}

func TestServiceInvalid(t *testing.T) {
	invalid{
		{"name", `{metadata: {name: a.b}, spec: {ports: [{port: 1}]}}`, []string{`metadata.name: Invalid value: "a.b": a DNS-1035 label must consist of`}},
		{"no ports", service(``), []string{"spec.ports: Required value"}},
		{"port", service(`ports: [{port: 0}]`), []string{"spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive", "spec.ports[0].targetPort: Invalid value: 0"}},
		{"names", service(`ports: [{port: 1}, {port: 2, name: b}]`), []string{"spec.ports[0].name: Required value"}},
		{"name twice", service(`ports: [{port: 1, name: b}, {port: 2, name: b}]`), []string{`spec.ports[1].name: Duplicate value: "b"`}},
		{"port twice", service(`ports: [{port: 1, name: b}, {port: 1, name: c}]`), []string{"spec.ports[1]: Duplicate value: "}},
		{"port name", service(`ports: [{port: 1, name: A}]`), []string{`spec.ports[0].name: Invalid value: "A"`}},
		{"protocol", service(`ports: [{port: 1, protocol: ICMP}]`), []string{`spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"`}},
		{"target", service(`ports: [{port: 1, targetPort: "a_b"}]`), []string{`spec.ports[0].targetPort: Invalid value: "a_b"`}},
		{"node port", service(`ports: [{port: 1, nodePort: 30000}]`), []string{"spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"}},
		{"type", service(`type: Magic, ports: [{port: 1}]`), []string{`spec.type: Unsupported value: "Magic": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"`}},
		{"affinity", service(`sessionAffinity: Cookie, ports: [{port: 1}]`), []string{`spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"`}},
		{"affinity timeout", service(`sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}, ports: [{port: 1}]`), []string{"spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400"}},
		{"external name", service(`type: ExternalName`), []string{"spec.externalName: Required value"}},
		{"external name text", service(`type: ExternalName, externalName: a_b`), []string{`spec.externalName: Invalid value: "a_b"`}},
		{"external name with address", service(`type: ExternalName, externalName: a, clusterIP: 10.96.0.9`), []string{"spec.clusterIPs: Forbidden: may not be set for ExternalName services"}},
		{"headless node port", service(`type: NodePort, clusterIP: None, ports: [{port: 1}]`), []string{`spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for NodePort services`}},
		{"address", service(`clusterIP: x, ports: [{port: 1}]`), []string{`spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address`}},
		{"external address", service(`externalIPs: [127.0.0.1, z], ports: [{port: 1}]`), []string{`spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`, `spec.externalIPs[1]: Invalid value: "z"`}},
		{"selector", service(`selector: {"a b": c}, ports: [{port: 1}]`), []string{`spec.selector: Invalid value: "a b"`}},
		{"external policy", service(`externalTrafficPolicy: Local, ports: [{port: 1}]`), []string{`spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services`}},
		{"external policy text", service(`type: NodePort, externalTrafficPolicy: Near, ports: [{port: 1}]`), []string{`spec.externalTrafficPolicy: Unsupported value: "Near"`}},
		{"internal policy", service(`internalTrafficPolicy: Near, ports: [{port: 1}]`), []string{`spec.internalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"`}},
		{"class", service(`loadBalancerClass: a/b, ports: [{port: 1}]`), []string{"spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"}},
		{"health port", service(`healthCheckNodePort: 30000, ports: [{port: 1}]`), []string{"spec.healthCheckNodePort: Invalid value: 30000: may only be set when"}},
		{"family", service(`ipFamilies: [IPv5], ports: [{port: 1}]`), []string{`spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"`}},
		{"family of address", service(`clusterIP: 10.96.0.9, ipFamilies: [IPv6], ports: [{port: 1}]`), []string{`spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster`, "spec.clusterIPs[0]: Invalid value: \"10.96.0.9\": expected an IPv6 value as indicated by `ipFamilies[0]`"}},
		{"distribution", service(`trafficDistribution: Far, ports: [{port: 1}]`), []string{`spec.trafficDistribution: Unsupported value: "Far"`}},
		{"ranges", service(`loadBalancerSourceRanges: [x], type: LoadBalancer, ports: [{port: 1}]`), []string{`spec.loadBalancerSourceRanges[0]: Invalid value: "x"`}},
	}.run(t, core.Service())
}

func TestServiceUpdate(t *testing.T) {
	had := service(`clusterIP: 10.96.0.9, ports: [{port: 1}]`)
	updates{
		{"address left out", had, service(`ports: [{port: 2}]`), nil},
		{"address", had, service(`clusterIP: 10.96.0.8, ports: [{port: 1}]`), []string{`spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set`}},
		{"to headless", had, service(`clusterIP: None, ports: [{port: 1}]`), []string{"spec.clusterIPs[0]: Invalid value"}},
		{"to a name", had, service(`type: ExternalName, externalName: a.b`), nil},
		{"to a name with everything kept", had, service(`type: ExternalName, externalName: a.b, clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, internalTrafficPolicy: Cluster, ports: [{port: 1}]`), nil},
		{"from a name", service(`type: ExternalName, externalName: a.b`), had, nil},
		{"to cluster with node ports kept", service(`type: NodePort, ports: [{port: 1, nodePort: 30001}]`), service(`type: ClusterIP, externalTrafficPolicy: Cluster, ports: [{port: 1, nodePort: 30001}]`), nil},
		{"class", service(`type: LoadBalancer, loadBalancerClass: a/b, ports: [{port: 1}]`), service(`type: LoadBalancer, loadBalancerClass: a/c, ports: [{port: 1}]`), []string{"spec.loadBalancerClass: Invalid value: \"a/c\": may not change once set"}},
		{"family", service(`ipFamilies: [IPv4], ports: [{port: 1}]`), service(`ipFamilies: [IPv6], ports: [{port: 1}]`), []string{`spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster`, `spec.ipFamilies[0]: Invalid value: ["IPv6"]: may not change once set`}},
		{"two families", service(`ipFamilies: [IPv4], ports: [{port: 1}]`), service(`ipFamilyPolicy: RequireDualStack, ports: [{port: 1}]`), []string{`spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services`}},
	}.run(t, core.Service())
}

func TestServiceKeepsWhatWasAllocated(t *testing.T) {
	k := core.Service()
	old := made(t, k, service(`type: NodePort, clusterIP: 10.96.0.9, ports: [{port: 1, nodePort: 30001, name: a}, {port: 2, nodePort: 30002, name: b}]`)).(*corev1.Service)
	obj := &corev1.Service{}
	if err := yaml.Unmarshal([]byte(service(`type: NodePort, ports: [{port: 2, name: x}, {port: 3, name: y}]`)), obj); err != nil {
		t.Fatal(err)
	}
	k.OnUpdate(obj, old)
	if obj.Spec.ClusterIP != "10.96.0.9" || len(obj.Spec.ClusterIPs) != 1 || obj.Spec.Ports[0].NodePort != 30002 || obj.Spec.Ports[1].NodePort != 0 {
		t.Errorf("kept %+v", obj.Spec)
	}
}

func TestServiceStatus(t *testing.T) {
	k := core.Service()
	old := made(t, k, service(`ports: [{port: 1}]`)).(*corev1.Service)
	obj := old.DeepCopy()
	obj.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "x", Hostname: "10.0.0.1"}}
	obj.Spec.Type, obj.Labels = "LoadBalancer", map[string]string{"a": "b"}
	k.OnStatus(obj, old)
	if obj.Spec.Type != "ClusterIP" || obj.Labels != nil {
		t.Error("a write of the status changed more")
	}
	match(t, k.ValidateStatus(obj, old),
		"status.loadBalancer.ingress: Forbidden: may only be used when",
		`status.loadBalancer.ingress[0].ip: Invalid value: "x"`,
		`status.loadBalancer.ingress[0].hostname: Invalid value: "10.0.0.1": must be a DNS name, not an IP address`)
}
