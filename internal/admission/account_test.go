package admission

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/podspec"
	"github.com/wherry-project/wherry/internal/store"
)

func accounts(t *testing.T) *store.Snapshot {
	t.Helper()
	table := kinds.Table()
	st := store.NewLocal(api.NewCodec(table, 0))
	no := false
	for _, sa := range []*corev1.ServiceAccount{
		{ObjectMeta: metav1.ObjectMeta{Name: "builder"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "quiet"}, AutomountServiceAccountToken: &no},
	} {
		sa.Namespace = "default"
		k, _ := table.Of(sa)
		r, err := k.Record(sa)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Commit(t.Context(), store.Command{Changes: []store.Change{{Op: store.Put, Key: r.Key, Record: r}}}); err != nil {
			t.Fatal(err)
		}
	}
	snap, err := st.Snapshot(t.Context(), store.At{Level: store.Any})
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func TestServiceAccountAndRuntimeClass(t *testing.T) {
	snap := accounts(t)
	gvisor, yes, no := "gvisor", true, false
	own := corev1.Container{Name: "own", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: accessPath}}}
	plain := corev1.Container{Name: "plain"}
	for name, c := range map[string]struct {
		spec    corev1.PodSpec
		account string
		mounts  string // of init containers and containers: + where it is mounted by us
		pulls   string
		refused string
	}{
		"none":                    {corev1.PodSpec{Containers: []corev1.Container{plain}}, "default", "+", "", ""},
		"one there":               {corev1.PodSpec{ServiceAccountName: "builder", Containers: []corev1.Container{plain}}, "builder", "+", "pull", ""},
		"own pull secret":         {corev1.PodSpec{ServiceAccountName: "builder", ImagePullSecrets: []corev1.LocalObjectReference{{Name: "mine"}}, Containers: []corev1.Container{plain}}, "builder", "+", "mine", ""},
		"all containers":          {corev1.PodSpec{InitContainers: []corev1.Container{plain}, Containers: []corev1.Container{own, plain}}, "default", "+-+", "", ""},
		"own mount only":          {corev1.PodSpec{Containers: []corev1.Container{own}}, "default", "-", "", ""},
		"account says no":         {corev1.PodSpec{ServiceAccountName: "quiet", Containers: []corev1.Container{plain}}, "quiet", "-", "", ""},
		"pod says yes":            {corev1.PodSpec{ServiceAccountName: "quiet", AutomountServiceAccountToken: &yes, Containers: []corev1.Container{plain}}, "quiet", "+", "", ""},
		"pod says no":             {corev1.PodSpec{AutomountServiceAccountToken: &no, Containers: []corev1.Container{plain}}, "default", "-", "", ""},
		"one not there":           {corev1.PodSpec{ServiceAccountName: "nope"}, "", "", "", `pods "p" is forbidden: error looking up service account default/nope: serviceaccount "nope" not found`},
		"runtime class not there": {corev1.PodSpec{RuntimeClassName: &gvisor}, "", "", "", `pods "p" is forbidden: pod rejected: RuntimeClass "gvisor" not found`},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: *c.spec.DeepCopy()}
		r := &Request{Operation: Create, Object: pod, Snapshot: snap}
		err := serviceAccount(r)
		if err == nil {
			err = runtimeClass(r)
		}
		if c.refused != "" {
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: %v, want %s", name, err, c.refused)
			}
			continue
		}
		pulls, mounts := "", ""
		for _, s := range pod.Spec.ImagePullSecrets {
			pulls += s.Name
		}
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for _, one := range list {
				if n := len(one.VolumeMounts); n > 0 && strings.HasPrefix(one.VolumeMounts[n-1].Name, accessVolume) && one.VolumeMounts[n-1].ReadOnly {
					mounts += "+"
				} else {
					mounts += "-"
				}
			}
		}
		if err != nil || pod.Spec.ServiceAccountName != c.account || pod.Spec.DeprecatedServiceAccount != c.account || pulls != c.pulls || mounts != c.mounts {
			t.Errorf("%s: %v, account %q, pull secrets %q, mounts %q", name, err, pod.Spec.ServiceAccountName, pulls, mounts)
		}
		if want := strings.Contains(c.mounts, "+"); (len(pod.Spec.Volumes) == 1) != want {
			t.Errorf("%s: volumes %v", name, pod.Spec.Volumes)
		}
		// Asked again, it changes nothing; and it leaves no default to be made.
		again := pod.DeepCopy()
		if err := serviceAccount(&Request{Operation: Create, Object: again, Snapshot: snap}); err != nil || again.String() != pod.String() {
			t.Errorf("%s: again %v, %v", name, again, err)
		}
		defaulted := pod.DeepCopy()
		podspec.Default(&defaulted.Spec)
		for i, v := range pod.Spec.Volumes {
			if v.String() != defaulted.Spec.Volumes[i].String() {
				t.Errorf("%s: volume %v is %v with defaults", name, v, defaulted.Spec.Volumes[i])
			}
		}
	}
}
