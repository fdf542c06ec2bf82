package podworker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/images"
	"github.com/wherry-project/wherry/internal/network"
	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/volumes"
)

// bed is a node for workers: a real Fake runtime, the rest in memory.
type bed struct {
	t    *testing.T
	m    *runtime.Machine
	rt   *runtime.Fake
	node *Node
	net  *fakeNetwork
	imgs *fakeImages
	cl   *fakeCluster
	hook func(runtime.Runtime) runtime.Runtime // wraps the runtime, if set

	mu      sync.Mutex
	began   time.Time
	seen    map[string][]string // statuses by pod, in words
	last    map[string]*corev1.PodStatus
	gone    map[string]bool
	pending bool
	events  []string
	workers map[string]*Worker
	cancel  context.CancelFunc
	ctx     context.Context
	group   sync.WaitGroup
}

// inBubble runs a test with a fake clock.
func inBubble(t *testing.T, f func(b *bed)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, dir)
		f(b)
		b.end()
	})
}

func newBed(t *testing.T, dir string) *bed {
	b := &bed{
		t: t, began: time.Now(), seen: map[string][]string{}, last: map[string]*corev1.PodStatus{}, gone: map[string]bool{},
		net: &fakeNetwork{pods: map[string]bool{}}, imgs: &fakeImages{have: map[string]bool{"img": true, "img2": true}},
		cl: &fakeCluster{maps: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{}},
	}
	b.m = runtime.NewMachine(programs(b))
	b.node = &Node{
		Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Dir: filepath.Join(dir, "pods"), LogDir: filepath.Join(dir, "logs"),
		Network: b.net, Images: b.imgs, Volumes: fakeVolumes{dir}, Slots: make(chan struct{}, 4), Cluster: b.cl,
		Log: slog.New(slog.DiscardHandler), Report: b.report, Event: b.event,
		Pending: func(*corev1.Pod) bool { b.mu.Lock(); defer b.mu.Unlock(); return b.pending },
	}
	b.start()
	return b
}

// programs are what the test's images have.
func programs(b *bed) map[string]runtime.Program {
	term := func(p *runtime.Proc) {
		for {
			select {
			case s := <-p.Signals:
				if s == syscall.SIGTERM {
					return
				}
			case <-p.Killed:
				return
			}
		}
	}
	wait := func(p *runtime.Proc, d string) bool {
		length, err := time.ParseDuration(d)
		if err != nil {
			return false
		}
		select {
		case <-time.After(length):
			return true
		case <-p.Signals:
		case <-p.Killed:
		}
		return false
	}
	return map[string]runtime.Program{
		"serve":  func(p *runtime.Proc) int { term(p); b.note("down " + name(p)); return 0 },
		"slow":   func(p *runtime.Proc) int { term(p); time.Sleep(5 * time.Second); b.note("down " + name(p)); return 0 },
		"deaf":   func(p *runtime.Proc) int { <-p.Killed; b.note("killed " + name(p)); return 0 },
		"true":   func(p *runtime.Proc) int { b.note("true " + name(p)); return 0 },
		"false":  func(p *runtime.Proc) int { fmt.Fprintln(p.Stderr, "last words"); return 1 },
		"run":    func(p *runtime.Proc) int { wait(p, p.Args[1]); return len(p.Args) - 2 }, // run 10s [fail]
		"exists": func(p *runtime.Proc) int { return b.exists(p.Args[1]) },
		"hang":   func(p *runtime.Proc) int { <-p.Killed; return 0 },
	}
}

func name(p *runtime.Proc) string {
	for _, e := range p.Env {
		if v, ok := strings.CutPrefix(e, "NAME="); ok {
			return v
		}
	}
	return "?"
}

// exists reports on a switch that the test sets by creating a ConfigMap.
func (b *bed) exists(name string) int {
	if _, ok := b.cl.ConfigMap("switch", name); ok {
		return 0
	}
	return 1
}

func (b *bed) set(name string, on bool) {
	b.cl.mu.Lock()
	defer b.cl.mu.Unlock()
	delete(b.cl.maps, "switch/"+name)
	if on {
		b.cl.maps["switch/"+name] = &corev1.ConfigMap{}
	}
}

// start starts noded: it finds what is there, and hands on events.
func (b *bed) start() {
	b.rt = b.m.Open()
	b.node.Runtime = b.rt
	if b.hook != nil {
		b.node.Runtime = b.hook(b.rt)
	}
	b.workers = map[string]*Worker{}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	events := b.rt.Events()
	b.group.Go(func() {
		for e := range events {
			b.mu.Lock()
			w := b.workers[e.SandboxID]
			b.mu.Unlock()
			if w != nil {
				w.Event(e)
			}
		}
	})
}

// kill ends noded; the machine goes on.
func (b *bed) kill() {
	b.cancel()
	b.rt.Close()
	b.group.Wait()
}

// restart kills noded and starts it with the same pods, as a checkpoint would.
func (b *bed) restart(pods ...*corev1.Pod) {
	b.kill()
	b.start()
	for _, p := range pods {
		b.run(p)
	}
	synctest.Wait()
}

// reboot does what a power cut does to the machine: everything is gone but
// files.
func (b *bed) reboot(pods ...*corev1.Pod) {
	b.kill()
	b.clear()
	b.net.pods = map[string]bool{}
	b.start()
	for _, p := range pods {
		b.run(p)
	}
	synctest.Wait()
}

func (b *bed) clear() {
	rt := b.m.Open()
	defer rt.Close()
	list, err := rt.List(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, sb := range list {
		if err := rt.RemoveSandbox(context.Background(), sb.ID); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bed) end() {
	b.kill()
	b.clear()
}

// run makes a pod's worker, as node does.
func (b *bed) run(pod *corev1.Pod) *Worker {
	list, err := b.rt.List(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	var found *runtime.Sandbox
	for i := range list {
		if list[i].ID == string(pod.UID) {
			found = &list[i]
		}
	}
	w := New(b.node, pod, found)
	b.mu.Lock()
	b.workers[string(pod.UID)] = w
	b.mu.Unlock()
	b.group.Go(func() { w.Run(b.ctx) })
	return w
}

func (b *bed) note(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, fmt.Sprintf("%v %s", time.Since(b.began).Round(time.Millisecond), text))
}

func (b *bed) event(_ *corev1.Pod, kind, reason, message string) {
	b.note(fmt.Sprintf("%s %s: %s", kind, reason, message))
}

func (b *bed) report(pod *corev1.Pod, st *corev1.PodStatus, terminated bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	uid := string(pod.UID)
	b.last[uid] = st.DeepCopy()
	b.gone[uid] = terminated
	text := words(st)
	if list := b.seen[uid]; len(list) == 0 || list[len(list)-1] != text {
		b.seen[uid] = append(b.seen[uid], text)
	}
}

// stored is the pod as the API has it after its newest status arrived.
func (b *bed) stored(pod *corev1.Pod) *corev1.Pod {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := pod.DeepCopy()
	if st := b.last[string(pod.UID)]; st != nil {
		out.Status = *st.DeepCopy()
	}
	return out
}

func (b *bed) status(pod *corev1.Pod) *corev1.PodStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	st := b.last[string(pod.UID)]
	if st == nil {
		b.t.Fatal("no status was reported")
	}
	return st
}

// is compares the newest status, in words.
func (b *bed) is(pod *corev1.Pod, want string) {
	b.t.Helper()
	synctest.Wait()
	if got := words(b.status(pod)); got != want {
		b.t.Errorf("after %v: status\n     %s\nwant %s", time.Since(b.began), got, want)
	}
}

// history compares all statuses so far.
func (b *bed) history(pod *corev1.Pod, want ...string) {
	b.t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := b.seen[string(pod.UID)]; !slices.Equal(got, want) {
		b.t.Errorf("statuses\n     %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

// happened compares events and what programs noted, and forgets them.
func (b *bed) happened(want ...string) {
	b.t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.events, want) {
		b.t.Errorf("happened\n     %s\nwant %s", strings.Join(b.events, "\n     "), strings.Join(want, "\n     "))
	}
	b.events = nil
}

// had reports whether something happened.
func (b *bed) had(text string) bool {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.events, func(e string) bool { return strings.Contains(e, text) })
}

func (b *bed) forget() {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = nil
}

// removed makes sure that a pod is wholly gone once the API has it no longer.
func (b *bed) removed(pod *corev1.Pod, w *Worker) {
	b.t.Helper()
	synctest.Wait()
	b.mu.Lock()
	gone := b.gone[string(pod.UID)]
	b.mu.Unlock()
	if !gone {
		b.t.Errorf("after %v the end was not reported: %s", time.Since(b.began), words(b.status(pod)))
	}
	w.Want(nil)
	synctest.Wait()
	select {
	case <-w.Done():
	default:
		b.t.Errorf("the worker has not ended")
	}
	b.empty(pod)
}

func (b *bed) empty(pod *corev1.Pod) {
	b.t.Helper()
	list, err := b.rt.List(b.ctx)
	if err != nil || len(list) > 0 {
		b.t.Errorf("left in the runtime: %v, %v", list, err)
	}
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	if len(b.net.pods) > 0 {
		b.t.Errorf("left in the network: %v", b.net.pods)
	}
	for _, dir := range []string{filepath.Join(b.node.Dir, string(pod.UID)), LogDir(b.node.LogDir, pod)} {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			b.t.Errorf("%s is left: %v", dir, err)
		}
	}
}

// words tells a status shortly: phase, reason, ready, and the containers.
func words(st *corev1.PodStatus) string {
	out := string(st.Phase)
	if st.Reason != "" {
		out += "(" + st.Reason + ")"
	}
	for _, c := range st.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			out += " Ready"
		}
	}
	for _, c := range slices.Concat(st.InitContainerStatuses, st.ContainerStatuses) {
		out += " | " + c.Name + " " + stateWords(c.State)
		if c.LastTerminationState.Terminated != nil {
			out += " last " + stateWords(c.LastTerminationState)
		}
		if c.RestartCount > 0 {
			out += fmt.Sprintf(" #%d", c.RestartCount)
		}
		if c.Ready {
			out += " ready"
		}
	}
	return out
}

func stateWords(s corev1.ContainerState) string {
	switch {
	case s.Waiting != nil:
		return s.Waiting.Reason
	case s.Running != nil:
		return "Running"
	case s.Terminated != nil:
		return fmt.Sprintf("%s/%d", s.Terminated.Reason, s.Terminated.ExitCode)
	}
	return "?"
}

// con is a container of the test image.
func con(name string, args ...string) corev1.Container {
	return corev1.Container{
		Name: name, Image: "img", Command: args, ImagePullPolicy: corev1.PullIfNotPresent,
		Env: []corev1.EnvVar{{Name: "NAME", Value: name}}, TerminationMessagePath: "/dev/termination-log",
	}
}

func side(name string, args ...string) corev1.Container {
	c := con(name, args...)
	always := corev1.ContainerRestartPolicyAlways
	c.RestartPolicy = &always
	return c
}

func podOf(policy corev1.RestartPolicy, list ...corev1.Container) *corev1.Pod {
	grace := int64(30)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "p", UID: types.UID("uid-1"), Generation: 1},
		Spec:       corev1.PodSpec{RestartPolicy: policy, Containers: list, TerminationGracePeriodSeconds: &grace},
		Status:     corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort},
	}
}

// deleted is the pod as its deletion makes it.
func deleted(p *corev1.Pod, grace int64) *corev1.Pod {
	out := p.DeepCopy()
	now := metav1.Now()
	out.DeletionTimestamp, out.DeletionGracePeriodSeconds = &now, &grace
	out.Generation++
	return out
}

type fakeNetwork struct {
	mu    sync.Mutex
	pods  map[string]bool
	fail  error
	next  string // the address of the next pod that has no wish
	taken string // an address that no pod gets
}

func (f *fakeNetwork) Attach(_ context.Context, cfg network.PodConfig) (network.Pod, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return network.Pod{}, f.fail
	}
	a := cfg.Address
	if !a.IsValid() {
		a = netip.MustParseAddr(cmp.Or(f.next, "10.244.0.7"))
	}
	if a.String() == f.taken {
		return network.Pod{}, apierr.New(apierr.ErrConflict, "taken")
	}
	f.pods[cfg.ID] = true
	return network.Pod{ID: cfg.ID, NetNS: "/run/netns/" + cfg.ID, Address: a}, nil
}

func (f *fakeNetwork) Detach(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pods, id)
	return nil
}

type fakeImages struct {
	mu    sync.Mutex
	have  map[string]bool
	takes time.Duration
	fail  error
	pulls int
}

func (f *fakeImages) image(ref string) images.Image {
	return images.Image{ID: "sha256:" + ref, RepoDigests: []string{ref + "@sha256:1"}, Size: 42, Layers: []string{"/layers/" + ref}}
}

func (f *fakeImages) Lookup(ref string) (images.Image, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.image(ref), f.have[ref]
}

func (f *fakeImages) Pull(ctx context.Context, ref string, _ ...images.Auth) (images.Image, error) {
	f.mu.Lock()
	takes := f.takes
	f.pulls++
	f.mu.Unlock()
	select {
	case <-ctx.Done():
		return images.Image{}, ctx.Err()
	case <-time.After(takes):
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return images.Image{}, f.fail
	}
	f.have[ref] = true
	return f.image(ref), nil
}

type fakeCluster struct {
	mu      sync.Mutex
	maps    map[string]*corev1.ConfigMap
	secrets map[string]*corev1.Secret
	env     []corev1.EnvVar
}

func (f *fakeCluster) ResolvConf(*corev1.Pod) (string, []string) {
	return "nameserver 10.96.0.10\n", nil
}
func (f *fakeCluster) Hosts(p *corev1.Pod, a []netip.Addr) string {
	return fmt.Sprintf("%v %s\n", a, Hostname(p))
}
func (f *fakeCluster) Domain() string                         { return "cluster.local" }
func (f *fakeCluster) ServiceEnv(*corev1.Pod) []corev1.EnvVar { return f.env }

func (f *fakeCluster) ConfigMap(ns, name string) (*corev1.ConfigMap, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	cm, ok := f.maps[ns+"/"+name]
	return cm, ok
}

func (f *fakeCluster) Secret(ns, name string) (*corev1.Secret, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.secrets[ns+"/"+name]
	return s, ok
}

type fakeVolumes struct{ dir string }

func (f fakeVolumes) Apply(_ context.Context, cfg volumes.Config) (map[string]string, error) {
	out := map[string]string{}
	for _, v := range cfg.Volumes {
		out[v.Name] = filepath.Join(f.dir, "volumes", cfg.PodID, v.Name)
	}
	return out, nil
}

func (f fakeVolumes) SubPath(_ context.Context, podID, mount, volume, sub string) (string, error) {
	return volume + "/" + sub, nil
}
func (f fakeVolumes) Remove(context.Context, string) error { return nil }
