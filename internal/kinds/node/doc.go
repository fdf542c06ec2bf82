// Package node holds the kinds of the API group node.k8s.io.
package node
