package podworker

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wherry-project/wherry/internal/images"
	"github.com/wherry-project/wherry/internal/podspec"
	"github.com/wherry-project/wherry/internal/runtime"
)

// The labels that a container carries so that a later noded knows its image.
const (
	labelImage   = "image"
	labelImageID = "imageID"
)

func (w *Worker) sandboxConfig() (runtime.SandboxConfig, error) {
	spec := w.pod.Spec
	cfg := runtime.SandboxConfig{
		ID: string(w.pod.UID), Name: w.pod.Namespace + "/" + w.pod.Name, NetNS: w.state.netns,
		HostIPC: spec.HostIPC, HostPID: spec.HostPID, SharePID: isTrue(spec.ShareProcessNamespace),
		LogDir:    w.logDir(),
		Labels:    map[string]string{"namespace": w.pod.Namespace, "name": w.pod.Name},
		Resources: podLimits(w.pod),
	}
	if !spec.HostNetwork {
		host, err := w.hostname()
		if err != nil {
			return cfg, err
		}
		cfg.Hostname = host
	}
	switch w.pod.Status.QOSClass {
	case corev1.PodQOSBurstable:
		cfg.CgroupParent = "burstable"
	case corev1.PodQOSBestEffort:
		cfg.CgroupParent = "besteffort"
	}
	if sc := spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			if cfg.Sysctls == nil {
				cfg.Sysctls = map[string]string{}
			}
			cfg.Sysctls[s.Name] = s.Value
		}
	}
	return cfg, nil
}

// podLimits bounds all containers together: by a limit only where each has one.
func podLimits(pod *corev1.Pod) runtime.Resources {
	requests, all := podspec.Requests(&pod.Spec), podspec.Limits(&pod.Spec)
	r := corev1.ResourceRequirements{Requests: requests, Limits: corev1.ResourceList{}}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		bounded := true
		for _, c := range allContainers(pod) {
			q, ok := c.Resources.Limits[name]
			bounded = bounded && ok && !q.IsZero()
		}
		if pod.Spec.Resources != nil {
			q, ok := pod.Spec.Resources.Limits[name]
			bounded = bounded || ok && !q.IsZero()
		}
		if bounded {
			r.Limits[name] = all[name]
		}
	}
	return limits(r)
}

// containerConfig translates a container's spec. Its error says what of the
// spec, or of what it names, keeps the container from being made.
func (w *Worker) containerConfig(ctx context.Context, spec *corev1.Container, c *container) (runtime.ContainerConfig, error) {
	img := c.image
	id := fmt.Sprintf("%s-%d", c.name, c.starts)
	env, err := w.environment(spec, img.Config.Env)
	if err != nil {
		return runtime.ContainerConfig{}, err
	}
	cfg := runtime.ContainerConfig{
		ID: id, Name: c.name, Attempt: c.starts, Layers: img.Layers, Env: env.list(),
		Labels: map[string]string{labelImage: spec.Image, labelImageID: img.PinnedName()},
		TTY:    spec.TTY, Stdin: spec.Stdin, StdinOnce: spec.StdinOnce,
		LogPath: LogPath(w.node.LogDir, w.pod, c.name, c.starts),
		Cwd:     spec.WorkingDir,
	}
	if cfg.Cwd == "" {
		cfg.Cwd = img.Config.WorkingDir
	}
	cfg.Args = arguments(spec, img.Config, env)
	if len(cfg.Args) == 0 {
		return cfg, errors.New("no command specified")
	}
	cfg.StopSignal, err = stopSignal(img.Config.StopSignal)
	if err != nil {
		return cfg, err
	}
	cfg.Resources = limits(spec.Resources)
	adj := oomScore(w.pod, spec, memoryTotal())
	cfg.OOMScoreAdj = &adj
	if err := w.security(spec, *img, &cfg); err != nil {
		return cfg, err
	}
	return cfg, w.mount(ctx, spec, id, env, &cfg)
}

// arguments joins command and args of the spec and of the image as Kubernetes
// does, with variables expanded.
func arguments(spec *corev1.Container, img images.ContainerConfig, env *environment) []string {
	var args []string
	for _, a := range spec.Command {
		args = append(args, env.expand(a))
	}
	if len(spec.Command) == 0 {
		args = append(args, img.Entrypoint...)
	}
	switch {
	case len(spec.Args) > 0:
		for _, a := range spec.Args {
			args = append(args, env.expand(a))
		}
	case len(spec.Command) == 0:
		args = append(args, img.Cmd...)
	}
	return args
}

func stopSignal(name string) (syscall.Signal, error) {
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if name == "" {
		return 0, nil
	}
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	s, ok := map[string]syscall.Signal{
		"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL,
		"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "WINCH": syscall.SIGWINCH, "ABRT": syscall.SIGABRT, "ALRM": syscall.SIGALRM,
		"CONT": syscall.SIGCONT, "STOP": syscall.SIGSTOP, "PIPE": syscall.SIGPIPE, "PWR": syscall.SIGPWR, "RTMIN+3": syscall.Signal(37),
	}[name]
	if !ok {
		return 0, fmt.Errorf("stop signal %q of the image is not a signal", name)
	}
	return s, nil
}

// limits turns requests and limits into those of a cgroup.
func limits(r corev1.ResourceRequirements) runtime.Resources {
	var out runtime.Resources
	request, ok := r.Requests[corev1.ResourceCPU]
	if !ok {
		request = r.Limits[corev1.ResourceCPU]
	}
	out.CPUShares = shares(request)
	if q, ok := r.Limits[corev1.ResourceCPU]; ok && !q.IsZero() {
		out.CPUPeriod = 100000
		out.CPUQuota = max(q.MilliValue()*100, 1000)
	}
	if q, ok := r.Limits[corev1.ResourceMemory]; ok && !q.IsZero() {
		out.Memory = q.Value()
	}
	return out
}

func shares(q resource.Quantity) uint64 { return uint64(max(q.MilliValue()*1024/1000, 2)) }

// oomScore is who is killed first when memory runs out, by the container's
// request and the machine's memory. A sidecar is not killed before the app
// containers that it serves.
func oomScore(pod *corev1.Pod, spec *corev1.Container, total int64) int {
	if pod.Spec.PriorityClassName == "system-node-critical" {
		return -997
	}
	switch pod.Status.QOSClass {
	case corev1.PodQOSGuaranteed:
		return -997
	case corev1.PodQOSBestEffort:
		return 1000
	}
	score := scoreOf(spec, total)
	if sidecar(spec) {
		least := int64(-1) // of what app containers request
		for i := range pod.Spec.Containers {
			q := pod.Spec.Containers[i].Resources.Requests[corev1.ResourceMemory]
			if least < 0 || q.Value() < least {
				least = q.Value()
			}
		}
		score = min(score, scoreFor(least, total))
	}
	return score
}

func scoreOf(spec *corev1.Container, total int64) int {
	request := spec.Resources.Requests[corev1.ResourceMemory]
	return scoreFor(request.Value(), total)
}

func scoreFor(request, total int64) int {
	if total <= 0 {
		return 999
	}
	return int(min(max(1000-1000*request/total, 3), 999))
}

func memoryTotal() int64 {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit) //nolint:gosec // sizes of a machine fit
}

// security applies the security contexts of pod and container.
func (w *Worker) security(spec *corev1.Container, img images.Image, cfg *runtime.ContainerConfig) error {
	sc := spec.SecurityContext
	if sc == nil {
		sc = &corev1.SecurityContext{}
	}
	psc := w.pod.Spec.SecurityContext
	if psc == nil {
		psc = &corev1.PodSecurityContext{}
	}
	user := first(sc.RunAsUser, psc.RunAsUser)
	group := first(sc.RunAsGroup, psc.RunAsGroup)
	cfg.User.Name = img.Config.User
	if user != nil {
		cfg.User.Name = strconv.FormatInt(*user, 10)
	}
	if group != nil {
		name, _, _ := strings.Cut(cfg.User.Name, ":")
		if name == "" {
			name = "0"
		}
		cfg.User.Name = name + ":" + strconv.FormatInt(*group, 10)
	}
	if err := nonRoot(first(sc.RunAsNonRoot, psc.RunAsNonRoot), user, img, spec.Name, w.pod); err != nil {
		return err
	}
	cfg.User.OnlyGroups = psc.SupplementalGroupsPolicy != nil && *psc.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict
	for _, g := range psc.SupplementalGroups {
		cfg.User.Groups = append(cfg.User.Groups, int(g))
	}
	if psc.FSGroup != nil {
		cfg.User.Groups = append(cfg.User.Groups, int(*psc.FSGroup))
	}
	if sc.Capabilities != nil {
		for _, c := range sc.Capabilities.Add {
			cfg.CapAdd = append(cfg.CapAdd, string(c))
		}
		for _, c := range sc.Capabilities.Drop {
			cfg.CapDrop = append(cfg.CapDrop, string(c))
		}
	}
	cfg.Privileged = isTrue(sc.Privileged)
	cfg.ReadOnlyRoot = isTrue(sc.ReadOnlyRootFilesystem)
	cfg.NoNewPrivileges = sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation
	cfg.UnmaskedProc = sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount
	profile := sc.SeccompProfile
	if profile == nil {
		profile = psc.SeccompProfile
	}
	if profile != nil && profile.Type == corev1.SeccompProfileTypeUnconfined {
		cfg.Seccomp = runtime.SeccompUnconfined
	}
	if profile != nil && profile.Type == corev1.SeccompProfileTypeLocalhost && profile.LocalhostProfile != nil {
		cfg.Seccomp = filepath.Join("/var/lib/wherry/seccomp", filepath.Clean("/"+*profile.LocalhostProfile))
	}
	return nil
}

func nonRoot(must *bool, user *int64, img images.Image, name string, pod *corev1.Pod) error {
	if !isTrue(must) {
		return nil
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", pod.Name+"_"+pod.Namespace+"("+string(pod.UID)+")", name)
	if user != nil {
		if *user == 0 {
			return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
		}
		return nil
	}
	id, _, _ := strings.Cut(img.Config.User, ":")
	n, err := strconv.Atoi(id)
	switch {
	case id == "" || err == nil && n == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	case err != nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", id, where)
	}
	return nil
}

func first[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

func isTrue(b *bool) bool { return b != nil && *b }

// mount gives the container its files and volumes.
func (w *Worker) mount(ctx context.Context, spec *corev1.Container, id string, env *environment, cfg *runtime.ContainerConfig) error {
	cfg.Mounts = append(cfg.Mounts, w.fileMounts(spec)...)
	if spec.TerminationMessagePath != "" {
		m, err := w.terminationMount(spec, id)
		if err != nil {
			return err
		}
		cfg.Mounts = append(cfg.Mounts, m)
	}
	for i, vm := range spec.VolumeMounts {
		source, ok := w.state.volumes[vm.Name]
		if !ok {
			return fmt.Errorf("volumeMounts %q: volume is not there", vm.Name)
		}
		sub := vm.SubPath
		if vm.SubPathExpr != "" {
			sub = env.expand(vm.SubPathExpr)
		}
		if sub != "" {
			var err error
			if source, err = w.node.Volumes.SubPath(ctx, string(w.pod.UID), fmt.Sprintf("%s-%d", spec.Name, i), source, sub); err != nil {
				return fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", vm.Name, spec.Name, err)
			}
		}
		m := runtime.Mount{Source: source, Target: path.Clean(vm.MountPath), ReadOnly: vm.ReadOnly || w.readOnly(vm.Name)}
		if rr := vm.RecursiveReadOnly; rr != nil && vm.ReadOnly {
			m.RecursiveReadOnly = *rr == corev1.RecursiveReadOnlyEnabled || *rr == corev1.RecursiveReadOnlyIfPossible
		}
		if vm.MountPropagation != nil {
			switch *vm.MountPropagation {
			case corev1.MountPropagationHostToContainer:
				m.Propagation = runtime.PropagationFromHost
			case corev1.MountPropagationBidirectional:
				m.Propagation = runtime.PropagationBoth
			}
		}
		cfg.Mounts = append(cfg.Mounts, m)
	}
	return nil
}

// readOnly reports whether a volume holds what the API says, which no container
// changes.
func (w *Worker) readOnly(volume string) bool {
	for _, v := range w.pod.Spec.Volumes {
		if v.Name == volume {
			return v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil
		}
	}
	return false
}

// refusal says why the node does not take a pod, or nil.
func refusal(pod *corev1.Pod) *problem {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		name := strings.ReplaceAll(s.Name, "/", ".")
		if !safeSysctl(name) {
			return &problem{reason: "SysctlForbidden", message: fmt.Sprintf("Pod was rejected: forbidden sysctl: %q not allowlisted", s.Name)}
		}
		if pod.Spec.HostNetwork && strings.HasPrefix(name, "net.") {
			return &problem{reason: "SysctlForbidden", message: fmt.Sprintf("Pod was rejected: forbidden sysctl: %q not allowed with host net enabled", s.Name)}
		}
		if pod.Spec.HostIPC && strings.HasPrefix(name, "kernel.") {
			return &problem{reason: "SysctlForbidden", message: fmt.Sprintf("Pod was rejected: forbidden sysctl: %q not allowed with host ipc enabled", s.Name)}
		}
	}
	return nil
}

// safeSysctl reports whether a sysctl concerns nobody but the pod.
func safeSysctl(name string) bool {
	switch name {
	case "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
		"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
		"net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem":
		return true
	}
	return false
}
