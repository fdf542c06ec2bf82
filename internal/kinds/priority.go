package kinds

// groups are the API groups in the order in which clients try them where a name
// is ambiguous, with the weights that Kubernetes gives them.
var groups = map[string]int32{
	"apiregistration.k8s.io":       20000,
	"":                             18000,
	"apps":                         17800,
	"events.k8s.io":                17750,
	"authentication.k8s.io":        17700,
	"authorization.k8s.io":         17600,
	"autoscaling":                  17500,
	"batch":                        17400,
	"certificates.k8s.io":          17300,
	"networking.k8s.io":            17200,
	"policy":                       17100,
	"rbac.authorization.k8s.io":    17000,
	"storage.k8s.io":               16800,
	"apiextensions.k8s.io":         16700,
	"admissionregistration.k8s.io": 16700,
	"scheduling.k8s.io":            16600,
	"coordination.k8s.io":          16500,
	"node.k8s.io":                  16300,
	"discovery.k8s.io":             16200,
	"flowcontrol.apiserver.k8s.io": 16100,
	"resource.k8s.io":              15900,
	"metrics.k8s.io":               100,
}

// Priority is the weight of a group, as in the spec of its APIService; groups
// of equal weight follow by name. A group that is not known has the least.
func Priority(group string) int32 {
	if p, ok := groups[group]; ok {
		return p
	}
	return 1
}

// VersionPriority is the weight of a version among those of its group.
func VersionPriority(group, version string) int32 {
	switch {
	case group == "":
		return 1
	case group == "autoscaling" && version == "v2":
		return 30
	case group == "flowcontrol.apiserver.k8s.io":
		return 21
	case group == "resource.k8s.io":
		return 9
	case group == "metrics.k8s.io":
		return 100
	}
	return 15
}
