package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/testbed"
	"github.com/wherry-project/wherry/internal/testimage"
)

// podImage is on every node of a bed.
const podImage = "bench.test/hello:1"

// bed is a cluster on a testbed, and connections to it.
type bed struct {
	*testbed.Testbed
	name, dir string
	kube      *kubernetes.Clientset
	controls  []testbed.Machine
	conns     map[string]*grpc.ClientConn // by control
}

// bed gives the cluster with so many hosts, made the first time.
func (b *bench) bed(ctx context.Context, controls, nodes int) (*bed, error) {
	key := [2]int{controls, nodes}
	if d := b.beds[key]; d != nil {
		return d, nil
	}
	d, err := b.newBed(ctx, controls, nodes, b.bin)
	if err != nil {
		return nil, fmt.Errorf("cluster of %d controls and %d nodes: %w", controls, nodes, err)
	}
	b.beds[key] = d
	return d, nil
}

// closeBeds takes all testbeds down.
func (b *bench) closeBeds(ctx context.Context) error {
	var err error
	for _, d := range b.beds {
		err = errors.Join(err, d.close(ctx))
	}
	clear(b.beds)
	return err
}

// newBed makes a cluster with so many hosts, of the programs in a folder.
func (b *bench) newBed(ctx context.Context, controls, nodes int, bin string) (_ *bed, err error) {
	d := &bed{name: fmt.Sprintf("bench%d%d", controls, nodes), conns: map[string]*grpc.ClientConn{}}
	if d.dir, err = os.MkdirTemp(b.dir, "bed-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close(ctx))
		}
	}()
	d.Testbed, err = testbed.Up(ctx, testbed.Options{Name: d.name, Dir: d.dir, Bin: bin, Controls: controls, Nodes: nodes, NodeConfig: "max-pods: 250\n"})
	if err != nil {
		return nil, err
	}
	machines, err := d.Machines()
	if err != nil {
		return nil, err
	}
	for _, m := range machines {
		if m.Role != testbed.RoleControl {
			continue
		}
		d.controls = append(d.controls, m)
		if d.conns[m.Name], err = d.dial(m); err != nil {
			return nil, err
		}
	}
	config, err := d.RESTConfig(testbed.Client, "")
	if err != nil {
		return nil, err
	}
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf"
	if d.kube, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	return d, d.loadImage(ctx)
}

func (d *bed) loadImage(ctx context.Context) error {
	image, err := testimage.Hello(ctx)
	if err != nil {
		return err
	}
	file := filepath.Join(d.dir, "image.tar")
	if err := testimage.WriteFile(file, testimage.WriteOCI, map[string]*testimage.Image{podImage: image}); err != nil {
		return err
	}
	return errors.Join(d.Load(ctx, file), os.Remove(file))
}

// dial makes a gRPC connection to a control as the admin, from its own host: as
// the peers' clients it goes by loopback, past the network of the hosts.
func (d *bed) dial(m testbed.Machine) (*grpc.ClientConn, error) {
	config, err := d.RESTConfig(testbed.Client, "")
	if err != nil {
		return nil, err
	}
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	tls.ServerName, tls.NextProtos = testbed.ServerName, nil
	return grpc.NewClient("passthrough:///"+m.Name+":7443", grpc.WithTransportCredentials(credentials.NewTLS(tls)), quickBackOff(),
		grpc.WithContextDialer(from(d.Testbed, m.Name)))
}

// leader names the control that leads.
func (d *bed) leader(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		for _, conn := range d.conns {
			one, cancel := context.WithTimeout(ctx, time.Second)
			r, err := wherryv1.NewClusterClient(conn).Members(one, &wherryv1.MembersRequest{})
			cancel()
			if err != nil {
				continue
			}
			for _, m := range r.GetMembers() {
				if m.GetLeader() && d.conns[m.GetName()] != nil {
					return m.GetName(), nil
				}
			}
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return "", fmt.Errorf("no control says who leads: %w", err)
		}
	}
}

// close takes the testbed down.
func (d *bed) close(ctx context.Context) error {
	for _, c := range d.conns {
		if c != nil {
			c.Close()
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return testbed.Down(ctx, d.dir, d.name)
}
