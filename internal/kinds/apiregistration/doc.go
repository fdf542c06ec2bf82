// Package apiregistration holds the kind of the API group
// apiregistration.k8s.io.
package apiregistration
