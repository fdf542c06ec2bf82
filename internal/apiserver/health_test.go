package apiserver_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

// lonely is a store without a majority: it answers when its caller's time ends.
type lonely struct{ store.Store }

func (s lonely) Snapshot(ctx context.Context, at store.At) (*store.Snapshot, error) {
	if at.Level != store.Linearizable {
		return s.Store.Snapshot(ctx, at)
	}
	<-ctx.Done()
	return nil, apierr.New(apierr.ErrTimeout, "nobody leads: %w", ctx.Err())
}

// patient tells a server of a deadline, and waits beyond it.
type patient struct {
	context.Context
	deadline time.Time
}

func (p patient) Deadline() (time.Time, bool) { return p.deadline, true }

func TestHealthFollowsReadiness(t *testing.T) {
	var sick atomic.Bool
	h := apiserver.NewHealth(func(context.Context) error {
		if sick.Load() {
			return errors.New("no majority")
		}
		return nil
	}, func(context.Context) error { return nil })
	codec := api.NewCodec(kinds.Table(), 1<<20)
	c := open(t, codec, store.NewLocal(codec), apiserver.Config{})
	alone := apiserver.New(apiserver.Config{Store: lonely{c.store}, Codec: codec, Alloc: ranges()})
	srv := grpc.NewServer(grpc.ChainUnaryInterceptor(apierr.ServerUnary, apiserver.AnswerInTime))
	healthv1.RegisterHealthServer(srv, h)
	wherryv1.RegisterResourcesServer(srv, apiserver.NewService(alone, func(context.Context) (api.User, error) { return admin, nil }))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }() // ends with Stop
	t.Cleanup(srv.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := healthv1.NewHealthClient(conn)
	asks := func(service string) healthv1.HealthCheckResponse_ServingStatus {
		r, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetStatus()
	}
	w, err := client.Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if r, err := w.Recv(); err != nil || r.GetStatus() != want {
			t.Errorf("watched %v, %v; want %v", r, err, want)
		}
	}
	next(healthv1.HealthCheckResponse_SERVING)
	if got := asks(""); got != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("well: %v", got)
	}
	sick.Store(true)
	if got := asks("wherry.v1.Resources"); got != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("without a majority: %v", got)
	}
	if got := asks("liveness"); got != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("alive without a majority: %v", got)
	}
	next(healthv1.HealthCheckResponse_NOT_SERVING)
	sick.Store(false)
	next(healthv1.HealthCheckResponse_SERVING)
	h.Shutdown()
	next(healthv1.HealthCheckResponse_NOT_SERVING)

	// A client's deadline: it hears why, if the answer is not late on its way,
	// which does not count here.
	_, err = wherryv1.NewResourcesClient(conn).Get(patient{t.Context(), time.Now().Add(2 * time.Second)}, &wherryv1.GetRequest{Target: &wherryv1.Target{Version: "v1", Resource: "namespaces", Name: "demo"}})
	if err == nil || !strings.Contains(err.Error(), "nobody leads") {
		t.Errorf("a read that nobody can answer: %v", err)
	}

	// A write whose answer rests on what was read says that it was not done.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = alone.Create(ctx, admin, c.at("namespaces", "", "", ""), c.read("namespaces", `metadata: {name: demo}`), api.WriteOptions{})
	wants(t, err, apierr.ErrTimeout, "nothing was written: nobody leads")
}
