package main

import (
	"context"
	"net/netip"
	"sync"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/network"
	"github.com/wherry-project/wherry/internal/svcproxy"
)

type fakeNetwork struct {
	mu      sync.Mutex
	applied int
	cfg     network.Config
	pods    map[string]network.Pod
}

func (f *fakeNetwork) Apply(_ context.Context, cfg network.Config) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied++
	f.cfg = cfg
	return cfg.Validate()
}

func (f *fakeNetwork) Attach(_ context.Context, cfg network.PodConfig) (network.Pod, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.applied == 0 {
		return network.Pod{}, apierr.Unavailable("not configured yet")
	}
	if f.pods == nil {
		f.pods = map[string]network.Pod{}
	}
	if p, ok := f.pods[cfg.ID]; ok {
		return p, nil
	}
	// The network of a pod here is loopback, so that streams reach it.
	f.pods[cfg.ID] = network.Pod{ID: cfg.ID, NetNS: "/proc/self/ns/net", Address: netip.AddrFrom4([4]byte{127, 0, 1, byte(len(f.pods) + 1)})}
	return f.pods[cfg.ID], nil
}

func (f *fakeNetwork) Detach(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pods, id)
	return nil
}

func (f *fakeNetwork) List(context.Context) ([]network.Pod, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []network.Pod
	for _, p := range f.pods {
		out = append(out, p)
	}
	return out, nil
}

type fakeProxy struct {
	mu       sync.Mutex
	cfg      svcproxy.Config
	problems []svcproxy.Problem
}

func (f *fakeProxy) Apply(_ context.Context, cfg svcproxy.Config) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cfg = cfg
	return nil
}

func (f *fakeProxy) Problems() []svcproxy.Problem {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.problems
}
