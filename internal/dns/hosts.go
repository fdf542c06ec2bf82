package dns

import (
	"fmt"
	"net/netip"
	"strings"
)

// HostsConfig is what a pod's /etc/hosts follows from.
type HostsConfig struct {
	HostNetwork bool
	NodeFile    string // the node's own file, for HostNetwork
	Addresses   []netip.Addr
	Hostname    string
	Subdomain   string // with it the pod has a name of its own in the cluster
	Namespace   string
	Domain      string // cluster domain
	Aliases     []HostAlias
}

// HostAlias is an address with names of the pod's choosing.
type HostAlias struct {
	IP        string
	Hostnames []string
}

const localHosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
`

// Hosts returns a pod's /etc/hosts.
func Hosts(c HostsConfig) string {
	var b strings.Builder
	if c.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.WriteString(c.NodeFile)
		if c.NodeFile != "" && !strings.HasSuffix(c.NodeFile, "\n") {
			b.WriteByte('\n')
		}
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n" + localHosts)
		for _, a := range c.Addresses {
			fmt.Fprintf(&b, "%s\t%s\n", a, strings.Join(c.names(), "\t"))
		}
	}
	if len(c.Aliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range c.Aliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return b.String()
}

// names returns what the pod's addresses are called, full name first.
func (c HostsConfig) names() []string {
	if c.Subdomain == "" {
		return []string{c.Hostname}
	}
	return []string{FQDN(c.Hostname, c.Subdomain, c.Namespace, c.Domain), c.Hostname}
}

// FQDN returns the name in the cluster of a pod with a subdomain.
func FQDN(hostname, subdomain, namespace, domain string) string {
	return fmt.Sprintf("%s.%s.%s.svc.%s", hostname, subdomain, namespace, domain)
}
