package openapi

// optional are the fields that are always written but need not be given. Their
// Go types do not tell; the comments in Kubernetes' sources do.
var optional = map[string]bool{
	"io.k8s.api.core.v1.ContainerImage.names":               true,
	"io.k8s.api.core.v1.Event.reportingComponent":           true,
	"io.k8s.api.core.v1.Event.reportingInstance":            true,
	"io.k8s.api.core.v1.GRPCAction.service":                 true,
	"io.k8s.api.core.v1.NodeRuntimeHandler.name":            true,
	"io.k8s.api.core.v1.ProjectedVolumeSource.sources":      true,
	"io.k8s.api.core.v1.TypedLocalObjectReference.apiGroup": true,
	"io.k8s.api.core.v1.TypedObjectReference.apiGroup":      true,
	"io.k8s.api.discovery.v1.EndpointSlice.endpoints":       true,
	"io.k8s.api.discovery.v1.EndpointSlice.ports":           true,
}
