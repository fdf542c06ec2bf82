package testbed

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

// DefaultDir is where testbeds are kept, a directory each.
const DefaultDir = "/var/lib/wherry-testbed"

// DefaultName is the testbed meant where none is named.
const DefaultName = "default"

// ServerName is the one name that has the address of every controld.
const ServerName = "api.wherry.test"

// Client is the host that has the admin's kubeconfig.
const Client = "client"

// The daemons, and the files that they are run from.
const (
	Controld = "controld"
	Noded    = "noded"
)

// Role is what a host is for.
type Role string

// The roles of hosts.
const (
	RoleControl Role = "control" // runs controld: c1, c2 …
	RoleNode    Role = "node"    // runs noded: n1, n2 …
	RoleClient  Role = "client"  // runs nothing
)

// Daemon returns the daemon that a host of the role runs, or "".
func (r Role) Daemon() string {
	switch r {
	case RoleControl:
		return Controld
	case RoleNode:
		return Noded
	}
	return ""
}

// Machine is one host of a testbed.
type Machine struct {
	Name    string     `json:"name"`
	Role    Role       `json:"role"`
	Address netip.Addr `json:"address"`
}

// Options says what Up makes. The zero value of a field means its default.
type Options struct {
	// Name of the testbed: lower-case letters, digits and hyphens.
	Name string
	// Dir holds the testbeds.
	Dir string
	// Bin is the directory with controld, noded, podshim, podrun and wherry.
	Bin string
	// Init is the program whose main calls Host; default Bin/wherry.
	Init string
	// Controls and Nodes are the numbers of hosts that run controld and noded.
	Controls, Nodes int
	// HostsOnly leaves the hosts empty: no cluster is made.
	HostsOnly bool
	// ControlConfig and NodeConfig are lines of YAML put into controld.yaml
	// and noded.yaml of every host.
	ControlConfig, NodeConfig string
	// Progress is told each step when it begins; nil for silence.
	Progress func(step string)
	// ReadyTimeout bounds the wait for each daemon and for the nodes.
	ReadyTimeout time.Duration
}

// Testbed is one that exists. Its methods may be called at once from many
// goroutines and processes: what must not happen together waits.
type Testbed struct {
	dir      string // the testbed's own
	name     string
	progress func(string)
	stateMu  *sync.Mutex // over a state that several goroutines change
}

// Name returns the testbed's name.
func (t *Testbed) Name() string { return t.name }

// Dir returns the testbed's directory.
func (t *Testbed) Dir() string { return t.dir }

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

func (o Options) withDefaults() (Options, error) {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.ReadyTimeout == 0 {
		o.ReadyTimeout = 90 * time.Second
	}
	if o.Init == "" {
		o.Init = filepath.Join(o.Bin, "wherry")
	}
	var err error
	for _, path := range []*string{&o.Dir, &o.Bin, &o.Init} {
		if *path, err = filepath.Abs(*path); err != nil {
			return o, err
		}
	}
	return o, o.validate()
}

func (o Options) validate() error {
	if !validName.MatchString(o.Name) {
		return fmt.Errorf("the testbed's name %q is not of lower-case letters, digits and inner hyphens, 32 at most", o.Name)
	}
	if o.Controls < 0 || o.Controls > maxOfRole || o.Nodes < 0 || o.Nodes > maxOfRole {
		return fmt.Errorf("a testbed has up to %d controls and %d nodes, not %d and %d", maxOfRole, maxOfRole, o.Controls, o.Nodes)
	}
	if !o.HostsOnly && o.Controls == 0 {
		return fmt.Errorf("a cluster needs a control at least (three to survive the loss of one)")
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("a testbed makes namespaces, mounts and cgroups: run it as root")
	}
	needed := []string{o.Init}
	if !o.HostsOnly {
		for _, p := range []string{Controld, Noded, "podshim", "podrun", "wherry"} {
			needed = append(needed, filepath.Join(o.Bin, p))
		}
	}
	for _, path := range needed {
		if info, err := os.Stat(path); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return fmt.Errorf("there is no program %s: build it, or name the directory that has it", path)
		}
	}
	return nil
}

// Open finds the testbed of that name below dir; "" means the defaults.
func Open(dir, name string) (*Testbed, error) {
	t, err := at(dir, name)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(t.dir); err != nil {
		known, _ := Names(filepath.Dir(t.dir))
		return nil, &NoTestbedError{Name: t.name, Known: known}
	}
	return t, nil
}

func at(dir, name string) (*Testbed, error) {
	if dir == "" {
		dir = DefaultDir
	}
	if name == "" {
		name = DefaultName
	}
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("%q cannot be the name of a testbed", name)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &Testbed{dir: filepath.Join(dir, name), name: name, progress: func(string) {}, stateMu: new(sync.Mutex)}, nil
}

// NoTestbedError says that there is no testbed of that name.
type NoTestbedError struct {
	Name  string
	Known []string
}

// Error says what there is instead.
func (e *NoTestbedError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("there is no testbed %q, and no other: make one with `wherry testbed up`", e.Name)
	}
	return fmt.Sprintf("there is no testbed %q; there are: %v (choose with --name)", e.Name, e.Known)
}

// Names lists the testbeds below dir, those half made or half removed too.
func Names(dir string) ([]string, error) {
	if dir == "" {
		dir = DefaultDir
	}
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && validName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// WithProgress returns t with f told each step of what t does.
func (t *Testbed) WithProgress(f func(step string)) *Testbed {
	return &Testbed{dir: t.dir, name: t.name, progress: f, stateMu: t.stateMu}
}

// Machines returns the hosts: client, controls, nodes.
func (t *Testbed) Machines() ([]Machine, error) {
	s, err := t.readState()
	if err != nil {
		return nil, err
	}
	out := make([]Machine, len(s.Hosts))
	for i, h := range s.Hosts {
		out[i] = h.Machine
	}
	return out, nil
}

func (t *Testbed) machine(name string) (*state, hostState, error) {
	s, err := t.readState()
	if err != nil {
		return nil, hostState{}, err
	}
	h, err := s.host(name)
	return s, h, err
}
