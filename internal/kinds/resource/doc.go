// Package resource holds the kinds of the API group resource.k8s.io: devices,
// and claims of them.
package resource
