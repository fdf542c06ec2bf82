package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wherry-project/wherry/internal/testbed"
)

// cpuTime is the processor time that a bed's hosts have taken, by role. Unlike
// times by the clock it hardly suffers from other work on the machine.
func (d *bed) cpuTime(ctx context.Context) (map[testbed.Role]time.Duration, error) {
	machines, err := d.Machines()
	if err != nil {
		return nil, err
	}
	sum := map[testbed.Role]time.Duration{}
	for _, m := range machines {
		if m.Role == testbed.RoleClient {
			continue
		}
		pid, err := d.Pid(ctx, m.Name)
		if err != nil {
			return nil, err
		}
		t, err := hostTime(pid, m.Name)
		if err != nil {
			return nil, fmt.Errorf("processor time of %s: %w", m.Name, err)
		}
		sum[m.Role] += t
	}
	return sum, nil
}

// hostTime reads the account of the host's cgroup, in which its daemon is.
func hostTime(pid int, host string) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		before, _, ok := strings.Cut(part[2]+"/", "/"+host+"/")
		if !ok {
			continue
		}
		switch path := before + "/" + host; {
		case part[1] == "": // v2; in a hybrid without controllers it has no account of the time
			if t, err := usageV2(filepath.Join("/sys/fs/cgroup", path, "cpu.stat")); err == nil {
				return t, nil
			}
		case strings.Contains(","+part[1]+",", ",cpuacct,"):
			return usageV1(filepath.Join("/sys/fs/cgroup", part[1], path, "cpuacct.usage"))
		}
	}
	return 0, errors.New("no cgroup keeps an account of it")
}

func usageV1(file string) (time.Duration, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return time.Duration(ns), err
}

func usageV2(file string) (time.Duration, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "usage_usec "); ok {
			us, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return time.Duration(us) * time.Microsecond, err
		}
	}
	return 0, errors.New(file + " has no usage_usec")
}
