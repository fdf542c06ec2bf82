package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
)

// etcd's methods that are needed, and their messages by hand: so the peer is
// measured without the cost of a client library.
const (
	etcdPut    = "/etcdserverpb.KV/Put"
	etcdRange  = "/etcdserverpb.KV/Range"
	etcdStatus = "/etcdserverpb.Maintenance/Status"
)

// rawCodec sends and receives messages as the bytes that they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}
func (rawCodec) Name() string { return "proto" }

func raw(ctx context.Context, conn *grpc.ClientConn, method string, request []byte) ([]byte, error) {
	var response []byte
	err := conn.Invoke(ctx, method, &request, &response, grpc.ForceCodec(rawCodec{}))
	return response, err
}

// putEtcd writes one value.
func putEtcd(ctx context.Context, conn *grpc.ClientConn, key string, value []byte) error {
	b := make([]byte, 0, len(key)+len(value)+16)
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendString(b, key)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendBytes(b, value)
	_, err := raw(ctx, conn, etcdPut, b)
	return err
}

// errNoValue says that a key that was written is not there.
var errNoValue = errors.New("there is no value")

// getEtcd reads one value; etcd's reads are linearizable unless told otherwise.
// The values are field 2 of the answer.
func getEtcd(ctx context.Context, conn *grpc.ClientConn, key string) error {
	b, err := raw(ctx, conn, etcdRange, protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), key))
	if err != nil {
		return err
	}
	if kv, _, err := find(b, 2); err != nil || len(kv) == 0 {
		return errors.Join(errNoValue, err)
	}
	return nil
}

// leadsEtcd asks a member whether it leads: its own number is in the header
// (field 1.2), the leader's in field 4.
func leadsEtcd(ctx context.Context, conn *grpc.ClientConn) (bool, error) {
	b, err := raw(ctx, conn, etcdStatus, nil)
	if err != nil {
		return false, err
	}
	header, _, err := find(b, 1)
	if err != nil {
		return false, err
	}
	_, self, err := find(header, 2)
	if err != nil {
		return false, err
	}
	_, leader, err := find(b, 4)
	return err == nil && leader != 0 && leader == self, err
}

// find gives a field of a message.
func find(b []byte, want protowire.Number) (bytes []byte, number uint64, err error) {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, 0, protowire.ParseError(n)
		}
		b = b[n:]
		size := protowire.ConsumeFieldValue(field, kind, b)
		if size < 0 {
			return nil, 0, protowire.ParseError(size)
		}
		if field == want {
			switch kind {
			case protowire.BytesType:
				bytes, _ = protowire.ConsumeBytes(b)
			case protowire.VarintType:
				number, _ = protowire.ConsumeVarint(b)
			default:
				return nil, 0, errors.New("a field is of another type")
			}
			return bytes, number, nil
		}
		b = b[size:]
	}
	return nil, 0, nil // left out: zero
}

// etcdArgs is the command line of one member of three.
func etcdArgs(id identity, name, dir, client, peer, cluster string) []string {
	https := func(address string) string { return "https://" + address }
	return []string{
		"--name", name, "--data-dir", dir, "--logger", "zap", "--log-level", "error",
		"--listen-client-urls", https(client), "--advertise-client-urls", https(client),
		"--listen-peer-urls", https(peer), "--initial-advertise-peer-urls", https(peer),
		"--initial-cluster", cluster, "--initial-cluster-state", "new", "--initial-cluster-token", "bench",
		"--client-cert-auth", "--trusted-ca-file", id.ca, "--cert-file", id.cert, "--key-file", id.key,
		"--peer-client-cert-auth", "--peer-trusted-ca-file", id.ca, "--peer-cert-file", id.cert, "--peer-key-file", id.key,
		fmt.Sprint("--quota-backend-bytes=", 4<<30),
	}
}
