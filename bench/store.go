package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
)

// keys is how many different keys the load writes.
const keys = 10_000

// cellKey names a row of the store's table.
type cellKey struct {
	what string
	size int
}

// store measures writes per second.
func (b *bench) store(ctx context.Context) error {
	t := &table{
		title: "Writes per second, three members",
		about: fmt.Sprintf("Per cell: rate (p50 / p99). Clients in one process, each with one write on its way, ten to a connection, all to the leader, "+
			"mutual TLS on every connection, %d keys, %s per cell. The bare store and etcd run on loopback, controld on a testbed's hosts; the processes share this machine's processors with the clients.", keys, b.cell),
		head: []string{"", "1 client", "16", "100", "1000"},
	}
	rows := map[cellKey][]cell{}
	sizes := []int{256, 1024}
	err := b.measureTrio(ctx, b.etcd, "etcd", sizes, rows)
	err = errors.Join(err, b.measureTrio(ctx, b.bareStore, "bare store", sizes, rows))
	err = errors.Join(err, b.measureAPI(ctx, sizes, rows))
	names := map[string]string{"etcd": "etcd, values", "bare store": "bare store, values", "API": "API, ConfigMaps"}
	for _, size := range sizes {
		for _, what := range []string{"etcd", "bare store", "API"} {
			cells := rows[cellKey{what, size}]
			if len(cells) == 0 {
				continue
			}
			row := []string{fmt.Sprintf("%s of %d B", names[what], size)}
			for _, c := range cells {
				row = append(row, c.text())
			}
			t.add(row...)
			if peer := rows[cellKey{"etcd", size}]; what != "etcd" && len(peer) == len(cells) {
				t.add(ratios(what, cells, peer)...)
			}
		}
	}
	b.out.show(t)
	return err
}

// ratios compares with the peer. The bare store has a goal at 100 clients and
// above.
func ratios(what string, cells, peer []cell) []string {
	row := []string{"— " + what + " ÷ etcd"}
	for i, c := range cells {
		x := c.rate / peer[i].rate
		text := fmt.Sprintf("%.2f×", x)
		if what == "bare store" && c.clients >= 100 {
			text = goal(x >= 1, text+" ≥ 1.0×")
		}
		row = append(row, text)
	}
	return row
}

// measureTrio fills the rows of one store of three processes.
func (b *bench) measureTrio(ctx context.Context, open func(context.Context) (*trio, error), what string, sizes []int, rows map[cellKey][]cell) (err error) {
	t, err := open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	for _, size := range sizes {
		for _, clients := range clientCounts() {
			c, err := b.writeTrio(ctx, t, clients, size)
			if err != nil {
				return fmt.Errorf("%s, %d B: %w", what, size, err)
			}
			rows[cellKey{what, size}] = append(rows[cellKey{what, size}], c)
		}
	}
	return nil
}

func (b *bench) writeTrio(ctx context.Context, t *trio, clients, size int) (cell, error) {
	leader, err := t.leader(ctx)
	if err != nil {
		return cell{}, err
	}
	conns, closeAll, err := dialMany(ctx, connections(clients), func() (*grpc.ClientConn, error) { return t.dial(t.members[leader].address) })
	if err != nil {
		return cell{}, err
	}
	defer closeAll()
	return load(ctx, clients, b.cell, func(ctx context.Context, client, n int) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		key := uint64(n*clients+client) % keys
		return t.put(ctx, conns[client%len(conns)], key, make([]byte, size))
	})
}
