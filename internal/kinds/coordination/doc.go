// Package coordination holds the kinds of coordination.k8s.io/v1: a file per kind with its
// names, defaults, validation, columns and field selectors.
package coordination
