package controllers_test

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/testkit"
)

// Events that are older than an hour go; younger ones stay.
func TestOldEvents(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	for name, age := range map[string]time.Duration{"old": 2 * time.Hour, "new": time.Minute} {
		e := &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: "default", Name: name, UID: "u", CreationTimestamp: metav1.Time{Time: time.Now().Add(-age)}},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "p"}, LastTimestamp: metav1.Time{Time: time.Now().Add(-age)},
		}
		if err := c.admin.PutEvents(t.Context(), []*corev1.Event{e}); err != nil {
			t.Fatal(err)
		}
	}
	c.make(&corev1.Namespace{}, `{metadata: {name: wakes-the-controller}}`)
	testkit.Eventually(t, patience, func() error {
		if _, err := get[*corev1.Event](c, "events", "default", "old"); err == nil {
			return fmt.Errorf("the old event is still there")
		}
		_, err := get[*corev1.Event](c, "events", "default", "new")
		return err
	})
}

// A namespace always has its default ServiceAccount.
func TestServiceAccount(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	key := api.Key{Resource: "serviceaccounts", Namespace: "kube-system", Name: "default"}
	there := func() error {
		_, err := get[*corev1.ServiceAccount](c, key.Resource, key.Namespace, key.Name)
		return err
	}
	testkit.Eventually(t, patience, there)
	uid := must(get[*corev1.ServiceAccount](c, key.Resource, key.Namespace, key.Name)).UID
	if err := c.admin.Delete(t.Context(), key, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, patience, func() error {
		sa, err := get[*corev1.ServiceAccount](c, key.Resource, key.Namespace, key.Name)
		if err == nil && sa.UID == uid {
			return fmt.Errorf("it is still the old one")
		}
		return err
	})
}
