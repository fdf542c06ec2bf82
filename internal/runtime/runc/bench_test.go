package runc

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/runtime"
)

// BenchmarkPod is a pod's start and end, without network: sandbox, container,
// removal.
func BenchmarkPod(b *testing.B) {
	r := mustOpen(b, newConfig(b))
	defer r.Close()
	go func() {
		for range r.Events() {
		}
	}()
	logs := b.TempDir()
	var sandbox, container, remove time.Duration
	n := 0
	pod := func(id string) {
		t0 := time.Now()
		if _, err := r.StartSandbox(b.Context(), runtime.SandboxConfig{ID: id, Hostname: id, LogDir: logs}); err != nil {
			b.Error(err)
			return
		}
		t1 := time.Now()
		cfg := ctr(b, "c-"+id, "stubborn")
		if _, err := r.StartContainer(b.Context(), id, cfg); err != nil {
			b.Error(err)
			return
		}
		t2 := time.Now()
		if err := r.RemoveSandbox(b.Context(), id); err != nil {
			b.Error(err)
		}
		sandbox += t1.Sub(t0)
		container += t2.Sub(t1)
		remove += time.Since(t2)
		n++
	}
	pod("warm")
	sandbox, container, remove, n = 0, 0, 0, 0
	b.Run("one", func(b *testing.B) {
		for range b.N {
			pod(fmt.Sprint("p", n))
		}
		if n > 0 {
			b.ReportMetric(float64(sandbox.Microseconds())/float64(n)/1000, "sandbox-ms")
			b.ReportMetric(float64(container.Microseconds())/float64(n)/1000, "container-ms")
			b.ReportMetric(float64(remove.Microseconds())/float64(n)/1000, "remove-ms")
		}
	})
	b.Run("hundred", func(b *testing.B) {
		for range b.N {
			began := time.Now()
			var wg sync.WaitGroup
			limit := make(chan struct{}, 8)
			for i := range 100 {
				wg.Go(func() {
					limit <- struct{}{}
					defer func() { <-limit }()
					id := fmt.Sprint("h", i)
					if _, err := r.StartSandbox(b.Context(), runtime.SandboxConfig{ID: id, Hostname: id, LogDir: logs}); err != nil {
						b.Error(err)
						return
					}
					cfg := ctr(b, "c-"+id, "stubborn")
					if _, err := r.StartContainer(b.Context(), id, cfg); err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
			b.ReportMetric(100/time.Since(began).Seconds(), "pods/s")
			b.ReportMetric(shimPSS(b, r)/100, "shim-KiB")
			for i := range 100 {
				if err := r.RemoveSandbox(b.Context(), fmt.Sprint("h", i)); err != nil {
					b.Error(err)
				}
			}
		}
	})
}

// shimPSS is the memory of all shims in KiB.
func shimPSS(b *testing.B, r *Runtime) float64 {
	all, err := r.List(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	total := 0.0
	for _, s := range all {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.PID))
		for line := range strings.Lines(string(text)) {
			var kib float64
			if _, err := fmt.Sscanf(line, "Pss: %f kB", &kib); err == nil {
				total += kib
			}
		}
	}
	return total
}
