// Package flowcontrol holds the kinds of the API group
// flowcontrol.apiserver.k8s.io.
package flowcontrol
