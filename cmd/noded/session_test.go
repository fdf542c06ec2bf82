package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/svcproxy"
)

func TestNodeRegistersAndRunsPods(t *testing.T) {
	c := up(t, 1)
	p := c.pod("web", "serve")
	got := c.is("web", corev1.PodRunning, true)
	if got.Status.PodIP == "" || got.Status.HostIP != "192.0.2.1" || got.Status.ContainerStatuses[0].ContainerID != "wherry://"+string(p.UID)+"/a-0" {
		t.Errorf("status %+v", got.Status)
	}
	c.eventually(func() error { // its events came up too
		snap, err := c.store.Snapshot(t.Context(), store.At{Level: store.Any})
		if err != nil {
			return err
		}
		var reasons []string
		for r := range snap.Scan("events", "demo", api.Key{}) {
			e, err := store.Decode[*corev1.Event](snap, r)
			if err != nil {
				return err
			}
			reasons = append(reasons, e.Reason)
		}
		if slices.Sort(reasons); !slices.Equal(reasons, []string{"Created", "Pulled", "Started"}) {
			return fmt.Errorf("events: %s", reasons)
		}
		return nil
	})
	c.remove("web")
	c.gone("web")
	c.pod("job", "fail")
	c.eventually(func() error {
		p, err := c.get("job")
		if err == nil && (len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].RestartCount == 0) {
			err = errors.New("not restarted yet")
		}
		return err
	})
	// Nothing of a deleted pod is left, once the object is gone.
	c.remove("job")
	c.gone("job")
	c.eventually(func() error {
		for _, dir := range []string{"pods", "logs", "volumes"} {
			if list, err := os.ReadDir(filepath.Join(c.dir, dir)); err != nil || len(list) > 0 {
				return fmt.Errorf("left in %s: %v, %w", dir, list, err)
			}
		}
		return nil
	})
}

func TestShareFollowsWhatPodsName(t *testing.T) {
	c := up(t, 1)
	c.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "unrelated"}})
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "p"}}
	p.Spec.Containers = []corev1.Container{{Name: "a", Image: "example.test/tool:1", Command: []string{"serve"}, VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}}}
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}}}
	made := c.bound(p)
	c.is("p", corev1.PodPending, false)
	c.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "cm"}, Data: map[string]string{"k": "1"}})
	c.is("p", corev1.PodRunning, true)
	file := filepath.Join(c.dir, "volumes", string(made.UID), "v", "k")
	shows := func(want string) {
		t.Helper()
		c.eventually(func() error {
			b, err := os.ReadFile(file)
			if err == nil && string(b) != want {
				err = fmt.Errorf("shows %q, want %q", b, want)
			}
			return err
		})
	}
	shows("1")
	update := func(value string) {
		t.Helper()
		if _, err := c.api.As(masters).Update(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "cm"}, Data: map[string]string{"k": value}}); err != nil {
			t.Fatal(err)
		}
	}
	update("2")
	shows("2")
	// A ConfigMap that went while nobody named it is not there for the next pod.
	c.remove("p")
	c.gone("p")
	if err := c.api.As(masters).Delete(t.Context(), api.Key{Resource: "configmaps", Namespace: "demo", Name: "cm"}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.ResourceVersion, p.UID = "", ""
	c.bound(p)
	c.eventually(func() error {
		snap, err := c.store.Snapshot(t.Context(), store.At{Level: store.Any})
		if err != nil {
			return err
		}
		for r := range snap.Scan("events", "demo", api.Key{}) {
			if e, err := store.Decode[*corev1.Event](snap, r); err == nil && e.Reason == "FailedMount" && e.Count >= 2 {
				return nil
			}
		}
		return errors.New("no event of a second failed mount")
	})
	c.is("p", corev1.PodPending, false)
}

func TestStatusIsRepeatedUntilStored(t *testing.T) {
	c := up(t, 1)
	for _, refusal := range []error{apierr.Unavailable("no leader"), apierr.Conflict("pods", "x", errors.New("changed")), apierr.Forbidden("pods", "x", errors.New("not yet"))} {
		c.mu.Lock()
		c.refuse, c.refused = refusal, 0
		c.mu.Unlock()
		c.pod("p", "serve")
		c.eventually(func() error {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.refused < 2 {
				return fmt.Errorf("refused %d times", c.refused)
			}
			c.refuse = nil
			return nil
		})
		c.is("p", corev1.PodRunning, true)
		c.remove("p")
		c.gone("p")
	}
}

func TestLeaderChangesAndLosses(t *testing.T) {
	c := up(t, 3)
	c.pod("one", "serve")
	c.is("one", corev1.PodRunning, true)
	c.eventually(func() error { // it learned of all members
		for i, m := range c.controls {
			if len(m.nodes.Nodes()) != 1 {
				return fmt.Errorf("member %d has no session", i)
			}
		}
		return nil
	})
	c.lead(1)
	c.controls[0].kill()
	c.pod("two", "serve")
	c.is("two", corev1.PodRunning, true)
	led := time.Now()
	c.eventually(func() error {
		if seen := c.controls[1].nodes.LastSeen("n1"); seen.Before(led) {
			return fmt.Errorf("no heartbeat at the new leader since %v", seen)
		}
		return nil
	})
	// The control plane goes and comes back; the node works on, and says then
	// what happened meanwhile.
	for _, m := range c.controls[1:] {
		m.kill()
	}
	rt := c.m.Open()
	p, err := c.get("one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rt.StopContainer(t.Context(), string(p.UID), "a-0", syscall.SIGTERM, time.Second); err != nil {
		t.Error(err)
	}
	rt.Close()
	for _, m := range c.controls {
		m.start()
	}
	c.eventually(func() error {
		p, err := c.get("one")
		if err == nil && (len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].RestartCount != 1 || !p.Status.ContainerStatuses[0].Ready) {
			err = fmt.Errorf("status %+v", p.Status.ContainerStatuses)
		}
		return err
	})
	c.remove("one")
	c.gone("one")
}

func TestProblemsOfRulesBecomeEvents(t *testing.T) {
	c := up(t, 1)
	c.proxy.mu.Lock()
	c.proxy.problems = []svcproxy.Problem{{Service: "demo/web", What: "too many endpoints"}}
	c.proxy.mu.Unlock()
	c.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
	c.eventually(func() error {
		snap, err := c.store.Snapshot(t.Context(), store.At{Level: store.Any})
		if err != nil {
			return err
		}
		for r := range snap.Scan("events", "demo", api.Key{}) {
			if e, err := store.Decode[*corev1.Event](snap, r); err == nil && e.InvolvedObject.Kind == "Service" && e.Message == "too many endpoints" && e.Count == 1 {
				return nil
			}
		}
		return errors.New("no event")
	})
}
