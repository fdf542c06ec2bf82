package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/testbed"
)

// writtenBed is the cluster that the API's writes go to. Its members have long
// logs afterwards; the other parts have beds of their own.
var writtenBed = [2]int{3, 1}

// connectLeader makes connections to the control that leads.
func (d *bed) connectLeader(ctx context.Context, clients int) ([]*grpc.ClientConn, func(), error) {
	name, err := d.leader(ctx)
	if err != nil {
		return nil, nil, err
	}
	var leader testbed.Machine
	for _, m := range d.controls {
		if m.Name == name {
			leader = m
		}
	}
	return dialMany(ctx, connections(clients), func() (*grpc.ClientConn, error) { return d.dial(leader) })
}

// writeAPI measures ConfigMaps written through gRPC Resources: authenticated,
// authorized, validated, stored.
func (b *bench) writeAPI(ctx context.Context, d *bed, clients, size int) (cell, error) {
	conns, closeAll, err := d.connectLeader(ctx, clients)
	if err != nil {
		return cell{}, err
	}
	defer closeAll()
	prefix := fmt.Sprintf("w%d-%d", size, clients)
	return load(ctx, clients, b.cell, func(ctx context.Context, client, n int) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return writeConfigMap(ctx, conns[client%len(conns)], fmt.Sprintf("%s-%d", prefix, client), size, n)
	})
}

// readAPI measures linearizable reads of what writeAPI wrote for so many
// clients.
func (b *bench) readAPI(ctx context.Context, d *bed, clients, size int) (cell, error) {
	conns, closeAll, err := d.connectLeader(ctx, clients)
	if err != nil {
		return cell{}, err
	}
	defer closeAll()
	return load(ctx, clients, b.cell, func(ctx context.Context, client, _ int) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		target := &wherryv1.Target{Version: "v1", Resource: "configmaps", Namespace: metav1.NamespaceDefault, Name: fmt.Sprintf("w%d-%d-%d", size, clients, client)}
		_, err := wherryv1.NewResourcesClient(conns[client%len(conns)]).Get(ctx, &wherryv1.GetRequest{Target: target})
		return err
	})
}

// writeConfigMap creates a ConfigMap the first time and replaces it later, with
// other data each time.
func writeConfigMap(ctx context.Context, conn *grpc.ClientConn, name string, size, n int) error {
	data := fmt.Sprintf("%d ", n)
	data += strings.Repeat("x", max(0, size-len(data)))
	object, err := api.ToAny(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceDefault}, Data: map[string]string{"v": data},
	})
	if err != nil {
		return err
	}
	target := &wherryv1.Target{Version: "v1", Resource: "configmaps", Namespace: metav1.NamespaceDefault, Name: name}
	client := wherryv1.NewResourcesClient(conn)
	if n == 0 {
		_, err = client.Create(ctx, &wherryv1.CreateRequest{Target: target, Object: object})
	} else {
		_, err = client.Update(ctx, &wherryv1.UpdateRequest{Target: target, Object: object})
	}
	return err
}
