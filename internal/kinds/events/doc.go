// Package events holds the kind of the API group events.k8s.io: core events
// under other field names.
package events
