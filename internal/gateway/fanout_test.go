package gateway_test

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkFanOut writes to 1,000 watchers over ten connections, one write at a
// time, and measures from before the write until each has read the event. Of the
// processor time, the readers' half is the test's own.
func BenchmarkFanOut(b *testing.B) {
	const connections, each = 10, 100
	c := start(b, options{})
	arrived := make(chan time.Time, connections*each)
	for range connections {
		client := c.http(b, c.admin)
		for range each {
			req, err := http.NewRequestWithContext(b.Context(), "GET", c.url+maps+"?watch=1&labelSelector=bench", nil)
			if err != nil {
				b.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { resp.Body.Close() })
			go func() {
				lines := bufio.NewReader(resp.Body)
				for {
					if _, err := lines.ReadSlice('\n'); err != nil {
						return
					}
					arrived <- time.Now()
				}
			}()
		}
	}
	var took []time.Duration
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		n++
		began := time.Now()
		if a := c.do(b, "POST", maps, fmt.Sprintf(`{"metadata":{"name":"m%d","labels":{"bench":"x"}},"data":{"k":"v"}}`, n)); a.StatusCode != 201 {
			b.Fatal(a.text)
		}
		for range connections * each {
			took = append(took, (<-arrived).Sub(began))
		}
	}
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
	cpu := func(r unix.Rusage) int64 { return r.Utime.Nano() + r.Stime.Nano() }
	b.ReportMetric(float64(cpu(after)-cpu(before))/float64(len(took))/1000, "µs-cpu/event")
}
