package admission

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

func TestServiceAccountAndRuntimeClass(t *testing.T) {
	st := store.NewLocal(api.NewCodec(kinds.Table(), 0))
	key := api.Key{Resource: "serviceaccounts", Namespace: "default", Name: "builder"}
	if _, err := st.Commit(t.Context(), store.Command{Changes: []store.Change{{Op: store.Put, Key: key, Record: &api.Record{Key: key}}}}); err != nil {
		t.Fatal(err)
	}
	snap, err := st.Snapshot(t.Context(), store.At{Level: store.Any})
	if err != nil {
		t.Fatal(err)
	}
	gvisor := "gvisor"
	for name, c := range map[string]struct {
		spec    corev1.PodSpec
		account string
		refused string
	}{
		"none":          {corev1.PodSpec{}, "", ""},
		"one there":     {corev1.PodSpec{ServiceAccountName: "builder"}, "builder", ""},
		"one not there": {corev1.PodSpec{ServiceAccountName: "nope"}, "", `pods "p" is forbidden: error looking up service account default/nope: serviceaccount "nope" not found`},
		"runtime class": {corev1.PodSpec{RuntimeClassName: &gvisor}, "", `pods "p" is forbidden: pod rejected: RuntimeClass "gvisor" not found`},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: c.spec}
		r := &Request{Operation: Create, Object: pod, Snapshot: snap}
		err := serviceAccount(r)
		if err == nil {
			err = runtimeClass(r)
		}
		switch {
		case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%s: %v, want %s", name, err, c.refused)
		case c.refused == "" && (err != nil || pod.Spec.ServiceAccountName != c.account):
			t.Errorf("%s: %v, account %q", name, err, pod.Spec.ServiceAccountName)
		}
	}
}
