// Package certificates holds the kind of the API group certificates.k8s.io.
package certificates
