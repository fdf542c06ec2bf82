package podworker

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wherry-project/wherry/internal/images"
	"github.com/wherry-project/wherry/internal/runtime"
)

// The labels that a container carries so that a later noded knows its image.
const (
	labelImage   = "image"
	labelImageID = "imageID"
)

func (w *Worker) sandboxConfig() runtime.SandboxConfig {
	spec := w.pod.Spec
	cfg := runtime.SandboxConfig{
		ID: string(w.pod.UID), Name: w.pod.Namespace + "/" + w.pod.Name, NetNS: w.state.netns,
		HostIPC: spec.HostIPC, HostPID: spec.HostPID, SharePID: spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace,
		LogDir: w.logDir(),
		Labels: map[string]string{"namespace": w.pod.Namespace, "name": w.pod.Name},
	}
	if !spec.HostNetwork {
		cfg.Hostname = w.hostname()
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
	return cfg
}

// containerConfig translates a container's spec. Its error says what of the
// spec, or of what it names, keeps the container from being made.
func (w *Worker) containerConfig(spec *corev1.Container, c *container) (runtime.ContainerConfig, error) {
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
		return cfg, fmt.Errorf("no command specified")
	}
	cfg.StopSignal, err = stopSignal(img.Config.StopSignal)
	if err != nil {
		return cfg, err
	}
	cfg.Resources = limits(spec.Resources)
	adj := oomScore(w.pod, spec)
	cfg.OOMScoreAdj = &adj
	if err := w.security(spec, *img, &cfg); err != nil {
		return cfg, err
	}
	return cfg, w.mount(spec, id, env, &cfg)
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

// oomScore is who is killed first when memory runs out.
func oomScore(pod *corev1.Pod, spec *corev1.Container) int {
	if pod.Spec.PriorityClassName == "system-node-critical" {
		return -997
	}
	switch pod.Status.QOSClass {
	case corev1.PodQOSGuaranteed:
		return -997
	case corev1.PodQOSBestEffort:
		return 1000
	}
	request := spec.Resources.Requests[corev1.ResourceMemory]
	total := memoryTotal()
	if total <= 0 {
		return 999
	}
	return int(min(max(1000-1000*request.Value()/total, 3), 999))
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
func (w *Worker) mount(spec *corev1.Container, id string, env *environment, cfg *runtime.ContainerConfig) error {
	cfg.Mounts = append(cfg.Mounts, w.fileMounts(spec)...)
	if spec.TerminationMessagePath != "" {
		m, err := w.terminationMount(spec, id)
		if err != nil {
			return err
		}
		cfg.Mounts = append(cfg.Mounts, m)
	}
	for _, vm := range spec.VolumeMounts {
		dir, ok := w.state.volumes[vm.Name]
		if !ok {
			return fmt.Errorf("volumeMounts %q: volume is not there", vm.Name)
		}
		source, err := subPath(dir, vm, env)
		if err != nil {
			return err
		}
		m := runtime.Mount{Source: source, Target: path.Clean(vm.MountPath), ReadOnly: vm.ReadOnly}
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

// pullSecrets are the logins that the pod's imagePullSecrets hold.
func (w *Worker) pullSecrets() []images.Auth {
	var out []images.Auth
	for _, ref := range w.pod.Spec.ImagePullSecrets {
		s, ok := w.node.Cluster.Secret(w.pod.Namespace, ref.Name)
		if !ok {
			w.event(corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret", fmt.Sprintf("Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", ref.Name))
			continue
		}
		out = append(out, logins(s.Data[corev1.DockerConfigJsonKey])...)
	}
	return out
}

// logins reads a Docker config.
func logins(config []byte) []images.Auth {
	var file struct {
		Auths map[string]struct {
			Username, Password, Auth, IdentityToken string
		}
	}
	if json.Unmarshal(config, &file) != nil {
		return nil // validated when the Secret was made
	}
	var out []images.Auth
	for _, a := range file.Auths {
		auth := images.Auth{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken}
		if raw, err := base64.StdEncoding.DecodeString(a.Auth); err == nil && a.Auth != "" {
			auth.Username, auth.Password, _ = strings.Cut(string(raw), ":")
		}
		out = append(out, auth)
	}
	return out
}
