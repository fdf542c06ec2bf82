package svcproxy

import (
	"slices"
	"unsafe"
)

// same reports whether two slices are one, element for element the same
// memory. Since a Config is not changed once it was applied, they are then
// equal; most services of a new Config are found unchanged by this alone.
func same[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || unsafe.SliceData(a) == unsafe.SliceData(b))
}

func equal[T comparable](a, b []T) bool { return same(a, b) || slices.Equal(a, b) }

func equalServices(a, b *Service) bool {
	return a.Name == b.Name && a.Affinity == b.Affinity &&
		a.InternalLocal == b.InternalLocal && a.ExternalLocal == b.ExternalLocal &&
		equal(a.ClusterIPs, b.ClusterIPs) && equal(a.ExternalIPs, b.ExternalIPs) &&
		(same(a.Ports, b.Ports) || slices.EqualFunc(a.Ports, b.Ports, equalPorts))
}

func equalPorts(a, b Port) bool {
	return a.Protocol == b.Protocol && a.Port == b.Port && a.NodePort == b.NodePort && equal(a.Endpoints, b.Endpoints)
}

// sameFrame reports whether all but services and host ports is equal.
func sameFrame(a, b *Config) bool {
	return equal(a.ServiceCIDRs, b.ServiceCIDRs) && equal(a.LocalPodCIDRs, b.LocalPodCIDRs) &&
		equal(a.NodeAddresses, b.NodeAddresses) && equal(a.Untranslated, b.Untranslated)
}
