// Package apiextensions holds the kind of the API group apiextensions.k8s.io.
package apiextensions
