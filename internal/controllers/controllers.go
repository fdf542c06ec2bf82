// Package controllers lists the control loops that run on the leader: every
// controller and the scheduler, each with an identity of its own.
package controllers

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/controllers/apiendpoints"
	"github.com/wherry-project/wherry/internal/controllers/clusterroles"
	"github.com/wherry-project/wherry/internal/controllers/csr"
	"github.com/wherry-project/wherry/internal/controllers/deployment"
	"github.com/wherry-project/wherry/internal/controllers/endpoints"
	"github.com/wherry-project/wherry/internal/controllers/gc"
	"github.com/wherry-project/wherry/internal/controllers/namespace"
	"github.com/wherry-project/wherry/internal/controllers/nodelife"
	"github.com/wherry-project/wherry/internal/controllers/podgc"
	"github.com/wherry-project/wherry/internal/controllers/replicaset"
	"github.com/wherry-project/wherry/internal/controllers/rootca"
	"github.com/wherry-project/wherry/internal/controllers/serviceaccount"
	"github.com/wherry-project/wherry/internal/controllers/token"
	"github.com/wherry-project/wherry/internal/controllers/ttl"
	"github.com/wherry-project/wherry/internal/daemon"
	"github.com/wherry-project/wherry/internal/events"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/scheduler"
	"github.com/wherry-project/wherry/internal/store"
)

// Config is what the loops stand on.
type Config struct {
	// Source is the store to read, API the door to write through.
	Source reconcile.Source
	API    *apiserver.Server
	// LastSeen gives when this leader last heard of a node, or when it began
	// to lead: dispatch.Server.LastSeen.
	LastSeen func(node string) time.Time
	// NodeGrace is how long a node may be silent; 0 is 40 s.
	NodeGrace time.Duration
	// Controls gives the addresses under which the controlds that answer now
	// serve HTTPS: the endpoints of default/kubernetes. It is asked every few
	// seconds.
	Controls func(ctx context.Context) []netip.AddrPort
	// CA is the certificate of the cluster's CA as PEM.
	CA string
	// Authority opens the cluster's CA, to sign what was asked of it and approved.
	Authority func(*store.Snapshot) (*pki.Authority, error)
	// Tokens makes the tokens that are kept in Secrets.
	Tokens *authn.Accounts
	// Host names this controld in Events.
	Host string
	Log  *slog.Logger
}

// All makes the loops afresh, as parts that run only on the leader. Start them
// after this replica has applied all that was committed before it led.
func All(cfg Config) []daemon.Part {
	l := &list{cfg: cfg}
	l.add(replicaset.New(l.as(replicaset.Name), l.recorder(replicaset.Name)))
	l.add(deployment.New(l.as(deployment.Name), l.recorder(deployment.Name)))
	l.schedule()
	l.add(endpoints.New(l.as(endpoints.Name)))
	l.add(namespace.New(l.as(namespace.Name), cfg.API.Kinds()))
	l.add(gc.New(l.as(gc.Name), l.events("garbage-collector-controller", authz.Controller(gc.Name)), cfg.API.Kinds()))
	l.add(nodelife.New(l.as(nodelife.Name), l.events("node-controller", authz.Controller(nodelife.Name)), cfg.LastSeen, cfg.NodeGrace))
	l.add(podgc.New(l.as(podgc.Name)))
	l.add(serviceaccount.New(l.as(serviceaccount.Name)))
	l.add(token.New(l.as(token.Name), cfg.Tokens, cfg.CA))
	l.add(rootca.New(l.as(rootca.Name), cfg.CA))
	l.add(rootca.Extension(l.as(rootca.Name), cfg.CA))
	l.add(clusterroles.New(l.as(clusterroles.Name)))
	l.add(clusterroles.Defaults(cfg.API.As(api.User{Name: "system:apiserver", Groups: []string{authz.Masters}})))
	l.add(csr.New(l.as(csr.Name), cfg.Authority))
	l.add(csr.Cleaner(l.as(csr.Name)))
	l.add(ttl.New(l.as(ttl.Name)))
	l.add(apiendpoints.New(l.as(apiendpoints.Name), cfg.Controls))
	return l.parts
}

// schedule adds the scheduler.
func (l *list) schedule() {
	door := l.cfg.API.As(api.User{Name: authz.Scheduler})
	s := scheduler.New(l.cfg.Source, door, l.events(scheduler.Name, authz.Scheduler), l.cfg.Log)
	l.parts = append(l.parts, daemon.Ready("scheduler", s.Run))
}

// list gathers parts: the recorders stand before what uses them.
type list struct {
	cfg   Config
	parts []daemon.Part
}

// as gives the API under a controller's identity.
func (l *list) as(name string) *apiserver.Direct {
	return l.cfg.API.As(api.User{Name: authz.Controller(name)})
}

// recorder makes a controller's recorder, and runs it.
func (l *list) recorder(name string) reconcile.Recorder {
	return l.events(name+"-controller", authz.Controller(name))
}

func (l *list) events(component, user string) reconcile.Recorder {
	r := events.New(l.cfg.API.As(api.User{Name: user}), l.cfg.API.Kinds(), component, l.cfg.Host, l.cfg.Log)
	l.parts = append(l.parts, daemon.Ready("events of "+component, r.Run))
	return r
}

func (l *list) add(c reconcile.Controller) {
	l.parts = append(l.parts, daemon.Ready(c.Name, func(ctx context.Context) error {
		return c.Run(ctx, l.cfg.Source, l.cfg.Log)
	}))
}
