package node

import (
	"context"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/stats"
)

// measureEvery is how often it is read what the node and its pods use.
const measureEvery = 10 * time.Second

// Cgroups measures a cgroup.
type Cgroups interface {
	Cgroup(path string) (stats.Usage, error)
}

// machineID is the reading of the whole machine.
const machineID = "machine"

// keepMeasuring reads what the node and its containers use, until ctx ends.
func (n *Node) keepMeasuring(ctx context.Context) {
	t := time.NewTicker(measureEvery)
	defer t.Stop()
	for {
		if err := n.measure(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("use of the machine not measured", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (n *Node) measure(ctx context.Context) error {
	machine, err := n.parts.Machine()
	if err != nil {
		return err
	}
	list, err := n.parts.Runtime.List(ctx)
	if err != nil {
		return err
	}
	all := []stats.Reading{{ID: machineID, Usage: machine}}
	for _, sb := range list {
		for _, c := range sb.Containers {
			if c.State != runtime.Running {
				continue
			}
			u, err := n.parts.Cgroups.Cgroup(c.Cgroup)
			if stats.Gone(err) {
				continue // it ended just now
			}
			if err != nil {
				return err
			}
			all = append(all, stats.Reading{ID: sb.ID + "/" + c.ID, Since: c.StartedAt, Usage: u})
		}
	}
	n.sampler.Take(all)
	n.mu.Lock()
	n.sampled = list
	n.mu.Unlock()
	return nil
}

// Usage implements nodelink.Streams. A pod of which a running container was
// not measured over a whole window yet is left out.
func (n *Node) Usage(context.Context) (*wherryv1.UsageResponse, error) {
	out := &wherryv1.UsageResponse{}
	whole, ok := n.sampler.Rate(machineID)
	if !ok {
		return nil, apierr.Unavailable("node %s has not measured anything yet", n.cfg.Name)
	}
	out.Node = usage(whole)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, sb := range n.sampled {
		if pod := n.pods[sb.ID]; pod != nil {
			if list := n.containerUsage(sb); len(list) > 0 {
				out.Pods = append(out.Pods, &wherryv1.PodUsage{Namespace: pod.Namespace, Name: pod.Name, Uid: sb.ID, Containers: list})
			}
		}
	}
	return out, nil
}

// containerUsage is that of the running containers of a sandbox; none if one of
// them is too young.
func (n *Node) containerUsage(sb runtime.Sandbox) []*wherryv1.ContainerUsage {
	var out []*wherryv1.ContainerUsage
	for _, c := range sb.Containers {
		if c.State != runtime.Running {
			continue
		}
		r, ok := n.sampler.Rate(sb.ID + "/" + c.ID)
		if !ok {
			return nil
		}
		out = append(out, &wherryv1.ContainerUsage{Name: c.Name, Usage: usage(r)})
	}
	slices.SortFunc(out, func(a, b *wherryv1.ContainerUsage) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}

func usage(r stats.Rate) *wherryv1.Usage {
	return &wherryv1.Usage{
		TimeUnixNano: r.End.UnixNano(), WindowNanos: int64(r.Window), CpuNanoCores: r.NanoCores, MemoryWorkingSetBytes: r.WorkingSet,
	}
}

// DialNoded implements nodelink.Streams.
func (n *Node) DialNoded(ctx context.Context) (net.Conn, error) {
	if n.parts.Inside == nil {
		return nil, apierr.Unavailable("node %s serves no HTTP", n.cfg.Name)
	}
	return n.parts.Inside(ctx)
}

// ContainerLogs writes the log of a container of a pod by its name, as the
// parameters of a request want it.
func (n *Node) ContainerLogs(ctx context.Context, namespace, pod, container string, q url.Values, out io.Writer) error {
	r := &wherryv1.LogsRequest{
		Namespace: namespace, Pod: pod, Container: container, Follow: q.Get("follow") == "true", Previous: q.Get("previous") == "true",
		Timestamps: q.Get("timestamps") == "true", SinceTime: q.Get("sinceTime"),
	}
	for name, into := range map[string]**int64{"tailLines": &r.TailLines, "limitBytes": &r.LimitBytes, "sinceSeconds": &r.SinceSeconds} {
		text := q.Get(name)
		if text == "" {
			continue
		}
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v < 0 {
			return apierr.BadRequest("%s: %q is not a number of 0 or more", name, text)
		}
		*into = &v
	}
	n.mu.Lock()
	uid := ""
	for id, p := range n.pods {
		if p.Namespace == namespace && p.Name == pod {
			uid = id
		}
	}
	n.mu.Unlock()
	if uid == "" {
		return apierr.New(apierr.ErrNotFound, "pod %q does not exist", pod)
	}
	return n.Logs(ctx, uid, r, out)
}
