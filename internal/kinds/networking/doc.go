// Package networking holds the kinds of the API group networking.k8s.io.
package networking
