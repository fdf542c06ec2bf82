package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/wherry-project/wherry/internal/alloc"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/audit"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/backup"
	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/daemon"
	"github.com/wherry-project/wherry/internal/dispatch"
	"github.com/wherry-project/wherry/internal/gateway"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/openapi"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/raftstore"
	"github.com/wherry-project/wherry/internal/telemetry"
	kubeversion "github.com/wherry-project/wherry/internal/version"
)

// controld is the parts of the daemon, as they hang together.
type controld struct {
	cfg     config
	log     *slog.Logger
	metrics *prometheus.Registry
	member  member
	keys    *pki.KeyPair
	keyring *cluster.Keyring
	backups *backup.Metrics
	address string // of gRPC, as the others reach it
	// names and hosts are what the certificate should be for.
	wanted request

	pins       cluster.Pins
	rebuilding atomic.Pointer[string] // why this member is being brought back, or nil

	disk      diskNews
	raft      *raftstore.Store
	api       *apiserver.Server
	users     *authn.Authenticator
	tokens    *authn.Accounts
	audit     *audit.Log // nil without
	nodes     *dispatch.Server
	cluster   *cluster.Server
	gateway   *gateway.Gateway
	flight    *gateway.Flight // what runs over both doors
	grpc      *grpc.Server
	health    *apiserver.Health
	http, rpc net.Listener
}

// niceness is what the daemon runs with.
const niceness = -10

// run is the daemon.
func run(ctx context.Context, cfg config) error {
	notify, err := daemon.NewNotifier()
	if err != nil {
		return err
	}
	level, err := telemetry.ParseLevel(cfg.LogLevel)
	if err != nil {
		return err
	}
	log := telemetry.NewLogger(os.Stderr, level)
	// A heartbeat that waits for a processor behind others' work may cost an
	// election. Without the privilege it goes on as it is.
	if err := daemon.Nice(niceness); err != nil {
		log.Info("no higher priority for this process", "err", err)
	}
	d, err := open(ctx, cfg, log)
	if err != nil {
		return err
	}
	up := func() {
		log.Info("controld serves", "version", version, "member", d.member.ID, "https", d.http.Addr().String(), "grpc", d.rpc.Addr().String())
		if err := notify.Ready(); err != nil {
			log.Warn("service manager not told", "err", err)
		}
	}
	defer context.AfterFunc(ctx, func() {
		d.health.Shutdown()
		_ = notify.Stopping() // nothing depends on it
	})()
	return daemon.Run(ctx, log, up, d.parts()...)
}

// open makes all parts; none works before daemon.Run starts it, but the Raft.
func open(ctx context.Context, cfg config, log *slog.Logger) (_ *controld, err error) {
	d := &controld{cfg: cfg, log: log, disk: newDiskNews(), metrics: telemetry.NewRegistry("controld", version)}
	if d.backups, err = backup.NewMetrics(d.metrics); err != nil {
		return nil, err
	}
	if d.member, d.keys, err = openMember(cfg.DataDir); err != nil {
		return nil, err
	}
	if err := cfg.fixed(d.member.Settings); err != nil {
		return nil, err
	}
	if err := clearDrills(cfg.DataDir); err != nil {
		return nil, err
	}
	static, err := cfg.staticTokens()
	if err != nil {
		return nil, err
	}
	self, err := cfg.advertise(ctx)
	if err != nil {
		return nil, err
	}
	d.address = cfg.grpcAddress(self)
	d.wanted.names, d.wanted.addrs = cfg.wanted(self)
	if err := d.listen(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.http.Close(), d.rpc.Close())
		}
	}()
	own, err := d.keys.Agree()
	if err != nil {
		return nil, err
	}
	d.keyring = cluster.NewKeyring(own, d.keys.Self().Key)
	pins := &d.pins
	verifier := pki.NewVerifier(d.keys.CA(), pins.Check, time.Now)
	codec := api.NewCodec(kinds.Table(), cfg.CacheMiB<<20)
	docs, err := openapi.New(codec.Kinds())
	if err != nil {
		return nil, err
	}
	dial := dialer{tls: d.keys.ClientConfig(pins.Check)}
	d.raft, err = d.openRaft(raftstore.Config{
		Address: d.address, Cluster: d.member.Settings.ClusterID, Codec: codec, Sealer: d.keyring,
		Dial: dial.member, Authorize: onlyMembers(verifier), Logger: log, Metrics: d.metrics,
		Timeouts: raftstore.Timeouts{Heartbeat: cfg.HeartbeatTimeout.std(), Election: cfg.ElectionTimeout.std()},
		Log:      cfg.Log, DiskNews: d.disk.tell, FS: cfg.fs,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.closeRaft(ctx))
		}
	}()
	if why := d.member.Rebuilding; why != "" {
		d.rebuilding.Store(&why)
	}
	pins.Use(d.raft)
	d.keyring.Use(d.raft)
	set := d.member.Settings
	d.tokens = authn.NewAccounts(authn.AccountsConfig{State: d.raft, Static: static, Issuer: "https://kubernetes.default.svc." + set.Domain})
	d.api = apiserver.New(apiserver.Config{
		Tokens: d.tokens,
		Store:  d.raft, Codec: codec, Alloc: alloc.New(ranges(set)),
		LiveNode: func(node string) (time.Time, bool) { return d.nodes.Heard(node) },
		Virtual:  d.virtual(),
	})
	d.users = authn.New(authn.Config{Verifier: verifier, Authorize: d.api.Authorize, Token: d.tokens.User, Log: log})
	d.cluster = cluster.New(cluster.Config{
		Store: d.raft, Members: d.raft, Self: d.member.ID, Keyring: d.keyring, Version: version, Identify: d.users.Call, Peer: verifier.FromContext,
		As: func(u api.User) cluster.Door { return d.api.As(u) }, Ask: dial.ask, Now: time.Now, Log: log,
		RotateTokens: func(ctx context.Context) (string, int, error) { return d.tokens.RotateKeys(ctx, d.raft) },
	})
	d.nodes = dispatch.New(dispatch.Config{
		Store: d.raft, Codec: codec, As: func(u api.User) dispatch.Door { return d.api.As(u) },
		Identify: d.users.Call, Authorize: d.api.Authorize, Leader: d.raft.IsLeader, Controls: d.cluster.Controls,
		Cluster: dispatch.Cluster{Domain: set.Domain, DNS: set.DNS().String(), PodCIDR: set.PodCIDR.String(), ServiceCIDR: set.ServiceCIDR.String()},
		Wait:    5 * time.Second, Heartbeat: heartbeat(cfg.NodeGrace.std()),
		Log: log,
	})
	if d.audit, err = cfg.openAudit(log); err != nil {
		return nil, err
	}
	d.flight = gateway.NewFlight(gateway.Limits{})
	d.gateway, err = gateway.New(gateway.Config{
		Audit: d.audit, API: d.api, User: d.users.Request, Hold: d.users.Hold, Flight: d.flight, Authorize: d.api.Authorize, AuthorizePath: d.api.AuthorizePath, OpenID: d.tokens, Streams: d.nodes, Backends: d.nodes, OpenAPI: docs,
		Live: []gateway.Check{{Name: "raft", Run: d.alive}}, Ready: []gateway.Check{{Name: "data", Run: d.rebuilt}, {Name: "quorum", Run: d.current}},
		Registry: d.metrics, Version: kubeversion.Info(version), Log: log,
	})
	if err != nil {
		return nil, err
	}
	d.grpc = d.grpcServer()
	return d, nil
}

// listen takes the ports before anything else, so that a port in use is told at
// once.
func (d *controld) listen(ctx context.Context) error {
	var lc net.ListenConfig
	var err error
	if d.http, err = lc.Listen(ctx, "tcp", d.cfg.listen(d.cfg.HTTPSPort)); err != nil {
		return fmt.Errorf("https-port: %w", err)
	}
	if d.rpc, err = lc.Listen(ctx, "tcp", d.cfg.listen(d.cfg.GRPCPort)); err != nil {
		return fmt.Errorf("grpc-port: %w", errors.Join(err, d.http.Close()))
	}
	return nil
}

// onlyMembers is the door of the Raft service.
func onlyMembers(v *pki.Verifier) func(context.Context) error {
	return func(ctx context.Context) error {
		p, err := v.FromContext(ctx)
		if err != nil {
			return apierr.New(apierr.ErrUnauthorized, "%w", err)
		}
		if p.Role != pki.Member {
			return apierr.Forbidden("", "", errors.New("only members of the cluster may call the Raft service"))
		}
		return nil
	}
}

// heartbeat is how often nodes are to be heard of, so that several heartbeats
// must be missed before a node counts as lost.
func heartbeat(grace time.Duration) time.Duration {
	return min(max(grace/10, 200*time.Millisecond), 4*time.Second)
}
