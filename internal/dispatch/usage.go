package dispatch

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/store"
)

const (
	// usageWithin is how long a node may take to say what it uses, and
	// usageAtOnce how many nodes one request asks at once.
	usageWithin = 5 * time.Second
	usageAtOnce = 32
)

// usage asks nodes what they use. A node that cannot be asked now is left out.
func (s *Server) usage(ctx context.Context, nodes []string) map[string]*wherryv1.UsageResponse {
	ctx, cancel := context.WithTimeout(ctx, usageWithin)
	defer cancel()
	out := map[string]*wherryv1.UsageResponse{}
	places := make(chan struct{}, usageAtOnce)
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, node := range nodes {
		if !s.connected(node) {
			continue // nobody waits for a node that is away
		}
		places <- struct{}{}
		group.Go(func() {
			defer func() { <-places }()
			u := &wherryv1.UsageResponse{}
			if err := s.call(ctx, node, &wherryv1.UsageRequest{}, u); err != nil {
				s.cfg.Log.Debug("node did not say what it uses", "node", node, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out[node] = u
		})
	}
	group.Wait()
	return out
}

// NodeMetrics gives what one node uses.
func (s *Server) NodeMetrics(ctx context.Context, _ api.User, t api.Target) (api.Object, error) {
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Any})
	if err != nil {
		return nil, err
	}
	if r, ok := snap.Get(api.Key{Resource: "nodes", Name: t.Name}); ok {
		if u := s.usage(ctx, []string{t.Name})[t.Name]; u != nil {
			return nodeMetrics(r, u.GetNode()), nil
		}
	}
	return nil, apierr.NotFound("nodemetrics.metrics.k8s.io", t.Name)
}

// ListNodeMetrics gives what the nodes use that can be asked.
func (s *Server) ListNodeMetrics(ctx context.Context, _ api.User, _ api.Target, sel api.Selection) ([]api.Object, error) {
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Any})
	if err != nil {
		return nil, err
	}
	nodes, records := []string{}, map[string]*api.Record{}
	for r := range snap.Scan("nodes", "", api.Key{}) {
		if selected(sel, r) {
			nodes, records[r.Name] = append(nodes, r.Name), r
		}
	}
	var out []api.Object
	for name, u := range s.usage(ctx, nodes) {
		out = append(out, nodeMetrics(records[name], u.GetNode()))
	}
	return out, nil
}

// PodMetrics gives what one pod uses.
func (s *Server) PodMetrics(ctx context.Context, _ api.User, t api.Target) (api.Object, error) {
	all, err := s.podMetrics(ctx, func(snap *store.Snapshot, add func(*api.Record)) {
		if r, ok := snap.Get(api.Key{Resource: "pods", Namespace: t.Namespace, Name: t.Name}); ok {
			add(r)
		}
	})
	if err == nil && len(all) == 0 {
		err = apierr.NotFound("podmetrics.metrics.k8s.io", t.Namespace+"/"+t.Name)
	}
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// ListPodMetrics gives what the pods of a namespace, or of all, use.
func (s *Server) ListPodMetrics(ctx context.Context, _ api.User, t api.Target, sel api.Selection) ([]api.Object, error) {
	return s.podMetrics(ctx, func(snap *store.Snapshot, add func(*api.Record)) {
		for r := range snap.Scan("pods", t.Namespace, api.Key{}) {
			if selected(sel, r) {
				add(r)
			}
		}
	})
}

// selected reports whether the labels of a record are those that are asked for.
func selected(sel api.Selection, r *api.Record) bool {
	return sel.Labels == nil || sel.Labels.Matches(labels.Set(r.Index.Labels))
}

// podMetrics gives what the pods use that are chosen and that run.
func (s *Server) podMetrics(ctx context.Context, choose func(snap *store.Snapshot, add func(*api.Record))) ([]api.Object, error) {
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Any})
	if err != nil {
		return nil, err
	}
	var nodes []string
	pods := map[string]*api.Record{}
	choose(snap, func(r *api.Record) {
		node := r.Index.Fields["spec.nodeName"]
		if node == "" || r.Index.Fields["status.phase"] != string(corev1.PodRunning) {
			return
		}
		pods[r.UID] = r
		if !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	})
	var out []api.Object
	for _, u := range s.usage(ctx, nodes) {
		for _, p := range u.GetPods() {
			if r := pods[p.GetUid()]; r != nil && len(p.GetContainers()) > 0 {
				out = append(out, metricsOf(r, p))
			}
		}
	}
	return out, nil
}

func nodeMetrics(r *api.Record, u *wherryv1.Usage) *metricsv1beta1.NodeMetrics {
	at, window := span(u)
	return &metricsv1beta1.NodeMetrics{ObjectMeta: meta(r), Timestamp: at, Window: window, Usage: amounts(u)}
}

// metricsOf tells the time of the container that was measured first.
func metricsOf(r *api.Record, p *wherryv1.PodUsage) *metricsv1beta1.PodMetrics {
	m := &metricsv1beta1.PodMetrics{ObjectMeta: meta(r)}
	for _, c := range p.GetContainers() {
		at, window := span(c.GetUsage())
		if m.Timestamp.IsZero() || at.Before(&m.Timestamp) {
			m.Timestamp, m.Window = at, window
		}
		m.Containers = append(m.Containers, metricsv1beta1.ContainerMetrics{Name: c.GetName(), Usage: amounts(c.GetUsage())})
	}
	return m
}

func meta(r *api.Record) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: r.Namespace, Name: r.Name, Labels: r.Index.Labels, CreationTimestamp: metav1.Time{Time: time.Now().Truncate(time.Second)}}
}

func span(u *wherryv1.Usage) (metav1.Time, metav1.Duration) {
	return metav1.Time{Time: time.Unix(0, u.GetTimeUnixNano()).Truncate(time.Second)},
		metav1.Duration{Duration: time.Duration(u.GetWindowNanos()).Round(time.Millisecond)}
}

func amounts(u *wherryv1.Usage) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(int64(u.GetCpuNanoCores()), resource.Nano),        //nolint:gosec // no machine has that many
		corev1.ResourceMemory: *resource.NewQuantity(int64(u.GetMemoryWorkingSetBytes()), resource.BinarySI), //nolint:gosec // nor that much
	}
}
