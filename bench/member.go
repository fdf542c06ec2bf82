package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/heap"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/raftstore"
	"github.com/wherry-project/wherry/internal/store"
)

// memberCommand is the first argument of a process that is one member of the
// bare store.
const memberCommand = "member"

// putMethod writes one value: the bare store needs a client's way in, as thin
// as etcd's. The request is the key's number in 8 bytes and the value, the
// answer the revision.
const (
	benchService = "wherry.bench.Store"
	putMethod    = "/" + benchService + "/Put"
	getMethod    = "/" + benchService + "/Get"
	leadMethod   = "/" + benchService + "/Lead"
)

// member runs one member of the bare store until ctx ends. It prints "ready"
// when it serves; with -found it founds the cluster first, and adds others.
func member(ctx context.Context, args []string) (err error) {
	f := flag.NewFlagSet(memberCommand, flag.ContinueOnError)
	name := f.String("id", "", "")
	address := f.String("address", "", "")
	dir := f.String("dir", "", "")
	founder := f.Bool("found", false, "")
	kind := f.String("log", raftstore.LogWherry, "")
	add := f.String("add", "", "ID=ADDRESS of the other members, by comma")
	var id identity
	id.flags(f)
	if err := f.Parse(args); err != nil {
		return err
	}
	conf, err := id.config()
	if err != nil {
		return err
	}
	creds := credentials.NewTLS(conf)
	// As controld.
	go heap.Keep(ctx, heap.Config{Percent: 100, Room: 48 << 20, Every: 5 * time.Second, Rest: 8 << 20})
	s, err := raftstore.Open(raftstore.Config{
		Log: *kind, ID: *name, Address: *address, Dir: *dir, Codec: api.NewCodec(kinds.Table(), 16<<20),
		Dial: func(_ context.Context, address string) (grpc.ClientConnInterface, error) {
			return grpc.NewClient(address, grpc.WithTransportCredentials(creds))
		},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.Creds(creds))
	s.Register(server)
	server.RegisterService(serviceDesc(), &putter{s})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, s.Close(end))
		server.Stop()
	}()
	if *founder {
		if err := found(ctx, s, strings.FieldsFunc(*add, func(r rune) bool { return r == ',' })); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	select {
	case <-ctx.Done():
		return nil
	case err := <-served:
		return err
	}
}

// found makes a cluster of this member and the others.
func found(ctx context.Context, s *raftstore.Store, others []string) error {
	if err := s.Bootstrap(); err != nil {
		return err
	}
	for {
		now, changed := s.Leadership()
		if now.Ready {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, o := range others {
		name, address, _ := strings.Cut(o, "=")
		if err := s.AddMember(ctx, name, address); err != nil {
			return err
		}
	}
	return nil
}

type putter struct{ s *raftstore.Store }

func (p *putter) put(ctx context.Context, request []byte) (uint64, error) {
	if len(request) < 8 {
		return 0, errors.New("a request begins with the key's number")
	}
	key := api.Key{Resource: "configmaps", Namespace: "bench", Name: fmt.Sprint("k", binary.LittleEndian.Uint64(request))}
	return p.s.Commit(ctx, store.Command{Changes: []store.Change{{
		Op: store.Put, Key: key, Record: &api.Record{Key: key, UID: "u", Bytes: request[8:]},
	}}})
}

// get reads one value linearizably.
func (p *putter) get(ctx context.Context, request []byte) ([]byte, error) {
	snap, err := p.s.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return nil, err
	}
	r, ok := snap.Get(api.Key{Resource: "configmaps", Namespace: "bench", Name: fmt.Sprint("k", binary.LittleEndian.Uint64(request))})
	if !ok {
		return nil, nil
	}
	return r.Bytes, nil
}

// serviceDesc is written by hand: three methods with well-known messages.
func serviceDesc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{ServiceName: benchService, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{
		{MethodName: "Put", Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in wrapperspb.BytesValue
			if err := decode(&in); err != nil {
				return nil, err
			}
			revision, err := srv.(*putter).put(ctx, in.GetValue())
			return wrapperspb.UInt64(revision), err
		}},
		{MethodName: "Get", Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in wrapperspb.BytesValue
			if err := decode(&in); err != nil {
				return nil, err
			}
			value, err := srv.(*putter).get(ctx, in.GetValue())
			return wrapperspb.Bytes(value), err
		}},
		{MethodName: "Lead", Handler: func(srv any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in wrapperspb.BytesValue
			if err := decode(&in); err != nil {
				return nil, err
			}
			return wrapperspb.Bool(srv.(*putter).s.IsLeader()), nil
		}},
	}}
}
