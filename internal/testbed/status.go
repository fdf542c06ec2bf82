package testbed

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// HostStatus tells how a host is.
type HostStatus struct {
	Machine
	On      bool           `json:"on"`
	Cut     bool           `json:"cut"`
	Daemons []DaemonStatus `json:"daemons,omitempty"`
	// MachinePid is the process id of the host's daemon on this machine.
	MachinePid int `json:"machinePid,omitempty"`
	// Processes is the number of processes in the host.
	Processes int `json:"processes"`
}

// Status tells how every host is.
func (t *Testbed) Status(ctx context.Context) ([]HostStatus, error) {
	s, err := t.readState()
	if err != nil {
		return nil, err
	}
	var out []HostStatus
	for _, h := range s.Hosts {
		st, err := t.hostStatus(ctx, h)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	return out, nil
}

func (t *Testbed) hostStatus(ctx context.Context, h hostState) (HostStatus, error) {
	p, err := t.readPower(h.Name)
	if err != nil {
		return HostStatus{}, err
	}
	st := HostStatus{Machine: h.Machine, On: alive(p), Cut: p.Cut}
	if !st.On {
		return st, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, err := t.ask(ctx, h.Name, request{Op: "status"})
	if err != nil {
		return st, err
	}
	st.Daemons = answer.Daemons
	trees, err := hierarchies()
	if err != nil {
		return st, err
	}
	pids := members(trees, t.hostCgroup(h.Name))
	st.Processes = len(pids)
	for _, d := range st.Daemons {
		for _, pid := range pids {
			if d.Running && d.Name == h.Role.Daemon() && innerPid(pid, p.Pid) == d.Pid {
				st.MachinePid = pid
			}
		}
	}
	return st, nil
}

// innerPid returns the id that a process has in its host's PID namespace, or 0
// if it is in another: that of a pod, or of no host.
func innerPid(pid, init int) int {
	own, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	hosts, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", init))
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || own != hosts {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(ids)
			inner, _ := strconv.Atoi(f[len(f)-1])
			return inner
		}
	}
	return 0
}
