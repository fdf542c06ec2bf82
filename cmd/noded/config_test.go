package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func parse(t *testing.T, join bool, args ...string) (config, error) {
	t.Helper()
	var c config
	f := pflag.NewFlagSet("noded", pflag.ContinueOnError)
	c.flags(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	err := c.load(f, join)
	return c, err
}

// What is given to join holds for the daemon, which starts without flags.
func TestJoinKeepsItsFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "etc", "noded.yaml")
	c, err := parse(t, true, "--config", file, "--name", "n7", "--advertise-address=192.0.2.7", "--max-pods=12", "--dns-upstream=192.0.2.1,192.0.2.2:5353")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.writeIfMissing(); err != nil {
		t.Fatal(err)
	}
	again, err := parse(t, false, "--config", file)
	if err != nil || again.Name != "n7" || again.AdvertiseAddress != "192.0.2.7" || again.MaxPods != 12 || strings.Join(again.DNSUpstream, " ") != "192.0.2.1 192.0.2.2:5353" {
		t.Errorf("%v: %+v", err, again)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = parse(t, true, "--config", file, "--max-pods=13"); err != nil || c.MaxPods != 13 || c.Name != "n7" {
		t.Errorf("a flag goes before the file: %v: %+v", err, c)
	}
	if err := c.writeIfMissing(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("a file that was there is now\n%s%v", after, err)
	}
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]struct{ text, flag, says string }{
		"unknown key":      {"colour: red", "", `unknown key "colour"`},
		"name":             {"name: A_b", "", `name "A_b"`},
		"address":          {"name: a\nadvertise-address: 127.0.0.1", "", "advertise-address"},
		"relative folder":  {"name: a\nadvertise-address: 192.0.2.1\ndata-dir: x", "", `data-dir "x"`},
		"max-pods":         {"name: a\nadvertise-address: 192.0.2.1", "--max-pods=0", "max-pods 0"},
		"dns-upstream":     {"name: a\nadvertise-address: 192.0.2.1\ndns-upstream: [one]", "", `dns-upstream "one"`},
		"log-level":        {"name: a\nadvertise-address: 192.0.2.1\nlog-level: loud", "", "log-level"},
		"file not there":   {"", "", "no such file"},
		"no YAML":          {"- a: [", "", "noded.yaml"},
		"type of a value":  {"name: [a]", "", "name"},
		"registry's field": {"registries: {a: {plain: true}}", "", `unknown key "plain"`},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "noded.yaml")
			if c.text != "" {
				if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			args := []string{"--config", file}
			if c.flag != "" {
				args = append(args, c.flag)
			}
			if _, err := parse(t, false, args...); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

// An address without a port is refused before anything is read or asked.
func TestJoinAddresses(t *testing.T) {
	c := config{DataDir: t.TempDir()}
	for _, list := range []string{"c1", "c1:7443,c2", ""} {
		if err := joinCluster(t.Context(), c, list, "no such file"); err == nil || !strings.Contains(err.Error(), "must be HOST:PORT") {
			t.Errorf("%q: %v", list, err)
		}
	}
}
