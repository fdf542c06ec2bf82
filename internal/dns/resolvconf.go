package dns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ResolvConf is a resolver's configuration, as in resolv.conf(5).
type ResolvConf struct {
	Nameservers []string
	Searches    []string
	Options     []string // name or name:value
}

// Option is an option of resolv.conf.
type Option struct {
	Name  string
	Value *string
}

// Policy is a pod's dnsPolicy.
type Policy string

// The policies, named as in Kubernetes.
const (
	ClusterFirst            Policy = "ClusterFirst"
	ClusterFirstWithHostNet Policy = "ClusterFirstWithHostNet"
	Default                 Policy = "Default"
	None                    Policy = "None"
)

// PodConfig is what a pod's resolv.conf follows from, beside the node's.
type PodConfig struct {
	Policy      Policy // empty is ClusterFirst
	HostNetwork bool
	Namespace   string
	Domain      string       // cluster domain
	Servers     []netip.Addr // of the cluster's DNS

	// The pod's dnsConfig.
	Nameservers []string
	Searches    []string
	Options     []Option
}

// What a resolver takes note of.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

// ForPod returns the resolver configuration of a pod on a node with the given
// one, and what had to be left out of it, in the words of Kubernetes'
// DNSConfigForming event.
func ForPod(pod PodConfig, node ResolvConf) (ResolvConf, []string) {
	var c ResolvConf
	switch pod.policy() {
	case None:
	case ClusterFirst:
		for _, a := range pod.Servers {
			c.Nameservers = append(c.Nameservers, a.String())
		}
		c.Searches = append([]string{pod.Namespace + ".svc." + pod.Domain, "svc." + pod.Domain, pod.Domain}, node.Searches...)
		c.Options = []string{"ndots:5"}
	default:
		c = ResolvConf{slices.Clone(node.Nameservers), slices.Clone(node.Searches), slices.Clone(node.Options)}
	}
	c.Nameservers = unique(append(c.Nameservers, pod.Nameservers...))
	c.Searches = unique(append(c.Searches, pod.Searches...))
	c.Options = mergeOptions(c.Options, pod.Options)
	return c.limited()
}

// policy returns the policy in effect.
func (p PodConfig) policy() Policy {
	switch {
	case p.Policy == ClusterFirstWithHostNet:
		return ClusterFirst
	case p.Policy == ClusterFirst || p.Policy == "":
		if p.HostNetwork || len(p.Servers) == 0 {
			return Default
		}
		return ClusterFirst
	}
	return p.Policy
}

// limited cuts c to what resolvers honour and says what it cut.
func (c ResolvConf) limited() (ResolvConf, []string) {
	var said []string
	if len(c.Nameservers) > maxNameservers {
		c.Nameservers = c.Nameservers[:maxNameservers]
		said = append(said, "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "+
			strings.Join(c.Nameservers, " "))
	}
	keep, chars := 0, 0
	for _, s := range c.Searches {
		if keep == maxSearches || chars+len(s) > maxSearchChars {
			break
		}
		keep++
		chars += len(s) + 1
	}
	if keep < len(c.Searches) {
		c.Searches = c.Searches[:keep]
		said = append(said, "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "+
			strings.Join(c.Searches, " "))
	}
	return c, said
}

// mergeOptions replaces and adds the pod's options by name.
func mergeOptions(have []string, pod []Option) []string {
	for _, o := range pod {
		text := o.Name
		if o.Value != nil {
			text += ":" + *o.Value
		}
		same := func(s string) bool { name, _, _ := strings.Cut(s, ":"); return name == o.Name }
		if i := slices.IndexFunc(have, same); i >= 0 {
			have[i] = text
			continue
		}
		have = append(have, text)
	}
	return have
}

// String returns the file.
func (c ResolvConf) String() string {
	var b strings.Builder
	for _, n := range c.Nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", n)
	}
	if len(c.Searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.Searches, " "))
	}
	if len(c.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(c.Options, " "))
	}
	return b.String()
}

// Resolvers returns the nameservers as addresses to forward to, on port 53.
// What is not an address is left out.
func (c ResolvConf) Resolvers() []netip.AddrPort {
	var out []netip.AddrPort
	for _, n := range c.Nameservers {
		if a, err := netip.ParseAddr(n); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out
}

// maxResolvConf bounds what is read of a node's file.
const maxResolvConf = 1 << 20

// ParseResolvConf reads resolv.conf as resolvers do: the last of search and
// domain counts, options add up, a trailing dot of a search path is dropped,
// unknown lines are skipped.
func ParseResolvConf(r io.Reader) (ResolvConf, error) {
	var c ResolvConf
	text, err := io.ReadAll(io.LimitReader(r, maxResolvConf+1))
	if err != nil {
		return c, fmt.Errorf("read resolv.conf: %w", err)
	}
	if len(text) > maxResolvConf {
		return c, fmt.Errorf("read resolv.conf: larger than %d bytes", maxResolvConf)
	}
	for line := range strings.Lines(string(text)) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			c.Nameservers = append(c.Nameservers, f[1])
		case "search", "domain":
			c.Searches = nil
			for _, s := range f[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				c.Searches = append(c.Searches, s)
			}
		case "options":
			c.Options = append(c.Options, f[1:]...)
		}
	}
	c.Nameservers, c.Searches, c.Options = unique(c.Nameservers), unique(c.Searches), unique(c.Options)
	return c, nil
}

// unique drops repetitions and keeps the order.
func unique(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// NodeResolvConf reads the node's configuration below root ("/"): the file that
// programs use or, if that names only a stub on the machine itself, which no pod
// can reach, the one behind it that systemd-resolved keeps.
func NodeResolvConf(root string) (ResolvConf, error) {
	c, err := readResolvConf(filepath.Join(root, "etc/resolv.conf"))
	if err != nil || !c.isStub() {
		return c, err
	}
	behind, err := readResolvConf(filepath.Join(root, "run/systemd/resolve/resolv.conf"))
	if errors.Is(err, fs.ErrNotExist) || (err == nil && len(behind.Nameservers) == 0) {
		return c, nil
	}
	return behind, err
}

func readResolvConf(path string) (ResolvConf, error) {
	f, err := os.Open(path)
	if err != nil {
		return ResolvConf{}, err
	}
	defer f.Close()
	c, err := ParseResolvConf(f)
	if err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// isStub reports whether all nameservers are on the machine itself.
func (c ResolvConf) isStub() bool {
	for _, n := range c.Nameservers {
		if a, err := netip.ParseAddr(n); err != nil || !a.IsLoopback() {
			return false
		}
	}
	return len(c.Nameservers) > 0
}
