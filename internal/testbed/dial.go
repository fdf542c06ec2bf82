package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/wherry-project/wherry/internal/netns"
)

// Dial connects from within a host. Names are the hosts' and ServerName, of
// whose addresses each is tried in turn, as a Kubernetes client does.
func (t *Testbed) Dial(ctx context.Context, host, network, address string) (net.Conn, error) {
	s, ns, err := t.network(host)
	if err != nil {
		return nil, err
	}
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range s.lookup(name) {
		var conn net.Conn
		err := netns.Do(ns, func() (err error) {
			var d net.Dialer
			conn, err = d.DialContext(ctx, network, net.JoinHostPort(a, port))
			return err
		})
		if err == nil {
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("from %s: %w", host, err))
	}
	return nil, errors.Join(errs...)
}

// Listen listens within a host, so that a test can serve something there.
func (t *Testbed) Listen(ctx context.Context, host, network, address string) (net.Listener, error) {
	_, ns, err := t.network(host)
	if err != nil {
		return nil, err
	}
	var l net.Listener
	err = netns.Do(ns, func() (err error) {
		var c net.ListenConfig
		l, err = c.Listen(ctx, network, address)
		return err
	})
	return l, err
}

// ListenPacket is Listen for datagrams.
func (t *Testbed) ListenPacket(ctx context.Context, host, network, address string) (net.PacketConn, error) {
	_, ns, err := t.network(host)
	if err != nil {
		return nil, err
	}
	var p net.PacketConn
	err = netns.Do(ns, func() (err error) {
		var c net.ListenConfig
		p, err = c.ListenPacket(ctx, network, address)
		return err
	})
	return p, err
}

func (t *Testbed) network(host string) (*state, string, error) {
	s, _, err := t.machine(host)
	if err != nil {
		return nil, "", err
	}
	p, err := t.readPower(host)
	if err != nil {
		return nil, "", err
	}
	if !alive(p) {
		return nil, "", t.offError(host)
	}
	return s, fmt.Sprintf("/proc/%d/ns/net", p.Pid), nil
}

func (s *state) lookup(name string) []string {
	if name == ServerName {
		var all []string
		for _, h := range s.ofRole(RoleControl) {
			all = append(all, h.Address.String())
		}
		return all
	}
	if h, err := s.host(name); err == nil {
		return []string{h.Address.String()}
	}
	return []string{name}
}

// ReadFile reads a file of a host that is on.
func (t *Testbed) ReadFile(host, path string) ([]byte, error) {
	root, err := t.root(host)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.ReadFile(strings.TrimLeft(path, "/"))
}

// WriteFile writes a file of a host that is on, in one step.
func (t *Testbed) WriteFile(host, path string, b []byte, mode os.FileMode) error {
	root, err := t.root(host)
	if err != nil {
		return err
	}
	defer root.Close()
	path = strings.TrimLeft(path, "/")
	if err := root.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := root.WriteFile(path+".new", b, mode); err != nil {
		return err
	}
	return root.Rename(path+".new", path)
}

// root opens a host's file tree. A symbolic link in it that would lead into
// the machine's is refused by os.Root.
func (t *Testbed) root(host string) (*os.Root, error) {
	if _, _, err := t.network(host); err != nil {
		return nil, err
	}
	p, err := t.readPower(host)
	if err != nil {
		return nil, err
	}
	return os.OpenRoot(fmt.Sprintf("/proc/%d/root", p.Pid))
}
