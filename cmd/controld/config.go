package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/alloc"
	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/raftlog"
	"github.com/wherry-project/wherry/internal/raftstore"
	"github.com/wherry-project/wherry/internal/telemetry"
)

const defaultConfig = "/etc/wherry/controld.yaml"

// config is what the file and the flags say. It does not change after parsing.
type config struct {
	Name             string   `json:"name"`
	AdvertiseAddress string   `json:"advertise-address"`
	DataDir          string   `json:"data-dir"`
	ServerNames      []string `json:"server-names"`

	PodCIDR       string `json:"pod-cidr"`
	ServiceCIDR   string `json:"service-cidr"`
	ClusterDomain string `json:"cluster-domain"`

	ListenAddress string `json:"listen-address"`
	HTTPSPort     uint16 `json:"https-port"`
	GRPCPort      uint16 `json:"grpc-port"`

	NodeGrace        duration `json:"node-grace"`
	HeartbeatTimeout duration `json:"heartbeat-timeout"`
	ElectionTimeout  duration `json:"election-timeout"`
	CacheMiB         int      `json:"cache-mib"`
	Log              string   `json:"log"`

	BackupDir            string   `json:"backup-dir"`
	BackupEvery          duration `json:"backup-every"`
	BackupKeep           int      `json:"backup-keep"`
	BackupPassphraseFile string   `json:"backup-passphrase-file"`

	AuditLog         string `json:"audit-log"`
	AuditPolicy      string `json:"audit-policy"`
	AuditLogMaxMiB   int    `json:"audit-log-max-mib"`
	AuditLogMaxFiles int    `json:"audit-log-max-files"`
	AuditLogMaxDays  int    `json:"audit-log-max-days"`

	TokenAuthFile string `json:"token-auth-file"`

	LogLevel    string `json:"log-level"`
	DebugSocket string `json:"debug-socket"`

	// file is where all this was read from.
	file string
	// fs is what the state is kept on: nil, or a disk with faults for a test.
	fs raftlog.FS
}

// duration is written as 40s or 400ms.
type duration time.Duration

func (d duration) std() time.Duration { return time.Duration(d) }

// MarshalJSON implements json.Marshaler.
func (d duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.std().String()) }

// UnmarshalJSON implements json.Unmarshaler.
func (d *duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New("a duration is written with its unit, such as 40s or 400ms")
	}
	v, err := time.ParseDuration(text)
	*d = duration(v)
	return err
}

func defaults() config {
	host, _ := os.Hostname() // without one, Validate asks for a name
	return config{
		Name: strings.ToLower(host), DataDir: "/var/lib/wherry/controld",
		HTTPSPort: 6443, GRPCPort: 7443,
		NodeGrace:        duration(40 * time.Second),
		HeartbeatTimeout: duration(450 * time.Millisecond), ElectionTimeout: duration(450 * time.Millisecond),
		BackupEvery: duration(24 * time.Hour), BackupKeep: 7,
		CacheMiB: 16, Log: raftstore.LogWherry, AuditLogMaxMiB: 100, AuditLogMaxFiles: 10, AuditLogMaxDays: 30, LogLevel: "info", DebugSocket: "/run/wherry/controld-debug.sock",
	}
}

// The values of a cluster whose founder asked for nothing else.
const (
	defaultPods     = "10.244.0.0/16"
	defaultServices = "10.96.0.0/16"
	defaultDomain   = "cluster.local"
	nodeBits        = 24
)

// flags gives a command the settings as flags, with the values of now as
// defaults.
func (c *config) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.Name, "name", c.Name, "this member's name, fixed when it joins; default: the host's name")
	f.StringVar(&c.AdvertiseAddress, "advertise-address", c.AdvertiseAddress, "IP address under which others reach this machine; default: that of the default route, or the only global one")
	f.StringVar(&c.DataDir, "data-dir", c.DataDir, "folder of the cluster's state")
	f.StringSliceVar(&c.ServerNames, "server-names", c.ServerNames, "more names that the certificate is for, such as the one name of all controlds; the first becomes the kubeconfig's server")
	f.StringVar(&c.PodCIDR, "pod-cidr", c.PodCIDR, "range of all pods, fixed by init; default: "+defaultPods)
	f.StringVar(&c.ServiceCIDR, "service-cidr", c.ServiceCIDR, "range of all services, fixed by init; default: "+defaultServices)
	f.StringVar(&c.ClusterDomain, "cluster-domain", c.ClusterDomain, "domain of services and pods, fixed by init; default: "+defaultDomain)
	f.StringVar(&c.ListenAddress, "listen-address", c.ListenAddress, "IP address to listen on; default: all")
	f.Uint16Var(&c.HTTPSPort, "https-port", c.HTTPSPort, "port of the Kubernetes API, the same on every controld")
	f.Uint16Var(&c.GRPCPort, "grpc-port", c.GRPCPort, "port of gRPC: the API, the nodes, the other members")
	f.DurationVar((*time.Duration)(&c.NodeGrace), "node-grace", c.NodeGrace.std(), "how long a node may be silent before it counts as lost")
	f.DurationVar((*time.Duration)(&c.HeartbeatTimeout), "heartbeat-timeout", c.HeartbeatTimeout.std(), "how long the leader may be silent before another is elected")
	f.DurationVar((*time.Duration)(&c.ElectionTimeout), "election-timeout", c.ElectionTimeout.std(), "how long an election may take before it is tried again")
	f.IntVar(&c.CacheMiB, "cache-mib", c.CacheMiB, "memory for decoded objects, in MiB")
	f.StringVar(&c.BackupDir, "backup-dir", c.BackupDir, "folder for backups that the leader makes by itself; empty for none")
	f.DurationVar((*time.Duration)(&c.BackupEvery), "backup-every", c.BackupEvery.std(), "how often the leader makes a backup")
	f.IntVar(&c.BackupKeep, "backup-keep", c.BackupKeep, "how many of these backups stay in the folder")
	f.StringVar(&c.BackupPassphraseFile, "backup-passphrase-file", c.BackupPassphraseFile, "file with the passphrase of these backups, in its first line")
	f.StringVar(&c.Log, "log", c.Log, "how the Raft log is kept: wherry (in segments) or bolt (in a bbolt file); a bolt log is converted for wherry, and not back")
	f.StringVar(&c.AuditLog, "audit-log", c.AuditLog, "file to record in what is asked of the API, as JSON lines of audit.k8s.io/v1; empty for none")
	f.StringVar(&c.AuditPolicy, "audit-policy", c.AuditPolicy, "file that says how much to record of which requests, an audit.k8s.io/v1 Policy; default: the metadata of all")
	f.IntVar(&c.AuditLogMaxMiB, "audit-log-max-mib", c.AuditLogMaxMiB, "size at which a new audit log is begun, in MiB")
	f.IntVar(&c.AuditLogMaxFiles, "audit-log-max-files", c.AuditLogMaxFiles, "how many old audit logs are kept; 0 is all")
	f.IntVar(&c.AuditLogMaxDays, "audit-log-max-days", c.AuditLogMaxDays, "for how many days old audit logs are kept; 0 is for ever")
	f.StringVar(&c.TokenAuthFile, "token-auth-file", c.TokenAuthFile, "file with tokens of users, as lines of token,user,uid,\"group1,group2\"; read at the start; empty for none")
	f.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug, info, warn or error")
	f.StringVar(&c.DebugSocket, "debug-socket", c.DebugSocket, "Unix socket for profiles; empty for none")
	f.StringVar(&c.file, "config", c.file, "file with these settings, as YAML")
}

// withConfig gives a command the settings, and run what came of them.
func withConfig(cmd *cobra.Command, run func(ctx context.Context, cfg config, args []string) error) {
	shown := defaults()
	shown.file = defaultConfig
	shown.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg := defaults()
		if err := cfg.load(shown.file, cmd.Flags().Changed("config") && !cmd.HasParent()); err != nil {
			return err
		}
		if err := cfg.override(cmd); err != nil {
			return err
		}
		cfg.file = shown.file
		if err := cfg.Validate(); err != nil {
			return err
		}
		return run(cmd.Context(), cfg, args)
	}
}

// load reads the file; one that nobody asked for need not be there.
func (c *config) load(file string, must bool) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return nil
	} else if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	if err := yaml.UnmarshalStrict(b, c); err != nil {
		text := strings.TrimPrefix(err.Error(), "error unmarshaling JSON: while decoding JSON: json: ")
		text = strings.Replace(text, "unknown field", "unknown key", 1)
		return fmt.Errorf("%s: %s; `controld --help` lists the keys", file, text)
	}
	return nil
}

// override lets the flags that were given go before the file.
func (c *config) override(given *cobra.Command) (err error) {
	again := &cobra.Command{}
	c.flags(again)
	given.Flags().Visit(func(f *pflag.Flag) {
		to := again.Flags().Lookup(f.Name)
		if to == nil {
			return // the command's own
		}
		value := f.Value.String()
		if list, ok := f.Value.(pflag.SliceValue); ok {
			value = strings.Join(list.GetSlice(), ",")
		}
		err = errors.Join(err, again.Flags().Set(f.Name, value))
	})
	return err
}

// Validate tells the first key that cannot be.
func (c config) Validate() error {
	if bad := validation.IsDNS1123Subdomain(c.Name); len(bad) > 0 {
		return fmt.Errorf("name: %q: %s; set it to a name of lower case letters, digits, dots and dashes", c.Name, bad[0])
	}
	if c.AdvertiseAddress != "" {
		if a, err := netip.ParseAddr(c.AdvertiseAddress); err != nil || a.IsUnspecified() {
			return fmt.Errorf("advertise-address: %q: must be an IP address that the other machines reach", c.AdvertiseAddress)
		}
	}
	if c.ListenAddress != "" {
		if _, err := netip.ParseAddr(c.ListenAddress); err != nil {
			return fmt.Errorf("listen-address: %q: must be an IP address of this machine, or empty for all", c.ListenAddress)
		}
	}
	for _, n := range c.ServerNames {
		if _, err := netip.ParseAddr(n); err != nil && len(validation.IsDNS1123Subdomain(strings.ToLower(n))) > 0 {
			return fmt.Errorf("server-names: %q: each must be a DNS name or an IP address", n)
		}
	}
	if _, err := c.settings(); err != nil {
		return err
	}
	switch _, err := telemetry.ParseLevel(c.LogLevel); {
	case err != nil:
		return fmt.Errorf("log-level: %w", err)
	case c.DataDir == "":
		return errors.New("data-dir: must name a folder")
	case c.HTTPSPort == 0 || c.GRPCPort == 0:
		return errors.New("https-port, grpc-port: must be 1 to 65535")
	case c.HTTPSPort == c.GRPCPort:
		return fmt.Errorf("https-port, grpc-port: both are %d; they must differ", c.GRPCPort)
	case c.NodeGrace.std() < time.Second:
		return fmt.Errorf("node-grace: %s: must be 1s or more", c.NodeGrace.std())
	case c.HeartbeatTimeout.std() < 50*time.Millisecond:
		return fmt.Errorf("heartbeat-timeout: %s: must be 50ms or more", c.HeartbeatTimeout.std())
	case c.ElectionTimeout < c.HeartbeatTimeout:
		return fmt.Errorf("election-timeout: %s: must not be less than heartbeat-timeout, %s", c.ElectionTimeout.std(), c.HeartbeatTimeout.std())
	case c.BackupDir != "" && c.BackupPassphraseFile == "":
		return errors.New("backup-passphrase-file: must name a file with the passphrase of the backups in backup-dir; keep a copy of it elsewhere")
	case c.BackupDir != "" && !filepath.IsAbs(c.BackupDir):
		return fmt.Errorf("backup-dir: %q: must be an absolute path", c.BackupDir)
	case c.BackupEvery.std() < time.Second:
		return fmt.Errorf("backup-every: %s: must be 1s or more", c.BackupEvery.std())
	case c.BackupKeep < 1:
		return fmt.Errorf("backup-keep: %d: must be 1 or more", c.BackupKeep)
	case c.Log != raftstore.LogWherry && c.Log != raftstore.LogBolt:
		return fmt.Errorf("log: %q: must be %s or %s", c.Log, raftstore.LogWherry, raftstore.LogBolt)
	case c.AuditLogMaxMiB < 1:
		return fmt.Errorf("audit-log-max-mib: %d: must be 1 or more", c.AuditLogMaxMiB)
	case c.AuditLogMaxFiles < 0 || c.AuditLogMaxDays < 0:
		return errors.New("audit-log-max-files, audit-log-max-days: must not be negative")
	case c.AuditPolicy != "" && c.AuditLog == "":
		return errors.New("audit-policy: says what to record, but audit-log names no file for it")
	case c.CacheMiB < 0:
		return fmt.Errorf("cache-mib: %d: must not be negative", c.CacheMiB)
	}
	return nil
}

// settings are those of a cluster made from this configuration.
func (c config) settings() (cluster.Settings, error) {
	s := cluster.Settings{Domain: or(c.ClusterDomain, defaultDomain)}
	if bad := validation.IsDNS1123Subdomain(s.Domain); len(bad) > 0 {
		return s, fmt.Errorf("cluster-domain: %q: %s", s.Domain, bad[0])
	}
	for _, r := range []struct {
		key, text string
		into      *netip.Prefix
	}{{"pod-cidr", or(c.PodCIDR, defaultPods), &s.PodCIDR}, {"service-cidr", or(c.ServiceCIDR, defaultServices), &s.ServiceCIDR}} {
		p, err := netip.ParsePrefix(r.text)
		if err != nil || p != p.Masked() || !p.Addr().Is4() {
			return s, fmt.Errorf("%s: %q: must be an IPv4 range such as 10.96.0.0/16, without bits of the host", r.key, r.text)
		}
		*r.into = p
	}
	if s.PodCIDR.Overlaps(s.ServiceCIDR) {
		return s, fmt.Errorf("pod-cidr, service-cidr: %s and %s overlap; choose ranges apart", s.PodCIDR, s.ServiceCIDR)
	}
	if s.PodCIDR.Bits() > nodeBits {
		return s, fmt.Errorf("pod-cidr: %s: must be /%d or larger, since each node gets a /%d", s.PodCIDR, nodeBits, nodeBits)
	}
	if err := ranges(s).Validate(); err != nil {
		return s, fmt.Errorf("pod-cidr, service-cidr: %w", err)
	}
	return s, nil
}

// ranges are what addresses are given out of.
func ranges(s cluster.Settings) alloc.Config {
	return alloc.Config{Services: s.ServiceCIDR, Pods: s.PodCIDR, NodeBits: nodeBits, FirstPort: 30000, LastPort: 32767, DNS: s.DNS()}
}

// fixed refuses settings that differ from the cluster's.
func (c config) fixed(s cluster.Settings) error {
	for _, k := range []struct{ key, have, want string }{
		{"pod-cidr", c.PodCIDR, s.PodCIDR.String()}, {"service-cidr", c.ServiceCIDR, s.ServiceCIDR.String()},
		{"cluster-domain", c.ClusterDomain, s.Domain},
	} {
		if k.have != "" && k.have != k.want {
			return fmt.Errorf("%s: %s, but this cluster was made with %s, for life; remove the key from %s", k.key, k.have, k.want, c.file)
		}
	}
	return nil
}

func or(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}

// text is the file for a new machine: what differs from the defaults, which may
// change with a version.
func (c config) text() ([]byte, error) {
	var now, usual map[string]any
	for _, v := range []struct {
		from config
		into *map[string]any
	}{{c, &now}, {defaults(), &usual}} {
		b, err := json.Marshal(v.from)
		if err == nil {
			err = json.Unmarshal(b, v.into)
		}
		if err != nil {
			return nil, fmt.Errorf("encode the configuration: %w", err)
		}
	}
	for key, value := range now {
		if reflect.DeepEqual(value, usual[key]) {
			delete(now, key)
		}
	}
	now["name"] = c.Name
	b, err := yaml.Marshal(now)
	return append([]byte("# The settings of controld; `controld --help` lists the keys.\n"), b...), err
}
