package podworker

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/images"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what a pod of testdata becomes with the file beside it.
func TestGoldenSpecs(t *testing.T) {
	pods, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(pods) == 0 {
		t.Fatalf("no pods: %v", err)
	}
	img := images.Image{
		ID: "sha256:1", RepoDigests: []string{"example.test/img@sha256:2"}, Layers: []string{"/layers/b", "/layers/a"},
		Config: images.ContainerConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}, Env: []string{"IMG=i"}, WorkingDir: "/img", User: "web:web", StopSignal: "SIGQUIT"},
	}
	for _, file := range pods {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := &corev1.Pod{}
			if err := yaml.UnmarshalStrict(b, p); err != nil {
				t.Fatal(err)
			}
			w, cl := lone(t, p)
			cl.env = []corev1.EnvVar{{Name: "KUBERNETES_SERVICE_HOST", Value: "10.96.0.1"}}
			if err := w.makeVolumes(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.state.netns = "/run/netns/uid-1"
			out := []any{}
			sb, err := w.sandboxConfig()
			if err != nil {
				t.Fatal(err)
			}
			if err := sb.Validate(); err != nil {
				t.Error(err)
			}
			out = append(out, sb)
			for _, c := range allContainers(p) {
				w.state.containers[c.Name].image = &img
				cfg, err := w.containerConfig(t.Context(), c, w.state.containers[c.Name])
				if err != nil {
					out = append(out, c.Name+": "+err.Error())
					continue
				}
				if err := cfg.Validate(); err != nil {
					t.Error(err)
				}
				adj := 0
				if *cfg.OOMScoreAdj == 1000 || *cfg.OOMScoreAdj < 0 { // others depend on the machine
					adj = *cfg.OOMScoreAdj
				}
				cfg.OOMScoreAdj = &adj
				out = append(out, cfg)
			}
			text, err := json.MarshalIndent(out, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			root := filepath.Dir(w.node.Dir)
			got := strings.ReplaceAll(string(text), root, "DIR") + "\n"
			name := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s became (see -update):\n%s", file, got)
			}
		})
	}
}

func TestStopSignal(t *testing.T) {
	for in, want := range map[string]syscall.Signal{"": 0, "SIGTERM": 15, "TERM": 15, "sigint": 2, "9": 9, "SIGRTMIN+3": 37} {
		if got, err := stopSignal(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"SIGNONE", "0", "65", "-1", "x"} {
		if got, err := stopSignal(in); err == nil {
			t.Errorf("%q: %d", in, got)
		}
	}
}

func TestOOMScore(t *testing.T) {
	with := func(c corev1.Container, memory string) corev1.Container {
		c.Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
		return c
	}
	const total = 1000
	tests := []struct {
		qos   corev1.PodQOSClass
		class string
		spec  corev1.Container
		want  int
	}{
		{corev1.PodQOSGuaranteed, "", con("a"), -997}, {corev1.PodQOSBestEffort, "", con("a"), 1000},
		{corev1.PodQOSBestEffort, "system-node-critical", con("a"), -997},
		{corev1.PodQOSBurstable, "", con("a"), 999}, {corev1.PodQOSBurstable, "", with(con("a"), "250"), 750},
		{corev1.PodQOSBurstable, "", with(con("a"), "5000"), 3}, {corev1.PodQOSBurstable, "", with(side("s"), "250"), 600},
		{corev1.PodQOSBurstable, "", with(side("s"), "450"), 550},
	}
	for _, tt := range tests {
		p := podOf(corev1.RestartPolicyAlways, with(con("x"), "400"), with(con("y"), "900"))
		p.Status.QOSClass, p.Spec.PriorityClassName = tt.qos, tt.class
		if got := oomScore(p, &tt.spec, total); got != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.qos, tt.spec.Name, got, tt.want)
		}
	}
	if got := scoreFor(1, 0); got != 999 {
		t.Errorf("without a total: %d", got)
	}
}

func TestNonRoot(t *testing.T) {
	yes, no, root, user := true, false, int64(0), int64(7)
	p := podOf(corev1.RestartPolicyAlways)
	for _, tt := range []struct {
		must *bool
		user *int64
		img  string
		want string
	}{
		{nil, nil, "", ""}, {&no, &root, "", ""}, {&yes, &user, "", ""}, {&yes, nil, "7", ""}, {&yes, nil, "7:root", ""},
		{&yes, &root, "7", `container's runAsUser breaks non-root policy (pod: "p_demo(uid-1)", container: a)`},
		{&yes, nil, "", `container has runAsNonRoot and image will run as root (pod: "p_demo(uid-1)", container: a)`},
		{&yes, nil, "0", `container has runAsNonRoot and image will run as root (pod: "p_demo(uid-1)", container: a)`},
		{&yes, nil, "web", `container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root (pod: "p_demo(uid-1)", container: a)`},
	} {
		err := nonRoot(tt.must, tt.user, images.Image{Config: images.ContainerConfig{User: tt.img}}, "a", p)
		if err == nil {
			err = errors.New("")
		}
		if err.Error() != tt.want {
			t.Errorf("%v %v %q: %v, want %q", tt.must, tt.user, tt.img, err, tt.want)
		}
	}
}

func TestPullSecretsGoToTheirRegistryOnly(t *testing.T) {
	p := podOf(corev1.RestartPolicyAlways, con("a"))
	p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "new"}, {Name: "old"}, {Name: "none"}, {Name: "bad"}}
	w, cl := lone(t, p)
	var events []string
	w.node.Event = func(_ *corev1.Pod, _, reason, message string) { events = append(events, reason+": "+message) }
	cl.secrets["demo/new"] = &corev1.Secret{Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"one.test":{"auth":"dTpw"},"two.test":{"username":"x","password":"y"}}}`)}}
	cl.secrets["demo/old"] = &corev1.Secret{Data: map[string][]byte{corev1.DockerConfigKey: []byte(`{"https://one.test/v2/":{"username":"o","password":"p"}}`)}}
	cl.secrets["demo/bad"] = &corev1.Secret{Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{`)}}
	got := w.pullSecrets("one.test/app:1")
	if len(got) != 2 || got[0].Username != "u" || got[0].Password != "p" || got[1].Username != "o" {
		t.Errorf("logins for one.test: %+v", got)
	}
	if len(events) != 2 {
		t.Errorf("events %q", events)
	}
	if got := w.pullSecrets("three.test/app:1"); len(got) != 0 {
		t.Errorf("logins for three.test: %+v", got)
	}
}
