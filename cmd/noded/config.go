package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/telemetry"
)

const configFile = "/etc/wherry/noded.yaml"

// config is /etc/wherry/noded.yaml; each key is also a flag.
type config struct {
	Name             string   `json:"name"`
	AdvertiseAddress string   `json:"advertise-address"`
	DataDir          string   `json:"data-dir"`
	RunDir           string   `json:"run-dir"`
	LogDir           string   `json:"log-dir"`
	CgroupRoot       string   `json:"cgroup-root"`
	Podshim          string   `json:"podshim"`
	Podrun           string   `json:"podrun"`
	ResolvConf       string   `json:"resolv-conf"`
	DNSUpstream      []string `json:"dns-upstream"`
	MaxPods          int      `json:"max-pods"`
	LogLevel         string   `json:"log-level"`
	// Registries say how registries are reached that are not behind verified
	// HTTPS; by host[:port]. In the file only.
	Registries map[string]registry `json:"registries"`

	path string
	// given are the flags of the command line, by key.
	given map[string]any
}

// registry is how one registry is reached.
type registry struct {
	PlainHTTP  bool   `json:"plain-http"`
	SkipVerify bool   `json:"skip-verify"`
	CAFile     string `json:"ca-file"`
}

// flags defines the flags with their defaults.
func (c *config) flags(f *pflag.FlagSet) {
	f.StringVar(&c.path, "config", configFile, "configuration file; each key is also a flag")
	f.StringVar(&c.Name, "name", "", "name of the node (default: the host's name)")
	f.StringVar(&c.AdvertiseAddress, "advertise-address", "", "address by which other machines reach this one (default: the machine's only global address, or that of the default route)")
	f.StringVar(&c.DataDir, "data-dir", "/var/lib/wherry/noded", "where images, pods and the node's identity are kept")
	f.StringVar(&c.RunDir, "run-dir", "/run/wherry", "where sockets and mounts are kept until a reboot")
	f.StringVar(&c.LogDir, "log-dir", "/var/log/pods", "where the pods' logs are kept")
	f.StringVar(&c.CgroupRoot, "cgroup-root", "/wherry-pods", "cgroup below which the pods' are made, as a path below each hierarchy's mount")
	f.StringVar(&c.Podshim, "podshim", "", "the podshim program (default: beside noded)")
	f.StringVar(&c.Podrun, "podrun", "", "the podrun program (default: beside noded)")
	f.StringVar(&c.ResolvConf, "resolv-conf", "/etc/resolv.conf", "the node's resolver configuration, for pods and as upstreams")
	f.StringSliceVar(&c.DNSUpstream, "dns-upstream", nil, "resolvers, ADDRESS or ADDRESS:PORT, for names outside the cluster (default: those of --resolv-conf)")
	f.IntVar(&c.MaxPods, "max-pods", 110, "pods that the node takes at most, 1 to 1000")
	f.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
}

// load reads the file under the flags that were given, and fills in what the
// machine says. A file that was named must be there, unless join is about to
// write it.
func (c *config) load(f *pflag.FlagSet, join bool) error {
	data, err := os.ReadFile(c.path)
	if errors.Is(err, os.ErrNotExist) && (join || !f.Changed("config")) {
		data = nil
	} else if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	given := map[string]string{}
	c.given = map[string]any{}
	f.Visit(func(one *pflag.Flag) {
		given[one.Name] = strings.Trim(one.Value.String(), "[]")
		if c.given[one.Name] = given[one.Name]; one.Name == "max-pods" {
			c.given[one.Name] = c.MaxPods
		} else if s, ok := one.Value.(pflag.SliceValue); ok {
			c.given[one.Name] = s.GetSlice()
		}
	})
	delete(c.given, "config")
	delete(c.given, "token-file")
	if err := yaml.UnmarshalStrict(data, c); err != nil {
		text := strings.TrimPrefix(err.Error(), "error unmarshaling JSON: while decoding JSON: json: ")
		return fmt.Errorf("%s: %s; `noded --help` lists the keys", c.path, strings.Replace(text, "unknown field", "unknown key", 1))
	}
	for name, value := range given { // a flag wins over the file
		if one := f.Lookup(name); one != nil && name != "token-file" {
			if s, ok := one.Value.(pflag.SliceValue); ok {
				err = s.Replace(strings.Split(value, ","))
			} else {
				err = one.Value.Set(value)
			}
			if err != nil {
				return fmt.Errorf("--%s: %w", name, err)
			}
		}
	}
	if err := c.complete(); err != nil {
		return err
	}
	return c.validate()
}

// writeIfMissing writes a file with the node's name and the flags that were
// given, with which the daemon then starts without flags.
func (c *config) writeIfMissing() error {
	if _, err := os.Stat(c.path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	c.given["name"] = c.Name
	b, err := yaml.Marshal(c.given)
	if err != nil {
		return fmt.Errorf("encode the configuration: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(c.path), 0o755); err != nil { //nolint:gosec // its files say who may read them
		return fmt.Errorf("make the configuration's folder: %w", err)
	}
	return pki.WriteFile(c.path, append([]byte("# The settings of noded; `noded --help` lists the keys.\n"), b...), 0o644)
}

// complete fills in what depends on the machine.
func (c *config) complete() error {
	if c.Name == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the host's name (or set name): %w", err)
		}
		c.Name = strings.ToLower(name)
	}
	if c.AdvertiseAddress == "" {
		a, err := ownAddress()
		if err != nil {
			return err
		}
		c.AdvertiseAddress = a.String()
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find noded's own folder (or set podshim and podrun): %w", err)
	}
	for name, at := range map[string]*string{"podshim": &c.Podshim, "podrun": &c.Podrun} {
		if *at == "" {
			*at = filepath.Join(filepath.Dir(exe), name)
		}
	}
	return nil
}

// ownAddress is the machine's only global IPv4 address, or the one from which it
// would speak to the outside.
func ownAddress() (netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the machine's address (or set advertise-address): %w", err)
	}
	var found []netip.Addr
	for _, a := range list {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() && p.Bits() < 32 {
			found = append(found, p.Addr())
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	// Connecting a UDP socket sends nothing; it asks for the route.
	conn, err := net.Dial("udp4", "192.0.2.1:9")
	if err == nil {
		defer conn.Close()
		if ap, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil {
			return ap.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("this machine has %d addresses and no default route; set advertise-address to the one by which other machines reach it", len(found))
}

var dnsName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// validate names the key that is wrong and says what it should be.
func (c *config) validate() error {
	if len(c.Name) > 63 || !dnsName.MatchString(c.Name) {
		return fmt.Errorf("name %q: want a lowercase RFC 1123 subdomain of at most 63 characters", c.Name)
	}
	if a, err := netip.ParseAddr(c.AdvertiseAddress); err != nil || !a.Is4() || a.IsUnspecified() || a.IsLoopback() {
		return fmt.Errorf("advertise-address %q: want an IPv4 address of this machine that others reach", c.AdvertiseAddress)
	}
	for key, path := range map[string]string{"data-dir": c.DataDir, "run-dir": c.RunDir, "log-dir": c.LogDir, "podshim": c.Podshim, "podrun": c.Podrun, "resolv-conf": c.ResolvConf, "cgroup-root": c.CgroupRoot} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("%s %q: want an absolute path", key, path)
		}
	}
	if c.MaxPods < 1 || c.MaxPods > 1000 {
		return fmt.Errorf("max-pods %d: want 1 to 1000", c.MaxPods)
	}
	if _, err := c.upstreams(); err != nil {
		return err
	}
	if _, err := telemetry.ParseLevel(c.LogLevel); err != nil {
		return fmt.Errorf("log-level: %w", err)
	}
	return nil
}

// upstreams are the resolvers of dns-upstream.
func (c *config) upstreams() ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, s := range c.DNSUpstream {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
			continue
		}
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return nil, fmt.Errorf("dns-upstream %q: want ADDRESS or ADDRESS:PORT", s)
		}
		out = append(out, ap)
	}
	return out, nil
}

// parallel is how many containers start at once: more than a few only wait for
// each other.
func parallel() int { return max(4, runtime.NumCPU()) }
