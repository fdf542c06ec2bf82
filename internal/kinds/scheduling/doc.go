// Package scheduling holds the kinds of the API group scheduling.k8s.io.
package scheduling
