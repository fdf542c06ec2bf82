package testbed

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
)

const (
	adminKubeconfig = "/etc/wherry/admin.kubeconfig"
	kubeconfig      = "/root/.kube/config"
	tokenFile       = "/run/testbed/token"
	grpcPort        = "7443"
	httpsPort       = "6443"
)

// makeCluster makes a cluster on hosts that are on, by the commands that a
// user would give on machines.
func (t *Testbed) makeCluster(ctx context.Context, s *state) error {
	controls := s.ofRole(RoleControl)
	first := controls[0]
	if err := t.configure(s, first); err != nil {
		return err
	}
	t.progress("make a cluster on " + first.Name)
	if _, err := t.Exec(ctx, first.Name, Controld, "init"); err != nil {
		return err
	}
	if err := t.joined(s, first); err != nil {
		return err
	}
	if err := t.giveKubeconfig(first.Name); err != nil {
		return err
	}
	if err := t.Start(ctx, first.Name, Controld); err != nil {
		return err
	}
	var others []Machine
	for _, h := range append(controls[1:], s.ofRole(RoleNode)...) {
		others = append(others, h.Machine)
	}
	if err := t.joinAll(ctx, s, others...); err != nil {
		return err
	}
	s.Cluster = true
	return t.writeState(s)
}

// joinAll joins hosts to the cluster: controls one after the other, because
// each changes who must agree, then all nodes at once.
func (t *Testbed) joinAll(ctx context.Context, s *state, hosts ...Machine) error {
	tokens := map[Role]string{}
	for _, h := range hosts {
		if tokens[h.Role] != "" {
			continue
		}
		t.progress("make a token for a " + string(h.Role))
		out, err := t.Exec(ctx, Client, "wherry", "cluster", "token", "create", "--role", string(h.Role))
		if err != nil {
			return err
		}
		tokens[h.Role] = strings.TrimSpace(out)
	}
	var nodes []string
	g, nctx := errgroup.WithContext(ctx)
	for _, h := range hosts {
		if h.Role == RoleControl {
			if err := t.join(ctx, s, h.Name, tokens[h.Role]); err != nil {
				return errors.Join(err, g.Wait())
			}
		}
	}
	for _, h := range hosts {
		if h.Role == RoleNode {
			nodes = append(nodes, h.Name)
			g.Go(func() error { return t.join(nctx, s, h.Name, tokens[h.Role]) })
		}
	}
	if err := g.Wait(); err != nil || len(nodes) == 0 {
		return err
	}
	return t.AwaitNodes(ctx, nodes...)
}

// join joins one host and starts its daemon.
func (t *Testbed) join(ctx context.Context, s *state, host, token string) error {
	h, to, err := t.joiner(s, host)
	if err != nil {
		return err
	}
	t.progress(fmt.Sprintf("join %s to the cluster", host))
	if err := t.configure(s, h); err != nil {
		return err
	}
	if err := t.WriteFile(host, tokenFile, []byte(token+"\n"), 0o600); err != nil {
		return err
	}
	if _, err := t.Exec(ctx, host, h.Role.Daemon(), "join", strings.Join(to, ","), "--token-file", tokenFile); err != nil {
		return err
	}
	if err := t.joined(s, h); err != nil {
		return err
	}
	return t.Start(ctx, host, h.Role.Daemon())
}

// joiner returns the host and the addresses to join at.
func (t *Testbed) joiner(s *state, host string) (h hostState, to []string, err error) {
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	if h, err = s.host(host); err != nil {
		return h, nil, err
	}
	for _, c := range s.ofRole(RoleControl) {
		if c.Joined && (h.Role == RoleNode || len(to) == 0) {
			to = append(to, c.Address.String()+":"+grpcPort)
		}
	}
	return h, to, nil
}

// joined notes that the host's daemon has its data: from here on it starts
// with the host.
func (t *Testbed) joined(s *state, h hostState) error {
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	for i := range s.Hosts {
		if s.Hosts[i].Name == h.Name {
			s.Hosts[i].Joined = true
		}
	}
	return t.writeState(s)
}

// configure writes the daemon's configuration file.
func (t *Testbed) configure(s *state, h hostState) error {
	c := fmt.Sprintf("name: %s\nadvertise-address: %s\n", h.Name, h.Address)
	more := s.NodeConfig
	if h.Role == RoleControl {
		c += fmt.Sprintf("server-names: [%s]\n", ServerName)
		more = s.ControlConfig
	}
	if more != "" {
		c += strings.TrimRight(more, "\n") + "\n"
	}
	return t.WriteFile(h.Name, "/etc/wherry/"+h.Role.Daemon()+".yaml", []byte(c), 0o600)
}
