package gateway

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the gateway's own, under the names that dashboards for
// Kubernetes know.
type metrics struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	watches  *prometheus.GaugeVec
}

func newMetrics(reg *prometheus.Registry) (*metrics, error) {
	m := &metrics{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total", Help: "Requests by verb, resource and code.",
		}, []string{"verb", "group", "resource", "subresource", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_duration_seconds", Help: "How long requests took that are not long-running.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 60},
		}, []string{"verb"}),
		watches: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests", Help: "Watches that run.",
		}, []string{"verb", "group", "resource"}),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.total), reg.Register(m.duration), reg.Register(m.watches))
}

func metricsHandler(reg *prometheus.Registry) http.Handler {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// observe counts a request that has ended. Only what is served becomes a
// label, so that clients cannot make up names.
func (m *metrics) observe(c *call, took time.Duration) {
	verb, p := c.path.verb, c.path
	if _, err := c.kind(); err != nil || !p.resource || verb == "" {
		verb, p = "other", path{}
	} else if k, err := c.kind(); err == nil && p.Subresource != "" {
		if _, ok := k.Subresource(p.Subresource); !ok {
			p.Subresource = "other"
		}
	}
	m.total.WithLabelValues(verb, p.Group, p.Resource, p.Subresource, strconv.Itoa(c.w.status)).Inc()
	if !c.path.longRunning() {
		m.duration.WithLabelValues(verb).Observe(took.Seconds())
	}
}

// watching counts a watch that begins; the function given ends it.
func (m *metrics) watching(c *call) func() {
	g := m.watches.WithLabelValues("watch", c.path.Group, c.path.Resource)
	g.Inc()
	return g.Dec
}
