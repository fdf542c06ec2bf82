package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// trio is one or three members of a store, each a process, on loopback, with
// mutual TLS on every connection.
type trio struct {
	name    string
	dir     string // of all data
	creds   credentials.TransportCredentials
	members []*trioMember
	// put writes a value, get reads one linearizably, leads asks a member
	// whether it leads.
	put   func(ctx context.Context, conn *grpc.ClientConn, key uint64, value []byte) error
	get   func(ctx context.Context, conn *grpc.ClientConn, key uint64) error
	leads func(ctx context.Context, conn *grpc.ClientConn) (bool, error)
}

type trioMember struct {
	address string
	start   func() (*process, error)
	proc    *process
	conn    *grpc.ClientConn
}

// newTrio makes the folder and the certificates; the members are started by
// the caller.
func (b *bench) newTrio(name string, n int) (*trio, identity, string, error) {
	dir, err := os.MkdirTemp(b.dir, name+"-")
	if err != nil {
		return nil, identity{}, "", err
	}
	id, err := newIdentity(dir)
	if err != nil {
		return nil, id, "", err
	}
	conf, err := id.config()
	if err != nil {
		return nil, id, "", err
	}
	return &trio{name: name, dir: dir, creds: credentials.NewTLS(conf), members: make([]*trioMember, n)}, id, dir, nil
}

// bareStore starts members of internal/raftstore without an API.
func (b *bench) bareStore(ctx context.Context, n int) (_ *trio, err error) {
	t, id, dir, err := b.newTrio("store", n)
	if err != nil {
		return nil, err
	}
	t.put = func(ctx context.Context, conn *grpc.ClientConn, key uint64, value []byte) error {
		request := append(binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(value)), key), value...)
		return conn.Invoke(ctx, putMethod, wrapperspb.Bytes(request), &wrapperspb.UInt64Value{})
	}
	t.get = func(ctx context.Context, conn *grpc.ClientConn, key uint64) error {
		var out wrapperspb.BytesValue
		err := conn.Invoke(ctx, getMethod, wrapperspb.Bytes(binary.LittleEndian.AppendUint64(nil, key)), &out)
		if err == nil && len(out.GetValue()) == 0 {
			err = errNoValue
		}
		return err
	}
	t.leads = func(ctx context.Context, conn *grpc.ClientConn) (bool, error) {
		var out wrapperspb.BoolValue
		err := conn.Invoke(ctx, leadMethod, wrapperspb.Bytes(nil), &out)
		return out.GetValue(), err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addresses, err := freeAddresses(n)
	if err != nil {
		return nil, err
	}
	// The founder is started last: it adds the others, which must be there.
	var add []string
	for i := n - 1; i >= 0; i-- {
		args := []string{
			memberCommand, "-id", fmt.Sprint("m", i), "-address", addresses[i], "-dir", filepath.Join(dir, fmt.Sprint("m", i)),
			"-ca", id.ca, "-cert", id.cert, "-key", id.key,
		}
		again := args
		if i == 0 {
			args = append(args[:len(args):len(args)], "-found", "-add", strings.Join(add, ","))
		}
		add = append(add, fmt.Sprint("m", i, "=", addresses[i]))
		founded := false
		t.members[i] = &trioMember{address: addresses[i], start: func() (*process, error) {
			if founded {
				return b.startSaying(ctx, "ready", self, again...)
			}
			founded = true
			return b.startSaying(ctx, "ready", self, args...)
		}}
		if err := t.members[i].up(t); err != nil {
			return nil, fmt.Errorf("member %d of the bare store: %w", i, err)
		}
	}
	return t, nil
}

// etcd starts members of etcd.
func (b *bench) etcd(ctx context.Context, n int) (_ *trio, err error) {
	program, err := exec.LookPath("etcd")
	if err != nil {
		return nil, errors.New("etcd is not installed; `make bench` installs Debian's etcd-server")
	}
	t, id, dir, err := b.newTrio("etcd", n)
	if err != nil {
		return nil, err
	}
	t.put = func(ctx context.Context, conn *grpc.ClientConn, key uint64, value []byte) error {
		return putEtcd(ctx, conn, fmt.Sprint("/registry/configmaps/bench/k", key), value)
	}
	t.get = func(ctx context.Context, conn *grpc.ClientConn, key uint64) error {
		return getEtcd(ctx, conn, fmt.Sprint("/registry/configmaps/bench/k", key))
	}
	t.leads = leadsEtcd
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	addresses, err := freeAddresses(2 * n)
	if err != nil {
		return nil, err
	}
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("m%d=https://%s", i, addresses[n+i]))
	}
	for i := range t.members {
		name := fmt.Sprint("m", i)
		args := etcdArgs(id, name, filepath.Join(dir, name), addresses[i], addresses[n+i], strings.Join(all, ","))
		t.members[i] = &trioMember{address: addresses[i], start: func() (*process, error) {
			log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err != nil {
				return nil, err
			}
			defer log.Close()
			cmd := exec.Command(program, args...)
			cmd.Stdout, cmd.Stderr, cmd.Env = log, log, []string{"HOME=" + dir}
			return b.procs.start(cmd)
		}}
		if err := t.members[i].up(t); err != nil {
			return nil, err
		}
	}
	within, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if _, err := t.firstWrite(within, -1); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "m0.log"))
		return nil, fmt.Errorf("etcd does not take writes: %w\n%s", err, log[max(0, len(log)-1000):])
	}
	return t, nil
}

// up starts a member and makes a connection to it.
func (m *trioMember) up(t *trio) (err error) {
	if m.proc, err = m.start(); err != nil {
		return err
	}
	if m.conn == nil {
		m.conn, err = t.dial(m.address)
	}
	return err
}

// dial makes a connection. It connects again at once when it was lost: what is
// measured is the server.
func (t *trio) dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(t.creds), quickBackOff())
}

// leader finds who leads.
func (t *trio) leader(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		for i, m := range t.members {
			one, cancel := context.WithTimeout(ctx, time.Second)
			leads, err := t.leads(one, m.conn)
			cancel()
			if err == nil && leads {
				return i, nil
			}
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return 0, fmt.Errorf("%s has no leader: %w", t.name, err)
		}
	}
}

// firstWrite tries to write, at one member after the other but not at the one
// named, until one succeeds; it gives when that was.
func (t *trio) firstWrite(ctx context.Context, not int) (time.Time, error) {
	var conns []*grpc.ClientConn
	for i, m := range t.members {
		if i != not {
			conns = append(conns, m.conn)
		}
	}
	return firstSuccess(ctx, len(conns), func(ctx context.Context, i int) error {
		return t.put(ctx, conns[i], 1, make([]byte, 256))
	})
}

// close ends the members and removes their data.
func (t *trio) close() error {
	var err error
	for _, m := range t.members {
		if m == nil {
			continue
		}
		if m.conn != nil {
			err = errors.Join(err, m.conn.Close())
		}
		if m.proc != nil {
			err = errors.Join(err, m.proc.kill())
		}
	}
	return err
}

// startSaying starts a program and waits until it prints a line.
func (b *bench) startSaying(ctx context.Context, line, program string, args ...string) (*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	p, err := b.procs.start(cmd)
	w.Close()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = r.SetReadDeadline(time.Now().Add(20 * time.Second))
	if got, err := bufio.NewReader(r).ReadString('\n'); strings.TrimSpace(got) != line {
		return nil, errors.Join(fmt.Errorf("%s does not say that it is ready: %q, %w", filepath.Base(program), got, err), p.kill())
	}
	return p, nil
}

// freeAddresses gives addresses on loopback that are free now.
func freeAddresses(n int) ([]string, error) {
	var list []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		list = append(list, l.Addr().String())
	}
	return list, nil
}
