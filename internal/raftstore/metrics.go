package raftstore

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what the store does; with no registry it counts for nobody.
type metrics struct {
	commits   *prometheus.HistogramVec
	syncs     prometheus.Histogram
	slow      prometheus.Gauge
	full      prometheus.Gauge
	perEntry  prometheus.Histogram
	registry  *prometheus.Registry
	collected []prometheus.Collector
}

func newMetrics(s *Store, registry *prometheus.Registry) (*metrics, error) {
	m := &metrics{registry: registry}
	m.commits = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "wherry_store_commit_seconds", Help: "How long a write took from the call to its answer.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
	}, []string{"result"})
	m.perEntry = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "wherry_store_entry_commands", Help: "How many commands shared a log entry.",
		Buckets: prometheus.ExponentialBuckets(1, 2, 10),
	})
	m.syncs = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "wherry_store_disk_seconds", Help: "How long a write or a sync of the log took.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18),
	})
	m.slow = prometheus.NewGauge(prometheus.GaugeOpts{Name: "wherry_store_disk_slow", Help: "1 while writes or syncs of the log take a second or more."})
	m.full = prometheus.NewGauge(prometheus.GaugeOpts{Name: "wherry_store_disk_full", Help: "1 while there is no room for the log."})
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "wherry_store_" + name, Help: help}, f)
	}
	m.collected = []prometheus.Collector{
		m.commits, m.perEntry, m.syncs, m.slow, m.full,
		gauge("revision", "The revision that this replica has applied.", func() float64 { return float64(s.mem.Revision()) }),
		gauge("term", "The Raft term.", func() float64 { return float64(s.raft.CurrentTerm()) }),
		gauge("queue_commands", "Commands that wait for a log entry.", func() float64 { return float64(len(s.queue)) }),
		gauge("leader", "1 while this replica leads.", func() float64 { return number(s.leads()) }),
	}
	if registry == nil {
		return m, nil
	}
	for i, c := range m.collected {
		if err := registry.Register(c); err != nil {
			m.collected = m.collected[:i]
			m.close()
			return nil, fmt.Errorf("raft store metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) close() {
	if m.registry == nil {
		return
	}
	for _, c := range m.collected {
		m.registry.Unregister(c)
	}
}

func (m *metrics) begin() time.Time { return time.Now() }

func (m *metrics) committed(start time.Time, err error) {
	result := "ok"
	if err != nil {
		result = "refused"
	}
	m.commits.WithLabelValues(result).Observe(time.Since(start).Seconds())
}

func (m *metrics) entry(commands int) { m.perEntry.Observe(float64(commands)) }

// disk tells how the disk does.
func (m *metrics) disk(now DiskNews) {
	m.slow.Set(number(now.Slow))
	m.full.Set(number(now.Full))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
