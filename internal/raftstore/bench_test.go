package raftstore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/store"
)

// BenchmarkCommit writes 256-byte values on the leader of three members with
// clients at once; "follower" has them forwarded.
func BenchmarkCommit(b *testing.B) {
	for _, where := range []string{"leader", "follower"} {
		for _, clients := range []int{1, 16, 100, 1000} {
			b.Run(fmt.Sprint(where, "/", clients), func(b *testing.B) {
				c := newClusterWith(b, 3, Limits{}, Timeouts{})
				m := c.leader()
				if where == "follower" {
					m = c.followers()[0]
				}
				run(b, clients, func(ctx context.Context, i int) error {
					return put(ctx, m, i)
				})
			})
		}
	}
}

// BenchmarkRead does linearizable reads.
func BenchmarkRead(b *testing.B) {
	for _, where := range []string{"leader", "follower"} {
		for _, clients := range []int{1, 16, 100, 1000} {
			b.Run(fmt.Sprint(where, "/", clients), func(b *testing.B) {
				c := newClusterWith(b, 3, Limits{}, Timeouts{})
				m := c.leader()
				if where == "follower" {
					m = c.followers()[0]
				}
				run(b, clients, func(ctx context.Context, i int) error {
					_, err := m.Snapshot(ctx, store.At{})
					return err
				})
			})
		}
	}
}

func put(ctx context.Context, s store.Store, i int) error {
	key := api.Key{Resource: "configmaps", Namespace: "default", Name: fmt.Sprint("k", i%10000)}
	_, err := s.Commit(ctx, store.Command{Changes: []store.Change{{Op: store.Put, Key: key, Record: &api.Record{Key: key, UID: "u", Bytes: make([]byte, 256)}}}})
	return err
}

func run(b *testing.B, clients int, f func(context.Context, int) error) {
	var next atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	b.ResetTimer()
	start := time.Now()
	for range clients {
		wg.Go(func() {
			var mine []time.Duration
			for {
				i := int(next.Add(1))
				if i > b.N {
					break
				}
				began := time.Now()
				if err := f(b.Context(), i); err != nil {
					b.Error(err)
					break
				}
				mine = append(mine, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "ops/s")
	slices.Sort(took)
	if len(took) > 0 {
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
	}
	b.StopTimer()
}

// BenchmarkSoak writes with 100 clients on two busy cores and counts the
// elections that nobody asked for.
func BenchmarkSoak(b *testing.B) {
	c := newClusterWith(b, 3, Limits{}, Timeouts{})
	m := c.leader()
	before, _ := m.Leadership()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	run(b, 100, func(ctx context.Context, i int) error {
		err := put(ctx, m, i)
		if err != nil && ctx.Err() == nil {
			return nil // an election; counted below
		}
		return err
	})
	close(stop)
	wg.Wait()
	after, _ := c.leader().Leadership()
	b.ReportMetric(float64(after.Term-before.Term), "elections")
}
