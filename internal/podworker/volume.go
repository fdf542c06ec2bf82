package podworker

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wherry-project/wherry/internal/volumes"
)

// Volumes makes a pod's volumes and takes them away.
type Volumes interface {
	// Apply makes the volumes those of cfg and gives the path of each by
	// name. Applying again refreshes what changed.
	Apply(ctx context.Context, cfg volumes.Config) (map[string]string, error)
	// SubPath gives a path that shows sub, which is relative, of a volume for
	// one mount; it never leads out of the volume. Asking again under the
	// same mount's name replaces the former one.
	SubPath(ctx context.Context, podID, mount, volume, sub string) (string, error)
	// Remove takes a pod's volumes away; none is no error.
	Remove(ctx context.Context, podID string) error
}

// makeVolumes translates and applies the pod's volumes.
func (w *Worker) makeVolumes(ctx context.Context) error {
	cfg := volumes.Config{PodID: string(w.pod.UID)}
	if sc := w.pod.Spec.SecurityContext; sc != nil && sc.FSGroup != nil {
		cfg.FSGroup = sc.FSGroup
	}
	for i := range w.pod.Spec.Volumes {
		name := w.pod.Spec.Volumes[i].Name
		v, err := w.volume(ctx, &w.pod.Spec.Volumes[i])
		if err != nil {
			return fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", name, err) //nolint:staticcheck // the event's text
		}
		cfg.Volumes = append(cfg.Volumes, v)
	}
	paths := map[string]string{}
	if len(cfg.Volumes) > 0 {
		var err error
		if paths, err = w.node.Volumes.Apply(ctx, cfg); err != nil {
			return fmt.Errorf("MountVolume.SetUp failed for %w", err) //nolint:staticcheck // as above
		}
	}
	w.state.volumes, w.state.volumesDone = paths, true
	return nil
}

// volume translates one volume. Kinds that are not built are refused by name.
func (w *Worker) volume(ctx context.Context, v *corev1.Volume) (volumes.Volume, error) {
	out := volumes.Volume{Name: v.Name}
	var err error
	switch {
	case v.EmptyDir != nil:
		out.Empty = &volumes.Empty{Memory: v.EmptyDir.Medium == corev1.StorageMediumMemory}
		if v.EmptyDir.SizeLimit != nil {
			out.Empty.Size = v.EmptyDir.SizeLimit.Value()
		}
		if limit := podLimits(w.pod).Memory; out.Empty.Memory && limit > 0 && (out.Empty.Size <= 0 || limit < out.Empty.Size) {
			out.Empty.Size = limit
		}
	case v.HostPath != nil:
		out.Host = &volumes.Host{Path: v.HostPath.Path}
		if v.HostPath.Type != nil {
			out.Host.Type = string(*v.HostPath.Type)
		}
	case v.ConfigMap != nil:
		f := &volumes.Files{}
		err = w.configMapFiles(f, v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.DefaultMode, v.ConfigMap.Optional)
		out.Files = f
	case v.Secret != nil:
		f := &volumes.Files{Memory: true}
		err = w.secretFiles(f, v.Secret.SecretName, v.Secret.Items, v.Secret.DefaultMode, v.Secret.Optional)
		out.Files = f
	case v.DownwardAPI != nil:
		f := &volumes.Files{}
		err = w.downwardFiles(f, v.DownwardAPI.Items, v.DownwardAPI.DefaultMode)
		out.Files = f
	case v.Projected != nil:
		out.Files, err = w.projected(ctx, v.Projected)
	default:
		return out, fmt.Errorf("a volume of this kind is not built; emptyDir, hostPath, configMap, secret, downwardAPI and projected are")
	}
	return out, err
}

func mode(item, all *int32) uint32 {
	if m := first(item, all); m != nil {
		return uint32(*m) //nolint:gosec // validated to 0-0777
	}
	return 0o644
}

// keyed adds the wanted keys of data as files.
func keyed(f *volumes.Files, data map[string][]byte, items []corev1.KeyToPath, all *int32, optional *bool, what string) error {
	if len(items) == 0 {
		for k, v := range data {
			f.Add(k, v, mode(nil, all))
		}
		return nil
	}
	for _, it := range items {
		v, ok := data[it.Key]
		if !ok {
			if isTrue(optional) {
				continue
			}
			return fmt.Errorf("references non-existent %s key: %s", what, it.Key)
		}
		f.Add(it.Path, v, mode(it.Mode, all))
	}
	return nil
}

func (w *Worker) configMapFiles(f *volumes.Files, name string, items []corev1.KeyToPath, all *int32, optional *bool) error {
	cm, ok := w.node.Cluster.ConfigMap(w.pod.Namespace, name)
	if !ok {
		return unless(optional, fmt.Errorf("configmap %q not found", name))
	}
	data := map[string][]byte{}
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	for k, v := range cm.BinaryData {
		data[k] = v
	}
	return keyed(f, data, items, all, optional, "config")
}

func (w *Worker) secretFiles(f *volumes.Files, name string, items []corev1.KeyToPath, all *int32, optional *bool) error {
	s, ok := w.node.Cluster.Secret(w.pod.Namespace, name)
	if !ok {
		return unless(optional, fmt.Errorf("secret %q not found", name))
	}
	return keyed(f, s.Data, items, all, optional, "secret")
}

func (w *Worker) downwardFiles(f *volumes.Files, items []corev1.DownwardAPIVolumeFile, all *int32) error {
	for _, it := range items {
		var value string
		var err error
		switch {
		case it.FieldRef != nil:
			value, err = w.field(it.FieldRef.FieldPath)
		case it.ResourceFieldRef != nil:
			value, err = w.resource(w.spec(it.ResourceFieldRef.ContainerName), it.ResourceFieldRef)
		}
		if err != nil {
			return err
		}
		f.Add(it.Path, []byte(value), mode(it.Mode, all))
	}
	return nil
}

func (w *Worker) projected(ctx context.Context, p *corev1.ProjectedVolumeSource) (*volumes.Files, error) {
	f := &volumes.Files{Memory: true}
	for _, s := range p.Sources {
		var err error
		switch {
		case s.ConfigMap != nil:
			err = w.configMapFiles(f, s.ConfigMap.Name, s.ConfigMap.Items, p.DefaultMode, s.ConfigMap.Optional)
		case s.Secret != nil:
			err = w.secretFiles(f, s.Secret.Name, s.Secret.Items, p.DefaultMode, s.Secret.Optional)
		case s.DownwardAPI != nil:
			err = w.downwardFiles(f, s.DownwardAPI.Items, p.DefaultMode)
		case s.ServiceAccountToken != nil:
			err = w.tokenFile(ctx, f, s.ServiceAccountToken, p.DefaultMode)
		default:
			err = fmt.Errorf("a projected source of this kind is not built; configMap, secret, downwardAPI and serviceAccountToken are")
		}
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

// tokenFile adds a token of the pod's service account. Where the pod's programs
// run as one user it is that user's alone, and where the volume has a group that
// group's too.
func (w *Worker) tokenFile(ctx context.Context, f *volumes.Files, t *corev1.ServiceAccountTokenProjection, all *int32) error {
	if w.node.Token == nil {
		return fmt.Errorf("this node has no way to get tokens")
	}
	token, err := w.node.Token(ctx, w.pod, t)
	if err != nil {
		return fmt.Errorf("fetch the token of service account %q: %w", w.pod.Spec.ServiceAccountName, err)
	}
	user, one := onlyUser(w.pod)
	sc := w.pod.Spec.SecurityContext
	switch {
	case one:
		f.AddOwned(t.Path, []byte(token), 0o600, user)
	case sc != nil && sc.FSGroup != nil:
		f.Add(t.Path, []byte(token), 0o600)
	default:
		f.Add(t.Path, []byte(token), mode(nil, all))
	}
	return nil
}

// onlyUser is the user that all containers of a pod run as, if it says one.
func onlyUser(p *corev1.Pod) (int64, bool) {
	var user *int64
	for _, c := range everyContainer(p) {
		own := (*int64)(nil)
		if sc := p.Spec.SecurityContext; sc != nil {
			own = sc.RunAsUser
		}
		if sc := c.SecurityContext; sc != nil && sc.RunAsUser != nil {
			own = sc.RunAsUser
		}
		if own == nil || user != nil && *user != *own {
			return 0, false
		}
		user = own
	}
	if user == nil {
		return 0, false
	}
	return *user, true
}

// wholeNode is what a container without a limit may use.
func (w *Worker) wholeNode(name string) resource.Quantity {
	switch {
	case name == "cpu":
		return *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI)
	case strings.HasPrefix(name, "memory"):
		return *resource.NewQuantity(memoryTotal(), resource.BinarySI)
	}
	return resource.Quantity{}
}
