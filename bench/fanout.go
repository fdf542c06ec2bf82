package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
)

// protobufOf is an object as it goes over the wire.
func protobufOf(obj runtime.Object) ([]byte, error) {
	s := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	return runtime.Encode(scheme.Codecs.EncoderForVersion(s, corev1.SchemeGroupVersion), obj)
}

// plainFanOut is fanOut with clients that look for no more than the object's
// name in what they get.
func plainFanOut(ctx context.Context, clients *kubeClients) (c cell, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	conns := clients.plain
	var now atomic.Pointer[fanRound]
	var open sync.WaitGroup
	for i := range apiWatchers {
		open.Add(1)
		first := sync.OnceFunc(open.Done)
		_, err := conns[i%len(conns)].open("GET", "/api/v1/namespaces/default/configmaps?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&labelSelector=bench%3Dplain", nil, "", func(data []byte) {
			first() // the bookmark after what there is
			if r := now.Load(); r != nil && bytes.Contains(data, r.name) {
				r.told()
			}
		})
		if err != nil {
			return c, err
		}
	}
	ready := make(chan struct{})
	go func() { open.Wait(); close(ready) }()
	select {
	case <-ready:
	case <-ctx.Done():
		return c, fmt.Errorf("not all watches begin: %w", ctx.Err())
	}
	start := time.Now()
	for n := range apiEvents {
		m := apiMap(fmt.Sprintf("plain%dx", n))
		m.Labels = map[string]string{"bench": "plain"}
		body, err := protobufOf(m)
		if err != nil {
			return c, err
		}
		r := &fanRound{name: []byte(m.Name), begun: time.Now(), took: make(samples, apiWatchers), all: make(chan struct{})}
		now.Store(r)
		if _, err := conns[0].do(ctx, "POST", "/api/v1/namespaces/default/configmaps", body, protobufMedia); err != nil {
			return c, err
		}
		select {
		case <-r.all:
			c.took = append(c.took, r.took...)
		case <-ctx.Done():
			return c, fmt.Errorf("a watcher has not told of write %d: %w", n, ctx.Err())
		}
	}
	c.clients, c.rate = apiWatchers, float64(len(c.took))/time.Since(start).Seconds()
	return c, nil
}

// fanRound is one write on its way to all watchers.
type fanRound struct {
	name  []byte
	begun time.Time
	n     atomic.Int64 // begun to tell
	m     atomic.Int64 // told
	took  samples
	all   chan struct{}
}

func (r *fanRound) told() {
	n := r.n.Add(1)
	if int(n) > len(r.took) {
		return
	}
	r.took[n-1] = time.Since(r.begun)
	if int(r.m.Add(1)) == len(r.took) {
		close(r.all)
	}
}

// fanOut writes to many watchers, and measures how long each waits for each.
func fanOut(ctx context.Context, clients *kubeClients) (c cell, err error) {
	const ns = "default"
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	begun := map[string]time.Time{}
	arrived := make(chan time.Duration, apiWatchers)
	defer wg.Wait()
	defer cancel()
	for i := range apiWatchers {
		w, err := clients.full[i%len(clients.full)].CoreV1().ConfigMaps(ns).Watch(ctx, metav1.ListOptions{LabelSelector: "bench=full"})
		if err != nil {
			return c, err
		}
		wg.Go(func() {
			defer w.Stop()
			for {
				select {
				case e, ok := <-w.ResultChan():
					now := time.Now()
					m, is := e.Object.(*corev1.ConfigMap)
					if !ok || !is {
						return
					}
					mu.Lock()
					at := begun[m.Name]
					mu.Unlock()
					arrived <- now.Sub(at)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	start := time.Now()
	for n := range apiEvents {
		m := apiMap(fmt.Sprint("full", n))
		m.Labels = map[string]string{"bench": "full"}
		mu.Lock()
		begun[m.Name] = time.Now()
		mu.Unlock()
		if _, err := clients.full[0].CoreV1().ConfigMaps(ns).Create(ctx, m, metav1.CreateOptions{}); err != nil {
			return c, err
		}
		for range apiWatchers {
			select {
			case d := <-arrived:
				c.took = append(c.took, d)
			case <-ctx.Done():
				return c, fmt.Errorf("a watcher has not told of write %d: %w", n, ctx.Err())
			}
		}
	}
	c.clients, c.rate = apiWatchers, float64(len(c.took))/time.Since(start).Seconds()
	return c, nil
}
