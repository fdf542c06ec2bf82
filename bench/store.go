package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
)

// keys is how many different keys the load writes.
const keys = 10_000

// cellKey names a row of the store's tables.
type cellKey struct {
	what  string
	size  int
	reads bool
}

// store measures writes and reads per second.
func (b *bench) store(ctx context.Context) error {
	var err error
	for _, n := range b.members {
		rows := map[cellKey][]cell{}
		if b.measures("etcd") {
			err = errors.Join(err, b.measureTrio(ctx, n, b.etcd, "etcd", rows))
		}
		if b.measures("store") {
			err = errors.Join(err, b.measureTrio(ctx, n, b.bareStore, "store", rows))
		}
		if b.measures("api") {
			err = errors.Join(err, b.measureAPI(ctx, n, rows))
		}
		about := fmt.Sprintf("Per cell: rate (p50 / p99). Clients in one process, each with one request on its way, ten to a connection, all to the leader, "+
			"mutual TLS on every connection, %d keys, %s per cell. The bare store and etcd run on loopback, controld on a testbed's hosts, from each of which its clients connect; the processes share this machine's processors with the clients.", keys, b.cell)
		b.storeTable(fmt.Sprintf("Writes per second, members: %d", n), about, false, rows)
		b.storeTable(fmt.Sprintf("Linearizable reads per second, members: %d", n), "As above; each reads one object.", true, rows)
	}
	return err
}

func (b *bench) measures(what string) bool { return slices.Contains(b.what, what) }

// storeTable shows the rows of writes or of reads.
func (b *bench) storeTable(title, about string, reads bool, rows map[cellKey][]cell) {
	t := &table{title: title, about: about, head: []string{""}}
	for _, c := range b.clients {
		t.head = append(t.head, fmt.Sprint(c, " clients"))
	}
	names := map[string]string{"etcd": "etcd, values", "store": "bare store, values", "api": "API, ConfigMaps"}
	for _, size := range b.sizes {
		peer := rows[cellKey{"etcd", size, reads}]
		for _, what := range []string{"etcd", "store", "api"} {
			cells := rows[cellKey{what, size, reads}]
			if len(cells) == 0 {
				continue
			}
			row := []string{fmt.Sprintf("%s of %d B", names[what], size)}
			for _, c := range cells {
				row = append(row, c.text())
			}
			t.add(row...)
			if what != "etcd" && len(peer) == len(cells) {
				t.add(ratios(what, reads, cells, peer)...)
			}
		}
	}
	b.out.show(t)
}

// ratios compares with the peer. The goals for writes are 2 times etcd's at 100
// clients and above, and no fewer below, with a p99 that is no worse; for reads of
// the bare store 1.5 times.
func ratios(what string, reads bool, cells, peer []cell) []string {
	row := []string{"— " + what + " ÷ etcd"}
	for i, c := range cells {
		x := c.rate / peer[i].rate
		text := fmt.Sprintf("%.2f×", x)
		if want := wanted(what, reads, c.clients); want > 0 {
			text = goal(x >= want, fmt.Sprintf("%s ≥ %.1f×", text, want))
		}
		if !reads && c.took.at(99) > peer[i].took.at(99) {
			text += fmt.Sprintf(", p99 %.2f×: **worse**", float64(c.took.at(99))/float64(peer[i].took.at(99)))
		}
		row = append(row, text)
	}
	return row
}

// wanted is how many times etcd's rate is the goal, 0 for none.
func wanted(what string, reads bool, clients int) float64 {
	switch {
	case reads && what != "store":
		return 0
	case reads:
		return 1.5
	case clients >= 100:
		return 2
	}
	return 1
}

// measureTrio fills the rows of one store of several processes.
func (b *bench) measureTrio(ctx context.Context, n int, open func(context.Context, int) (*trio, error), what string, rows map[cellKey][]cell) (err error) {
	t, err := open(ctx, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	for _, size := range b.sizes {
		for _, clients := range b.clients {
			for _, reads := range []bool{false, true} {
				c, err := b.loadTrio(ctx, t, clients, size, reads)
				if err != nil {
					return fmt.Errorf("%s, %d B: %w", what, size, err)
				}
				rows[cellKey{what, size, reads}] = append(rows[cellKey{what, size, reads}], c)
			}
		}
	}
	return nil
}

func (b *bench) loadTrio(ctx context.Context, t *trio, clients, size int, reads bool) (cell, error) {
	conns, closeAll, err := t.connectLeader(ctx, clients)
	if err != nil {
		return cell{}, err
	}
	defer closeAll()
	return load(ctx, clients, b.cell, func(ctx context.Context, client, n int) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		conn := conns[client%len(conns)]
		if reads {
			return t.get(ctx, conn, uint64(client)) // each client wrote that one
		}
		return t.put(ctx, conn, uint64(n*clients+client)%keys, make([]byte, size))
	})
}

// connectLeader makes connections to the member that leads.
func (t *trio) connectLeader(ctx context.Context, clients int) ([]*grpc.ClientConn, func(), error) {
	leader, err := t.leader(ctx)
	if err != nil {
		return nil, nil, err
	}
	return dialMany(ctx, connections(clients), func() (*grpc.ClientConn, error) { return t.dial(t.members[leader].address) })
}

// measureAPI fills the rows of the API.
func (b *bench) measureAPI(ctx context.Context, n int, rows map[cellKey][]cell) error {
	d, err := b.bed(ctx, n, 1)
	if err != nil {
		return err
	}
	for _, size := range b.sizes {
		for _, clients := range b.clients {
			w, err := b.writeAPI(ctx, d, clients, size)
			if err != nil {
				return fmt.Errorf("API, %d B: %w", size, err)
			}
			r, err := b.readAPI(ctx, d, clients, size)
			if err != nil {
				return fmt.Errorf("API, reads of %d B: %w", size, err)
			}
			rows[cellKey{"api", size, false}] = append(rows[cellKey{"api", size, false}], w)
			rows[cellKey{"api", size, true}] = append(rows[cellKey{"api", size, true}], r)
		}
	}
	return nil
}
