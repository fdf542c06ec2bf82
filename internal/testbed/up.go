package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sync/errgroup"
)

// Up makes a testbed and, unless told otherwise, a cluster on it, and returns
// when every node is Ready. After an error the testbed stays as it is, for a
// look at its logs, until Down.
func Up(ctx context.Context, o Options) (*Testbed, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	t, err := at(o.Dir, o.Name)
	if err != nil {
		return nil, err
	}
	t.progress = o.Progress
	unlock, err := t.lockAll(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Lstat(t.dir); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("testbed %q exists: use it, remove it with `wherry testbed down --name %s`, or choose another --name", t.name, t.name)
	}
	s := &state{
		Format: stateFormat, Name: o.Name, Bin: o.Bin, Init: o.Init, ReadyTimeout: o.ReadyTimeout,
		ControlConfig: o.ControlConfig, NodeConfig: o.NodeConfig,
	}
	if err := t.makeHosts(ctx, s, o); err != nil {
		return t, err
	}
	if !o.HostsOnly {
		if err := t.makeCluster(ctx, s); err != nil {
			return t, err
		}
	}
	return t, nil
}

func (t *Testbed) makeHosts(ctx context.Context, s *state, o Options) error {
	t.progress(fmt.Sprintf("make %d hosts and a switch", 1+o.Controls+o.Nodes))
	var roles []Role
	roles = append(roles, RoleClient)
	for range o.Controls {
		roles = append(roles, RoleControl)
	}
	for range o.Nodes {
		roles = append(roles, RoleNode)
	}
	for _, r := range roles {
		if _, err := s.add(r); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(t.path("hosts"), 0o700); err != nil {
		return err
	}
	if err := t.writeState(s); err != nil { // before anything it names
		return err
	}
	if err := t.makeSwitch(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, h := range s.Hosts {
		g.Go(func() error { return t.boot(ctx, s, h) })
	}
	return g.Wait()
}

// Add makes another control or node and joins it to the cluster; it returns
// when the newcomer serves.
func (t *Testbed) Add(ctx context.Context, r Role) (Machine, error) {
	unlock, err := t.lockAll(ctx)
	if err != nil {
		return Machine{}, err
	}
	defer unlock()
	s, err := t.readState()
	if err != nil {
		return Machine{}, err
	}
	if r == RoleClient {
		return Machine{}, errors.New("a testbed has one client")
	}
	h, err := s.add(r)
	if err != nil {
		return Machine{}, err
	}
	t.progress(fmt.Sprintf("make host %s", h.Name))
	if err := t.writeState(s); err != nil {
		return Machine{}, err
	}
	if err := t.boot(ctx, s, h); err != nil {
		return h.Machine, err
	}
	if err := t.tellHosts(s); err != nil {
		return h.Machine, err
	}
	if !s.Cluster {
		return h.Machine, nil
	}
	return h.Machine, t.joinAll(ctx, s, h.Machine)
}

// tellHosts renews /etc/hosts on every host that is on; the others get it when
// they are powered on.
func (t *Testbed) tellHosts(s *state) error {
	for _, h := range s.Hosts {
		if !t.isOn(h.Name) {
			continue
		}
		if err := t.WriteFile(h.Name, "/etc/hosts", []byte(s.hostsFile()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
