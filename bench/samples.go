package main

import (
	"fmt"
	"slices"
	"time"
)

// samples are times of the same thing done many times.
type samples []time.Duration

// at gives a percentile: the smallest time that so many per cent do not exceed.
func (s samples) at(percent int) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	i := (len(sorted)*percent + 99) / 100
	return sorted[max(i, 1)-1]
}

func (s samples) p50() string { return millis(s.at(50)) }
func (s samples) p99() string { return millis(s.at(99)) }
func (s samples) max() string { return millis(s.at(100)) }

// millis writes a time in ms with as many digits as mean something.
func millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// perSecond writes a rate.
func perSecond(r float64) string {
	if r < 100 {
		return fmt.Sprintf("%.1f/s", r)
	}
	return fmt.Sprintf("%.0f/s", r)
}

// mebi writes an amount of memory.
func mebi(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
