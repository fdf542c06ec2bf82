package podworker

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/volumes"
)

func TestExpand(t *testing.T) {
	e := newEnvironment()
	e.set("A", "a")
	e.set("EMPTY", "")
	e.set("REF", "$(A)")
	e.base("PATH", "/bin")
	for in, want := range map[string]string{
		"": "", "x": "x", "$(A)": "a", "x$(A)y$(A)": "xaya", "$(B)": "$(B)", "$(EMPTY)": "", "$(REF)": "$(A)",
		"$$(A)": "$(A)", "$$$(A)": "$a", "$$": "$", "$": "$", "a$": "a$", "$A": "$A", "$(A": "$(A", "$(A$$": "$(A$", "$(A$(A)": "$(A$(A)",
		"$()": "$()", "$(PATH)": "$(PATH)", "$(A))": "a)", "100%$x": "100%$x",
	} {
		if got := e.expand(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A)$$(A)$(B)$(", "v")
	f.Fuzz(func(t *testing.T, text, value string) {
		e := newEnvironment()
		e.set("A", value)
		got := e.expand(text)
		if !strings.Contains(text, "$") && got != text {
			t.Errorf("%q became %q", text, got)
		}
		if strings.Count(text, "$(A)") == 0 && len(got) > len(text) {
			t.Errorf("%q grew to %q", text, got)
		}
	})
}

// lone is a worker that does not run, for what it translates.
func lone(t *testing.T, p *corev1.Pod) (*Worker, *fakeCluster) {
	t.Helper()
	dir := t.TempDir()
	cl := &fakeCluster{maps: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{}}
	n := &Node{
		Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Dir: filepath.Join(dir, "pods"), LogDir: filepath.Join(dir, "logs"),
		Cluster: cl, Volumes: fakeVolumes{dir}, Event: func(*corev1.Pod, string, string, string) {},
	}
	w := New(n, p, nil)
	w.state.address = netip.MustParseAddr("10.244.0.7")
	return w, cl
}

func TestEnvironment(t *testing.T) {
	yes := true
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	amount := func(res, divisor string) *corev1.EnvVarSource {
		r := &corev1.ResourceFieldSelector{Resource: res}
		if divisor != "" {
			r.Divisor = resource.MustParse(divisor)
		}
		return &corev1.EnvVarSource{ResourceFieldRef: r}
	}
	key := func(name, k string, optional *bool) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: k, Optional: optional}}
	}
	secret := func(name, k string, optional *bool) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: k, Optional: optional}}
	}
	c := corev1.Container{
		Name: "a",
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("1500m"), "memory": resource.MustParse("100Mi")},
			Limits:   corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("1Gi")},
		},
	}
	tests := []struct {
		name string
		env  []corev1.EnvVar
		from []corev1.EnvFromSource
		want string // the variables that env and envFrom add, or an error
	}{
		{"plain", []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)2"}, {Name: "C", Value: "$(D)"}, {Name: "D", Value: "x"}}, nil, "A=1 B=12 C=$(D) D=x"},
		{"the last one counts", []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "A", Value: "$(A)2"}}, nil, "A=12"},
		{"over the services", []corev1.EnvVar{{Name: "WEB_SERVICE_HOST", Value: "x"}}, nil, "WEB_SERVICE_HOST=x"},
		{"from a service", []corev1.EnvVar{{Name: "A", Value: "$(WEB_SERVICE_HOST)"}}, nil, "A=10.96.0.5"},
		{"not from the image", []corev1.EnvVar{{Name: "A", Value: "$(IMG)"}}, nil, "A=$(IMG)"},
		{"but over it", []corev1.EnvVar{{Name: "IMG", Value: "mine"}}, nil, "IMG=mine"},
		{"fields", []corev1.EnvVar{
			{Name: "A", ValueFrom: field("metadata.name")}, {Name: "B", ValueFrom: field("metadata.namespace")}, {Name: "C", ValueFrom: field("metadata.uid")},
			{Name: "D", ValueFrom: field("metadata.labels['app.kubernetes.io/x']")}, {Name: "E", ValueFrom: field("metadata.annotations['y']")}, {Name: "F", ValueFrom: field("spec.nodeName")},
			{Name: "G", ValueFrom: field("spec.serviceAccountName")}, {Name: "H", ValueFrom: field("status.podIP")}, {Name: "I", ValueFrom: field("status.hostIP")},
			{Name: "J", ValueFrom: field("status.podIPs")}, {Name: "K", ValueFrom: field("metadata.labels['none']")},
		}, nil, "A=p B=demo C=uid-1 D=l E=n F=n1 G=sa H=10.244.0.7 I=192.0.2.1 J=10.244.0.7 K="},
		{"unknown field", []corev1.EnvVar{{Name: "A", ValueFrom: field("spec.x")}}, nil, "! unsupported fieldPath: spec.x"},
		{"amounts", []corev1.EnvVar{
			{Name: "A", ValueFrom: amount("requests.cpu", "")}, {Name: "B", ValueFrom: amount("requests.cpu", "1m")}, {Name: "C", ValueFrom: amount("limits.memory", "1Mi")},
			{Name: "D", ValueFrom: amount("requests.memory", "")}, {Name: "E", ValueFrom: amount("requests.memory", "1Gi")}, {Name: "F", ValueFrom: amount("requests.ephemeral-storage", "")},
		}, nil, "A=2 B=1500 C=1024 D=104857600 E=1 F=0"},
		{"unknown amount", []corev1.EnvVar{{Name: "A", ValueFrom: amount("cpu", "")}}, nil, "! unsupported container resource: cpu"},
		{"keys", []corev1.EnvVar{{Name: "A", ValueFrom: key("cm", "k", nil)}, {Name: "B", ValueFrom: secret("s", "k", nil)}}, nil, "A=v B=hush"},
		{"no ConfigMap", []corev1.EnvVar{{Name: "A", ValueFrom: key("none", "k", nil)}}, nil, `! configmap "none" not found`},
		{"no key", []corev1.EnvVar{{Name: "A", ValueFrom: key("cm", "none", nil)}}, nil, `! couldn't find key none in ConfigMap demo/cm`},
		{"no Secret", []corev1.EnvVar{{Name: "A", ValueFrom: secret("none", "k", nil)}}, nil, `! secret "none" not found`},
		{"no key of a Secret", []corev1.EnvVar{{Name: "A", ValueFrom: secret("s", "none", nil)}}, nil, `! couldn't find key none in Secret demo/s`},
		{"optional", []corev1.EnvVar{{Name: "A", ValueFrom: key("none", "k", &yes)}, {Name: "B", ValueFrom: key("cm", "none", &yes)}, {Name: "C", ValueFrom: secret("none", "k", &yes)}, {Name: "D", ValueFrom: secret("s", "none", &yes)}}, nil, ""},
		{"from whole objects", []corev1.EnvVar{{Name: "k", Value: "$(P_k)"}}, []corev1.EnvFromSource{
			{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Optional: &yes}},
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Optional: &yes}},
		}, "P_k=v P_z=w k=v"},
		{"from no ConfigMap", nil, []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}}}}, `! configmap "none" not found`},
		{"from no Secret", nil, []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}}}}, `! secret "none" not found`},
		{"a source that is not built", []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{}}}, nil, `! env "A": valueFrom names a source that is not built`},
	}
	p := podOf(corev1.RestartPolicyAlways, c)
	p.Labels, p.Annotations = map[string]string{"app.kubernetes.io/x": "l"}, map[string]string{"y": "n"}
	p.Spec.NodeName, p.Spec.ServiceAccountName = "n1", "sa"
	w, cl := lone(t, p)
	cl.env = []corev1.EnvVar{{Name: "WEB_SERVICE_HOST", Value: "10.96.0.5"}}
	cl.maps["demo/cm"] = &corev1.ConfigMap{Data: map[string]string{"k": "v", "z": "w"}}
	cl.secrets["demo/s"] = &corev1.Secret{Data: map[string][]byte{"k": []byte("hush")}}
	base := []string{"IMG=i", "HOSTNAME=p", "WEB_SERVICE_HOST=10.96.0.5", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c.Env, c.EnvFrom = tt.env, tt.from
			e, err := w.environment(&c, []string{"IMG=i", "odd", "=x"})
			if err != nil {
				if "! "+err.Error() != tt.want {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				return
			}
			got := slices.DeleteFunc(e.list(), func(s string) bool { return slices.Contains(base, s) })
			if text := strings.Join(got, " "); text != tt.want {
				t.Errorf("got %q, want %q", text, tt.want)
			}
		})
	}
	c.Env, c.EnvFrom = nil, nil
	if e, err := w.environment(&c, []string{"PATH=/mine"}); err != nil || !slices.Contains(e.list(), "PATH=/mine") {
		t.Errorf("%v, %v: the image's PATH is lost", e, err)
	}
}

func TestPairs(t *testing.T) {
	if got, want := pairs(map[string]string{"b": "2\n\"x\"", "a": "1"}), "a=\"1\"\nb=\"2\\n\\\"x\\\"\""; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestHostnames(t *testing.T) {
	yes, other := true, "over.ride"
	long := strings.Repeat("a", 62) + "-b"
	tests := []struct {
		name   string
		change func(*corev1.Pod)
		want   string
	}{
		{"name", func(*corev1.Pod) {}, "p"},
		{"cut", func(p *corev1.Pod) { p.Name = long }, strings.Repeat("a", 62)},
		{"hostname", func(p *corev1.Pod) { p.Spec.Hostname = "h" }, "h"},
		{"override", func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.HostnameOverride = "h", &other }, "over.ride"},
		{"host network", func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "n1"},
		{"FQDN", func(p *corev1.Pod) { p.Spec.SetHostnameAsFQDN, p.Spec.Subdomain = &yes, "sub" }, "p.sub.demo.svc.cluster.local"},
		{"FQDN without subdomain", func(p *corev1.Pod) { p.Spec.SetHostnameAsFQDN = &yes }, "p"},
		{"FQDN too long", func(p *corev1.Pod) {
			p.Name, p.Spec.SetHostnameAsFQDN, p.Spec.Subdomain = strings.Repeat("a", 60), &yes, "sub"
		}, "! failed to construct FQDN"},
	}
	for _, tt := range tests {
		p := podOf(corev1.RestartPolicyAlways)
		tt.change(p)
		w, _ := lone(t, p)
		got, err := w.hostname()
		if err != nil {
			got = "! " + err.Error()
		}
		if got != tt.want && (!strings.HasPrefix(tt.want, "! ") || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestTerminationMessage(t *testing.T) {
	c := con("a")
	w, _ := lone(t, podOf(corev1.RestartPolicyAlways, c))
	fallback := c
	fallback.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	log := filepath.Join(t.TempDir(), "0.log")
	var text strings.Builder
	for range 200 {
		text.WriteString("2026-01-02T03:04:05Z stderr F line\n")
	}
	text.WriteString("2026-01-02T03:04:05Z stderr P par\n2026-01-02T03:04:05Z stderr F t\n2026-01-02T03:04:05Z stdout F\n")
	if err := os.WriteFile(log, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, file string
		spec       *corev1.Container
		code       int
		want       string
	}{
		{"file", "bye", &c, 0, "bye"},
		{"nothing", "", &c, 1, ""},
		{"long", strings.Repeat("x", 5000), &c, 0, strings.Repeat("x", 4096)},
		{"no text", "a\xffb", &c, 0, "a\ufffdb"},
		{"file before log", "bye", &fallback, 1, "bye"},
		{"log", "", &fallback, 1, strings.Repeat("line\n", 77) + "part\n\n"},
		{"log of a success", "", &fallback, 0, ""},
	}
	for _, tt := range tests {
		if err := os.MkdirAll(filepath.Dir(w.terminationFile("a-0")), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.terminationFile("a-0"), []byte(tt.file), 0o600); err != nil {
			t.Fatal(err)
		}
		r := &run{Container: runtime.Container{ID: "a-0", ExitCode: tt.code, LogPath: log}}
		if got := w.terminationMessage(tt.spec, r); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := w.terminationMessage(&fallback, &run{Container: runtime.Container{ID: "b-0", ExitCode: 1, LogPath: "/none"}}); got != "" {
		t.Errorf("out of nothing came %q", got)
	}
	if got := lastWords([]byte(strings.Repeat("2026-01-02T03:04:05Z stderr F "+strings.Repeat("ä", 100)+"\n", 50))); len(got) > 2051 {
		t.Errorf("%d bytes of log", len(got))
	}
}

func TestVolumeTranslation(t *testing.T) {
	mode, yes := int32(0o400), true
	ref := corev1.LocalObjectReference{Name: "cm"}
	tests := []struct {
		name string
		src  corev1.VolumeSource
		fail string
	}{
		{"emptyDir", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}, ""},
		{"hostPath", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/x"}}, ""},
		{"configMap", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref, DefaultMode: &mode}}, ""},
		{"items", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref, Items: []corev1.KeyToPath{{Key: "k", Path: "d/k"}}}}, ""},
		{"no such key", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref, Items: []corev1.KeyToPath{{Key: "no", Path: "d/k"}}}}, "references non-existent config key: no"},
		{"optional key", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref, Optional: &yes, Items: []corev1.KeyToPath{{Key: "no", Path: "d/k"}}}}, ""},
		{"no configMap", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "no"}}}, `configmap "no" not found`},
		{"optional configMap", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "no"}, Optional: &yes}}, ""},
		{"secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}, ""},
		{"no secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "no"}}, `secret "no" not found`},
		{"no such key of a secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", Items: []corev1.KeyToPath{{Key: "no", Path: "k"}}}}, "references non-existent secret key: no"},
		{"downward", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "l", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}, ""},
		{"downward, unknown", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "l", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "x"}}}}}, "unsupported fieldPath: x"},
		{"projected", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref}}, {Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "c", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "a", Resource: "limits.cpu"}}}}},
		}}}, ""},
		{"projected token", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}}}}, "this node has no way to get tokens"},
		{"projected of an unknown kind", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}}}}}, "is not built; configMap, secret, downwardAPI and serviceAccountToken are"},
		{"claim", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}, "is not built; emptyDir, hostPath"},
	}
	w, cl := lone(t, podOf(corev1.RestartPolicyAlways, con("a")))
	cl.maps["demo/cm"] = &corev1.ConfigMap{Data: map[string]string{"k": "v"}, BinaryData: map[string][]byte{"b": {0}}}
	cl.secrets["demo/s"] = &corev1.Secret{Data: map[string][]byte{"k": []byte("hush")}}
	for _, tt := range tests {
		v, err := w.volume(t.Context(), &corev1.Volume{Name: "v", VolumeSource: tt.src})
		if tt.fail == "" && (err != nil || v.Empty == nil && v.Host == nil && v.Files == nil) || tt.fail != "" && (err == nil || !strings.Contains(err.Error(), tt.fail)) {
			t.Errorf("%s: %+v, %v; want %q", tt.name, v, err, tt.fail)
		}
	}
}

// TestTokenFile: a token is for whom the pod's programs run as.
func TestTokenFile(t *testing.T) {
	user, other, group := int64(1000), int64(1001), int64(2000)
	as := func(u *int64) corev1.Container {
		c := con("a")
		if u != nil {
			c.SecurityContext = &corev1.SecurityContext{RunAsUser: u}
		}
		return c
	}
	b := as(&other)
	b.Name = "b"
	same := as(&user)
	same.Name = "b"
	for name, tt := range map[string]struct {
		pod  *corev1.PodSecurityContext
		list []corev1.Container
		want func(f *volumes.Files)
	}{
		"nobody said":    {nil, []corev1.Container{as(nil)}, func(f *volumes.Files) { f.Add("token", []byte("T"), 0o444) }},
		"one user":       {nil, []corev1.Container{as(&user), same}, func(f *volumes.Files) { f.AddOwned("token", []byte("T"), 0o600, user) }},
		"the pod's user": {&corev1.PodSecurityContext{RunAsUser: &user, FSGroup: &group}, []corev1.Container{as(nil)}, func(f *volumes.Files) { f.AddOwned("token", []byte("T"), 0o600, user) }},
		"two users":      {nil, []corev1.Container{as(&user), b}, func(f *volumes.Files) { f.Add("token", []byte("T"), 0o444) }},
		"a group":        {&corev1.PodSecurityContext{FSGroup: &group}, []corev1.Container{as(nil)}, func(f *volumes.Files) { f.Add("token", []byte("T"), 0o600) }},
	} {
		pod := podOf(corev1.RestartPolicyAlways, tt.list...)
		pod.Spec.SecurityContext = tt.pod
		w, _ := lone(t, pod)
		w.node.Token = func(_ context.Context, p *corev1.Pod, src *corev1.ServiceAccountTokenProjection) (string, error) {
			if p.UID != pod.UID || src.Audience != "vault" {
				t.Errorf("%s: asked for %s, %v", name, p.UID, src)
			}
			return "T", nil
		}
		mode := int32(0o444)
		v, err := w.volume(t.Context(), &corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			DefaultMode: &mode, Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "vault"}}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		want := &volumes.Files{Memory: true}
		tt.want(want)
		if !reflect.DeepEqual(v.Files, want) {
			t.Errorf("%s: %+v, want %+v", name, v.Files, want)
		}
	}
}
