package main

import (
	"context"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apiserver"
)

// virtual serves the kinds for which the nodes are asked. The sessions are made
// after the API server that they write through.
func (d *controld) virtual() map[string]apiserver.Virtual {
	return map[string]apiserver.Virtual{
		"nodes.metrics.k8s.io": {
			Get: func(ctx context.Context, u api.User, t api.Target) (api.Object, error) {
				return d.nodes.NodeMetrics(ctx, u, t)
			},
			List: func(ctx context.Context, u api.User, t api.Target, sel api.Selection) ([]api.Object, error) {
				return d.nodes.ListNodeMetrics(ctx, u, t, sel)
			},
		},
		"pods.metrics.k8s.io": {
			Get: func(ctx context.Context, u api.User, t api.Target) (api.Object, error) {
				return d.nodes.PodMetrics(ctx, u, t)
			},
			List: func(ctx context.Context, u api.User, t api.Target, sel api.Selection) ([]api.Object, error) {
				return d.nodes.ListPodMetrics(ctx, u, t, sel)
			},
		},
	}
}
