package testbed

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	stateFormat = 1
	maxOfRole   = 99 // hosts of one role; the address plan's bound
)

// state is testbed.json: what the testbed is made of. It changes only under
// the exclusive lock, and is written before anything it names is made.
type state struct {
	Format        int           `json:"format"`
	Name          string        `json:"name"`
	Bin           string        `json:"bin"`
	Init          string        `json:"init"`
	ControlConfig string        `json:"controlConfig,omitempty"`
	NodeConfig    string        `json:"nodeConfig,omitempty"`
	ReadyTimeout  time.Duration `json:"readyTimeout"`
	Cluster       bool          `json:"cluster"` // the cluster is complete
	Hosts         []hostState   `json:"hosts"`
}

// hostState is what stays true of a host for its whole life.
type hostState struct {
	Machine
	MachineID string `json:"machineID"`
	// Joined: its daemon's data is made, so the daemon starts with the host.
	Joined bool `json:"joined"`
}

// power is hosts/NAME/power.json: what a host was last doing. It changes only
// under the host's lock.
type power struct {
	Pid   int    `json:"pid"`   // its init; 0 when off
	Start uint64 `json:"start"` // start time of that process
	Cut   bool   `json:"cut"`   // its cable is out
}

func (t *Testbed) path(elem ...string) string {
	return filepath.Join(append([]string{t.dir}, elem...)...)
}

func (t *Testbed) hostPath(host string, elem ...string) string {
	return t.path(append([]string{"hosts", host}, elem...)...)
}

func (t *Testbed) readState() (*state, error) {
	s := &state{}
	if err := readJSON(t.path("testbed.json"), s); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("testbed %q is half made or half removed: `wherry testbed down --name %s` clears it away", t.name, t.name)
	} else if err != nil {
		return nil, fmt.Errorf("%w; `wherry testbed down --name %s` clears it away", err, t.name)
	}
	if s.Format != stateFormat {
		return nil, fmt.Errorf("testbed %q was made by another version (format %d, not %d): remove it with `wherry testbed down --name %s`", t.name, s.Format, stateFormat, t.name)
	}
	return s, nil
}

func (t *Testbed) writeState(s *state) error {
	return writeJSON(t.path("testbed.json"), s)
}

func (t *Testbed) readPower(host string) (power, error) {
	var p power
	err := readJSON(t.hostPath(host, "power.json"), &p)
	if errors.Is(err, fs.ErrNotExist) {
		return power{}, nil
	}
	return p, err
}

func (t *Testbed) writePower(host string, p power) error {
	return writeJSON(t.hostPath(host, "power.json"), p)
}

func (s *state) host(name string) (hostState, error) {
	var names []string
	for _, h := range s.Hosts {
		if h.Name == name {
			return h, nil
		}
		names = append(names, h.Name)
	}
	return hostState{}, fmt.Errorf("testbed %q has no host %q; it has %s", s.Name, name, strings.Join(names, ", "))
}

func (s *state) ofRole(r Role) []hostState {
	var out []hostState
	for _, h := range s.Hosts {
		if h.Role == r {
			out = append(out, h)
		}
	}
	return out
}

// add appends the next host of a role. Addresses are 10.99.ROLE.NUMBER; they
// mean something behind the testbed's own switch only.
func (s *state) add(r Role) (hostState, error) {
	n := len(s.ofRole(r)) + 1
	if n > maxOfRole {
		return hostState{}, fmt.Errorf("testbed %q has %d hosts of role %s, as many as there can be", s.Name, maxOfRole, r)
	}
	h := hostState{Machine: Machine{Role: r}}
	switch r {
	case RoleControl:
		h.Name, h.Address = fmt.Sprintf("c%d", n), netip.AddrFrom4([4]byte{10, 99, 1, byte(n)})
	case RoleNode:
		h.Name, h.Address = fmt.Sprintf("n%d", n), netip.AddrFrom4([4]byte{10, 99, 2, byte(n)})
	case RoleClient:
		h.Name, h.Address = Client, netip.AddrFrom4([4]byte{10, 99, 0, 2})
	default:
		return hostState{}, fmt.Errorf("a host is a control or a node, not %q", r)
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return hostState{}, err
	}
	h.MachineID = hex.EncodeToString(id)
	s.Hosts = append(s.Hosts, h)
	return h, nil
}

const switchBits = 16 // all hosts are in 10.99.0.0/16

// hostsFile renders /etc/hosts: every host, and the one name of the controls.
func (s *state) hostsFile() string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
	for _, h := range s.Hosts {
		fmt.Fprintf(&b, "%s %s\n", h.Address, h.Name)
	}
	for _, h := range s.ofRole(RoleControl) {
		fmt.Fprintf(&b, "%s %s\n", h.Address, ServerName)
	}
	return b.String()
}

func readJSON(path string, into any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(b, '\n'), 0o600)
}

// writeFile replaces a file in one step.
func writeFile(path string, b []byte, mode os.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, mode); err != nil {
		return err
	}
	if err := os.Chmod(tmp, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
