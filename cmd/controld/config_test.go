package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// parse gives what a command would run with.
func parse(t *testing.T, file string, args ...string) (config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "controld.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	var got config
	cmd := &cobra.Command{Use: "controld", SilenceErrors: true, SilenceUsage: true}
	withConfig(cmd, func(_ context.Context, c config, _ []string) error {
		got = c
		return nil
	})
	cmd.SetArgs(append([]string{"--config", path}, args...))
	return got, cmd.ExecuteContext(t.Context())
}

func TestConfig(t *testing.T) {
	c, err := parse(t, "name: c1\nserver-names: [a.example, 192.0.2.1]\nnode-grace: 5s\nhttps-port: 1000\n", "--https-port", "2000", "--log-level=debug")
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "c1" || len(c.ServerNames) != 2 || c.NodeGrace.std() != 5*time.Second || c.HTTPSPort != 2000 || c.LogLevel != "debug" || c.GRPCPort != 7443 {
		t.Errorf("got %+v", c)
	}
	if c, err = parse(t, "name: c1\nserver-names: [a]\n", "--server-names", "b,c"); err != nil || strings.Join(c.ServerNames, " ") != "b c" {
		t.Errorf("a list given twice: %v, %v", c.ServerNames, err)
	}
}

func TestConfigIsRefused(t *testing.T) {
	for _, tt := range []struct{ name, file, flag, want string }{
		{"unknown key", "colour: x\n", "", `unknown key "colour"`},
		{"wrong type", "https-port: many\n", "", "https-port"},
		{"port of no number", "https-port: 70000\n", "", "https-port"},
		{"duration without unit", "node-grace: 40\n", "", "such as 40s"},
		{"name", "name: Not_A_Name\n", "", "name:"},
		{"advertise-address", "advertise-address: host\n", "", "advertise-address:"},
		{"unspecified advertise-address", "advertise-address: 0.0.0.0\n", "", "advertise-address:"},
		{"listen-address", "listen-address: host\n", "", "listen-address:"},
		{"server-names", "server-names: ['a b']\n", "", "server-names:"},
		{"pod-cidr", "pod-cidr: 10.244.0.1/16\n", "", "pod-cidr:"},
		{"small pod-cidr", "pod-cidr: 10.244.0.0/25\n", "", "pod-cidr:"},
		{"small service-cidr", "service-cidr: 10.96.0.0/30\n", "", "service range"},
		{"overlap", "pod-cidr: 10.96.0.0/12\n", "", "overlap"},
		{"cluster-domain", "cluster-domain: '-'\n", "", "cluster-domain:"},
		{"log-level", "", "--log-level=loud", "log-level:"},
		{"data-dir", "data-dir: ''\n", "", "data-dir:"},
		{"same ports", "grpc-port: 6443\n", "", "must differ"},
		{"node-grace", "node-grace: 1ms\n", "", "node-grace:"},
		{"heartbeat-timeout", "heartbeat-timeout: 1ms\n", "", "heartbeat-timeout:"},
		{"election-timeout", "election-timeout: 300ms\n", "", "election-timeout:"},
		{"cache-mib", "cache-mib: -1\n", "", "cache-mib:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := tt.file
			if !strings.HasPrefix(file, "name:") {
				file += "name: c1\n"
			}
			var args []string
			if tt.flag != "" {
				args = append(args, tt.flag)
			}
			if _, err := parse(t, file, args...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestConfigFileIsMissing(t *testing.T) {
	cmd := command()
	cmd.SetArgs([]string{"--config", filepath.Join(t.TempDir(), "none.yaml")})
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "read the configuration") {
		t.Errorf("got %v", err)
	}
}

func TestConfigIsWrittenAsItIsRead(t *testing.T) {
	c := defaults()
	c.Name, c.HTTPSPort, c.NodeGrace, c.ServerNames = "c1", 16443, duration(time.Minute), []string{"a.example"}
	b, err := c.text()
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]any
	if err := yaml.Unmarshal(b, &keys); err != nil || len(keys) != 4 {
		t.Errorf("%v\n%s", err, b)
	}
	got, err := parse(t, string(b))
	if err != nil || got.HTTPSPort != 16443 || got.NodeGrace != c.NodeGrace || got.Name != "c1" {
		t.Errorf("%v: %+v", err, got)
	}
}

func TestFixedSettings(t *testing.T) {
	c := defaults()
	c.Name = "c1"
	s, err := c.settings()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.fixed(s); err != nil {
		t.Error(err)
	}
	c.PodCIDR = "10.1.0.0/16"
	if err := c.fixed(s); err == nil || !strings.Contains(err.Error(), "pod-cidr") || !strings.Contains(err.Error(), "10.244.0.0/16") {
		t.Errorf("got %v", err)
	}
}
