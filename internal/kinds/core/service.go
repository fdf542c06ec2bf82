package core

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/wherry-project/wherry/internal/api"
)

// Service is the kind of services.
func Service() *api.Kind {
	doc := corev1.ServiceSpec{}.SwaggerDoc()
	return &api.Kind{
		Version: "v1", Kind: "Service",
		Resource: "services", Singular: "service",
		Warn:           api.Warn(warnService),
		CreateOnUpdate: true,
		ShortNames:     []string{"svc"},
		Categories:     []string{"all"},
		Namespaced:     true,
		Verbs:          allVerbs(),
		Subresources: []api.Subresource{
			{Name: "proxy", Kind: "ServiceProxyOptions", Verbs: proxyVerbs()},
			{Name: "status", Verbs: statusVerbs()},
		},
		New:       func() api.Object { return &corev1.Service{} },
		ValidName: serviceName,
		OnCreate:  api.On(func(s *corev1.Service) { s.Status = corev1.ServiceStatus{} }),
		Default:   api.On(defaultService),
		OnUpdate:  api.OnPair(keepOfService),
		OnStatus: api.OnPair(func(s, old *corev1.Service) {
			api.KeepMeta(s, old)
			s.Spec = *old.Spec.DeepCopy()
		}),
		Validate:       api.Check(validateService),
		ValidateUpdate: api.CheckPair(validateServiceUpdate),
		ValidateStatus: api.CheckPair(validateServiceStatus),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Type", doc["type"]),
			api.TextColumn("Cluster-IP", doc["clusterIP"]),
			api.TextColumn("External-IP", doc["externalIPs"]),
			api.TextColumn("Port(s)", doc["ports"]),
			api.AgeColumn(),
			wideText("Selector", doc["selector"]),
		},
		Cells:      api.Row(serviceCells),
		FieldNames: []string{"spec.clusterIP", "spec.type"},
		Fields: api.Of(func(s *corev1.Service) map[string]string {
			return map[string]string{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		}),
		DeleteAnswersObject: true,
	}
}

// serviceName takes what either of Kubernetes' two rules for the names of
// services takes: newer servers let a name begin with a digit.
func serviceName(name string, prefix bool) []string {
	if len(validation.NameIsDNSLabel(name, prefix)) == 0 {
		return nil
	}
	return validation.NameIsDNS1035Label(name, prefix)
}

func serviceCells(s *corev1.Service, now time.Time) []any {
	ip := api.CellNone
	if len(s.Spec.ClusterIPs) > 0 {
		ip = s.Spec.ClusterIPs[0]
	} else if s.Spec.ClusterIP != "" {
		ip = s.Spec.ClusterIP
	}
	ports := servicePorts(s.Spec.Ports)
	if ports == "" {
		ports = api.CellNone
	}
	return []any{
		s.Name, string(s.Spec.Type), ip, externalIP(s), ports, api.Age(s.CreationTimestamp, now),
		labels.FormatLabels(s.Spec.Selector),
	}
}

func externalIP(s *corev1.Service) string {
	external := strings.Join(s.Spec.ExternalIPs, ",")
	switch s.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		var all []string
		for _, in := range s.Status.LoadBalancer.Ingress {
			if in.IP != "" {
				all = append(all, in.IP)
			} else if in.Hostname != "" {
				all = append(all, in.Hostname)
			}
		}
		all = append(all, s.Spec.ExternalIPs...)
		if len(all) == 0 {
			return "<pending>"
		}
		return strings.Join(all, ",")
	}
	if external == "" {
		return api.CellNone
	}
	return external
}

func servicePorts(ports []corev1.ServicePort) string {
	out := make([]string, len(ports))
	for i, p := range ports {
		out[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		if p.NodePort > 0 {
			out[i] = fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
		}
	}
	return strings.Join(out, ",")
}
