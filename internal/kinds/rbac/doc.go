// Package rbac holds the kinds of the API group rbac.authorization.k8s.io.
package rbac
