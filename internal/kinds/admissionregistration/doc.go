// Package admissionregistration holds the kinds of the API group
// admissionregistration.k8s.io.
package admissionregistration
