// Package storage holds the kinds of the API group storage.k8s.io.
package storage
