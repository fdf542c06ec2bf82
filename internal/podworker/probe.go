package podworker

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/wherry-project/wherry/internal/probes"
)

type probeKind string

const (
	startup   probeKind = "Startup"
	liveness  probeKind = "Liveness"
	readiness probeKind = "Readiness"
)

// maxProbeOutput bounds what is kept of a probe's output.
const maxProbeOutput = 10 << 10

// watchProbes starts the probes that should run and ends the others. Nothing
// but startup is probed until that has succeeded, and a pod that ends is only
// asked whether it is ready.
func (w *Worker) watchProbes(ctx context.Context) {
	for _, spec := range allContainers(w.pod) {
		c := w.state.containers[spec.Name]
		want := w.wantedProbes(spec, c)
		for k, cancel := range c.probing {
			if want[k] == nil {
				cancel()
				delete(c.probing, k)
			}
		}
		for k, p := range want {
			if c.probing[k] != nil {
				continue
			}
			if c.probing == nil {
				c.probing = map[probeKind]context.CancelFunc{}
			}
			one, cancel := context.WithCancel(ctx)
			c.probing[k] = cancel
			w.probe(one, spec, c, k, p)
		}
	}
}

func (w *Worker) wantedProbes(spec *corev1.Container, c *container) map[probeKind]*corev1.Probe {
	if !c.current.running() || c.hooking || !w.state.attached || isInit(w.pod, c.name) && !sidecar(spec) {
		return nil
	}
	want := map[probeKind]*corev1.Probe{}
	ends := ending(w.pod, &w.state) || c.stopping != nil
	if spec.StartupProbe != nil && !c.probeStarted {
		if !ends && c.kill == nil {
			want[startup] = spec.StartupProbe
		}
		return want
	}
	if spec.LivenessProbe != nil && !ends && c.kill == nil {
		want[liveness] = spec.LivenessProbe
	}
	if spec.ReadinessProbe != nil {
		want[readiness] = spec.ReadinessProbe
	}
	return want
}

// probe runs one probe beside the worker until ctx ends.
func (w *Worker) probe(ctx context.Context, spec *corev1.Container, c *container, k probeKind, p *corev1.Probe) {
	seconds := func(n int32, least int32) time.Duration { return time.Duration(max(n, least)) * time.Second }
	cfg := probes.Config{
		Delay: seconds(p.InitialDelaySeconds, 0), Period: seconds(p.PeriodSeconds, 1), Timeout: seconds(p.TimeoutSeconds, 1),
		Successes: int(max(p.SuccessThreshold, 1)), Failures: int(max(p.FailureThreshold, 1)),
	}
	check, began := w.check(spec, c, p), c.current.StartedAt
	w.group.Go(func() {
		probes.Run(ctx, cfg, began, check, func(o probes.Outcome) {
			w.tell(ctx, func(w *Worker) {
				if ctx.Err() == nil {
					w.probed(c, k, p, o)
				}
			})
		})
	})
}

// check translates a probe's action.
func (w *Worker) check(spec *corev1.Container, c *container, p *corev1.Probe) probes.Check {
	broken := func(err error) probes.Check {
		return func(context.Context) (probes.Result, string) { return probes.Unknown, err.Error() }
	}
	address := func(host string, port int) string {
		if host == "" {
			host = w.address()
		}
		return net.JoinHostPort(host, strconv.Itoa(port))
	}
	switch {
	case p.Exec != nil:
		return probes.Exec(w.command(c.current.ID, p.Exec.Command, maxProbeOutput))
	case p.HTTPGet != nil:
		target, err := httpTarget(p.HTTPGet, spec, w.address(), probeAgent)
		if err != nil {
			return broken(err)
		}
		return target.Check()
	case p.TCPSocket != nil:
		port, err := portOf(spec, p.TCPSocket.Port)
		if err != nil {
			return broken(err)
		}
		return probes.TCP(address(p.TCPSocket.Host, port))
	case p.GRPC != nil:
		port, err := portOf(spec, intstr.FromInt32(p.GRPC.Port))
		if err != nil {
			return broken(err)
		}
		service := ""
		if p.GRPC.Service != nil {
			service = *p.GRPC.Service
		}
		return probes.GRPC(address("", port), service, probeAgent)
	}
	return broken(fmt.Errorf("a probe without exec, httpGet, tcpSocket or grpc"))
}

// address is the pod's, as hooks and probes use it.
func (w *Worker) address() string {
	if w.state.address.IsValid() {
		return w.state.address.String()
	}
	return w.pod.Status.PodIP
}

// probed takes what a probe saw.
func (w *Worker) probed(c *container, k probeKind, p *corev1.Probe, o probes.Outcome) {
	switch o.Result {
	case probes.Failure:
		w.event(corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe failed: %s", k, o.Output))
	case probes.Warning:
		w.event(corev1.EventTypeWarning, "ProbeWarning", fmt.Sprintf("%s probe warning: %s", k, o.Output))
	case probes.Unknown:
		w.event(corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe errored and resulted in %s state: %s", k, o.Result, o.Output))
	}
	if !o.Settled {
		return
	}
	good := o.Result != probes.Failure
	switch {
	case k == readiness:
		c.probeReady = good
	case k == startup && good:
		c.probeStarted = true
	case !good:
		message := fmt.Sprintf("Container %s failed %s probe", c.name, strings.ToLower(string(k)))
		if restartPolicy(w.pod, w.spec(c.name)) != corev1.RestartPolicyNever {
			message += ", will be restarted"
		}
		c.kill = &kill{message: message}
		if p.TerminationGracePeriodSeconds != nil {
			g := time.Duration(max(*p.TerminationGracePeriodSeconds, 1)) * time.Second
			c.kill.grace = &g
		}
	}
}

// head keeps the beginning of what is written to it, from any goroutine.
type head struct {
	mu    sync.Mutex
	limit int
	b     []byte
}

// Write implements io.Writer; it takes everything.
func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b = append(h.b, p[:min(len(p), h.limit-len(h.b))]...)
	return len(p), nil
}

// String is what was kept.
func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.ToValidUTF8(string(h.b), "\ufffd")
}
