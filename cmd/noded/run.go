package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/checkpoint"
	"github.com/wherry-project/wherry/internal/daemon"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/images"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/kubelethttp"
	"github.com/wherry-project/wherry/internal/network"
	"github.com/wherry-project/wherry/internal/node"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/runtime/runc"
	"github.com/wherry-project/wherry/internal/stats"
	"github.com/wherry-project/wherry/internal/svcproxy"
	"github.com/wherry-project/wherry/internal/telemetry"
	kubeversion "github.com/wherry-project/wherry/internal/version"
	"github.com/wherry-project/wherry/internal/volumes"
)

// maxMessage bounds a message of the session; deltas are cut at 1 MiB.
const maxMessage = 8 << 20

// run is the daemon's life. What is opened is closed in reverse; pods go on.
func run(ctx context.Context, c config) (err error) {
	debug.SetGCPercent(40) // memory counts more than the time to collect it
	notify, err := daemon.NewNotifier()
	if err != nil {
		return err
	}
	level, err := telemetry.ParseLevel(c.LogLevel)
	if err != nil {
		return fmt.Errorf("log-level: %w", err)
	}
	log := telemetry.NewLogger(os.Stderr, level)
	member, err := loadMembership(c)
	if err != nil {
		return err
	}
	id, err := pki.OpenKeyPair(c.identityDir())
	if err != nil {
		return fmt.Errorf("the node's identity: %w", err)
	}
	parts, closeParts, err := open(ctx, c, id, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeParts()) }()
	upstreams, err := c.upstreams()
	if err != nil {
		return err
	}
	if parts.Cgroups, err = stats.Open(); err != nil {
		return err
	}
	inside := kubelethttp.NewInside()
	parts.Machine, parts.Inside = stats.Machine, inside.Dial
	n := node.New(node.Config{
		Name: c.Name, Version: kubeversion.String(version), Address: netip.MustParseAddr(c.AdvertiseAddress), Controls: member.Controls,
		DataDir: c.DataDir, LogDir: c.LogDir, ResolvConf: c.ResolvConf, Hosts: "/etc/hosts", Upstreams: upstreams,
		MaxPods: c.MaxPods, Parallel: parallel(),
	}, parts)
	port, err := httpsPort(c, id, n, parts, inside, log)
	if err != nil {
		return err
	}
	up := func() {
		if err := notify.Ready(); err != nil {
			log.Warn("the service manager was not told", "err", err)
		}
		log.Info("noded runs", "node", c.Name, "version", version)
	}
	err = daemon.Run(ctx, log, up,
		daemon.Debug(filepath.Join(c.RunDir, "noded-debug.sock"), nil),
		daemon.Part{Name: "node", Run: n.Run},
		port,
		daemon.Ready("certificate", func(ctx context.Context) error {
			return id.KeepFresh(ctx, func(ctx context.Context) ([]byte, error) { return renew(ctx, c, id, member.Controls, parts) },
				func(err error) { log.Warn("certificate not renewed yet", "err", err) })
		}))
	if serr := notify.Stopping(); serr != nil {
		log.Warn("the service manager was not told", "err", serr)
	}
	return err
}

// httpsPort is where health, metrics and stats are served.
func httpsPort(c config, id *pki.KeyPair, n *node.Node, parts node.Parts, inside *kubelethttp.Inside, log *slog.Logger) (daemon.Part, error) {
	metrics := telemetry.NewRegistry("noded", version)
	if err := n.Register(metrics); err != nil {
		return daemon.Part{}, fmt.Errorf("register metrics: %w", err)
	}
	// The node does not know which keys of members are pinned: it believes the CA.
	verifier := pki.NewVerifier(id.CA(), func(pki.Peer) error { return nil }, time.Now)
	cfg := kubelethttp.Config{
		Node: c.Name, Reviewer: n, Address: ":10250", TLS: id.ServerConfig(), Peer: verifier.Peer, Healthy: n.Healthy, Metrics: telemetry.Handler(metrics), Pods: n.Pods,
		Summary: func(ctx context.Context) (*kubelethttp.Summary, error) {
			return kubelethttp.Measure(ctx, c.Name, stats.Machine, parts.Cgroups, parts.Runtime, n.Pods())
		},
		Logs: n.ContainerLogs, LogDir: "/var/log", Inside: inside,
		Log: log,
	}
	return daemon.Part{Name: "HTTPS port", Run: func(ctx context.Context, ready func()) error { return kubelethttp.Run(ctx, cfg, ready) }}, nil
}

// open opens the node's mechanisms.
func open(ctx context.Context, c config, id *pki.KeyPair, log *slog.Logger) (p node.Parts, closeAll func() error, err error) {
	var closers []func() error
	undo := func() error {
		var err error
		for i := len(closers) - 1; i >= 0; i-- {
			err = errors.Join(err, closers[i]())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, undo())
		}
	}()
	for _, dir := range []string{c.DataDir, c.RunDir, c.LogDir, filepath.Join(c.DataDir, "pods")} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // logs are for the machine's users
			return p, nil, fmt.Errorf("make %s: %w", dir, err)
		}
	}
	p.Log = log
	p.Kinds = kinds.Table()
	p.Dial = func(address string) (*grpc.ClientConn, error) { return dial(address, id) }
	// First what only one process can have: a second noded changes nothing.
	if p.Images, err = openImages(c); err != nil {
		return p, nil, err
	}
	closers = append(closers, p.Images.Close)
	rt, err := runc.Open(ctx, runc.Config{
		StateDir: filepath.Join(c.DataDir, "runtime"), RunDir: filepath.Join(c.RunDir, "pods"), CgroupRoot: c.CgroupRoot,
		Podshim: c.Podshim, Podrun: c.Podrun, Log: log,
	})
	if err != nil {
		return p, nil, fmt.Errorf("open the runtime: %w", err)
	}
	p.Runtime = rt
	closers = append(closers, rt.Close)
	pods, err := network.Open(ctx, network.Options{RunDir: filepath.Join(c.RunDir, "netns")})
	if err != nil {
		return p, nil, fmt.Errorf("open the pod network: %w", err)
	}
	p.Network = pods
	closers = append(closers, pods.Close)
	services, err := svcproxy.Open(ctx, svcproxy.Options{})
	if err != nil {
		return p, nil, fmt.Errorf("open the service rules: %w", err)
	}
	p.Proxy = services
	closers = append(closers, services.Close)
	if p.Volumes, err = volumes.Open(filepath.Join(c.DataDir, "volumes")); err != nil {
		return p, nil, err
	}
	secret, err := os.ReadFile(filepath.Join(c.identityDir(), pki.KeyFile))
	if err != nil {
		return p, nil, fmt.Errorf("read the node's key: %w", err)
	}
	if p.Tokens, err = checkpoint.Open(filepath.Join(c.DataDir, "tokens"), secret); err != nil {
		return p, undo, err
	}
	p.Checkpoint, err = checkpoint.Open(filepath.Join(c.DataDir, "checkpoint"), secret)
	return p, undo, err
}

func openImages(c config) (*images.Store, error) {
	cfg := images.Config{Dir: filepath.Join(c.DataDir, "images"), Registries: map[string]images.Registry{}}
	for host, r := range c.Registries {
		one := images.Registry{PlainHTTP: r.PlainHTTP, SkipVerify: r.SkipVerify}
		if r.CAFile != "" {
			ca, err := os.ReadFile(r.CAFile)
			if err != nil {
				return nil, fmt.Errorf("registries.%s.ca-file: %w", host, err)
			}
			if !x509.NewCertPool().AppendCertsFromPEM(ca) {
				return nil, fmt.Errorf("registries.%s.ca-file: %s holds no PEM certificate", host, r.CAFile)
			}
			one.CA = ca
		}
		cfg.Registries[host] = one
	}
	s, err := images.Open(cfg)
	if err != nil {
		return nil, fmt.Errorf("open the images: %w", err)
	}
	return s, nil
}

// dial makes a connection to a control plane member, with the node's identity.
func dial(address string, id *pki.KeyPair) (*grpc.ClientConn, error) {
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(credentials.NewTLS(id.ClientConfig(nil))),
		grpc.WithUnaryInterceptor(apierr.ClientUnary), grpc.WithStreamInterceptor(apierr.ClientStream),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}))
}

// renew asks a member for a new certificate.
func renew(ctx context.Context, c config, id *pki.KeyPair, controls []string, p node.Parts) ([]byte, error) {
	addr, err := netip.ParseAddr(c.AdvertiseAddress)
	if err != nil {
		return nil, err
	}
	csr, err := id.CSR([]string{c.Name}, []netip.Addr{addr})
	if err != nil {
		return nil, err
	}
	var failed error
	for _, a := range controls {
		cert, err := renewAt(ctx, a, csr, p)
		if err == nil {
			return cert, nil
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", a, err))
	}
	return nil, failed
}

func renewAt(ctx context.Context, address string, csr []byte, p node.Parts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	conn, err := p.Dial(address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r, err := wherryv1.NewClusterClient(conn).Renew(ctx, &wherryv1.RenewRequest{Csr: csr})
	if err != nil {
		return nil, err
	}
	return r.GetCertificate(), nil
}
