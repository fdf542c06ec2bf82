package node

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestPressures(t *testing.T) {
	fine := measured{memory: 1 << 30, disk: 50, inodes: 50, pids: 90}
	now := time.Now()
	for name, c := range map[string]struct {
		change func(*measured)
		want   string // memory, disk, pids
	}{
		"fine":          {func(*measured) {}, "False False False"},
		"little memory": {func(m *measured) { m.memory = 99 << 20 }, "True False False"},
		"little disk":   {func(m *measured) { m.disk = 9 }, "False True False"},
		"few inodes":    {func(m *measured) { m.inodes = 4 }, "False True False"},
		"few ids":       {func(m *measured) { m.pids = 9 }, "False False True"},
		"not measured":  {func(m *measured) { m.diskErr = errors.New("x") }, "False Unknown False"},
	} {
		m := fine
		c.change(&m)
		since := map[corev1.NodeConditionType]time.Time{}
		if got := statuses(pressures(m, since, now)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if c.want == "True False False" {
			if got := statuses(pressures(fine, since, now.Add(4*time.Minute))); got != c.want {
				t.Errorf("four minutes later: %s", got)
			}
			if got := statuses(pressures(fine, since, now.Add(5*time.Minute))); got != "False False False" {
				t.Errorf("five minutes later: %s", got)
			}
		}
	}
}

func statuses(list []corev1.NodeCondition) string {
	out := ""
	for i, c := range list {
		if i > 0 {
			out += " "
		}
		out += string(c.Status)
	}
	return out
}

func TestMeasure(t *testing.T) {
	m := measure(t.TempDir())
	if m.memoryErr != nil || m.diskErr != nil || m.pidsErr != nil {
		t.Fatalf("%+v", m)
	}
	if m.memory == 0 || m.disk < 0 || m.disk > 100 || m.pids <= 0 || m.pids > 100 {
		t.Errorf("%+v", m)
	}
}
