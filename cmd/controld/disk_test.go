package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/wherry-project/wherry/internal/daemon"
	"github.com/wherry-project/wherry/internal/raftlog"
	"github.com/wherry-project/wherry/internal/raftlog/diskfault"
	"github.com/wherry-project/wherry/internal/testkit"
)

// TestDiskFull fills the disk of a controld, which is a small file system of the
// test. Writes are refused and say why, reads go on, and when there is room
// writes do too, and an Event tells of it.
func TestDiskFull(t *testing.T) {
	testkit.NeedsRoot(t)
	h := newHost(t, "c1")
	data := filepath.Join(h.dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", data, "tmpfs", 0, "size=20m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(data, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if out, err := h.do("init", "--admin-kubeconfig", h.kubeconfig()); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	h.start()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	_, core := admin(t, h, h)
	maps := core.ConfigMaps("default")
	var err error
	n := 0
	for ; n < 400 && err == nil; n++ {
		m := configMap(fmt.Sprint("m", n))
		m.Data["a"] = strings.Repeat("x", 200_000)
		_, err = maps.Create(ctx, m, metav1.CreateOptions{})
	}
	if !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), "is full") || !strings.Contains(err.Error(), data) {
		t.Fatalf("write %d on a full disk: %v", n, err)
	}
	if _, err := maps.Get(ctx, "m0", metav1.GetOptions{}); err != nil {
		t.Errorf("read while the disk is full: %v", err)
	}
	if err := unix.Mount("", data, "", unix.MS_REMOUNT, "size=200m"); err != nil {
		t.Fatal(err)
	}
	for {
		// One of which nobody could say how it ended may have been done.
		if _, err = maps.Create(ctx, configMap("after"), metav1.CreateOptions{}); err == nil || apierrors.IsAlreadyExists(err) {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("there is room, and a write: %v", err)
		}
	}
	awaitEvent(ctx, t, core, "DiskFull")
	awaitEvent(ctx, t, core, "DiskWell")
	if err := h.stop(unix.SIGTERM); err != nil {
		t.Errorf("stop: %v", err)
	}
	h.start()
	if _, err := maps.Get(ctx, "after", metav1.GetOptions{}); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// TestDiskSlow holds the disk of a controld back: an Event names the disk and
// the delay, and as the delay grows another does.
func TestDiskSlow(t *testing.T) {
	h := newHost(t, "c1")
	if out, err := h.do("init", "--admin-kubeconfig", h.kubeconfig()); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	cfg := defaults()
	if err := cfg.load(filepath.Join(h.dir, "controld.yaml"), true); err != nil {
		t.Fatal(err)
	}
	disk := diskfault.NewFaulty(raftlog.Disk{})
	cfg.fs = disk
	h.log = &logBuffer{}
	d, err := open(t.Context(), cfg, slog.New(slog.NewTextHandler(h.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- daemon.Run(run, d.log, func() {}, d.parts()...) }()
	t.Cleanup(func() {
		disk.SetDelay(0)
		stop()
		if err := <-ended; err != nil {
			t.Errorf("controld: %v", err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", h.log)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	_, core := admin(t, h, h)
	maps := core.ConfigMaps("default")
	create := func(name string) error {
		_, err := maps.Create(ctx, configMap(name), metav1.CreateOptions{})
		return err
	}
	testkit.Eventually(t, patience, func() error {
		if err := create("before"); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		return nil
	})
	disk.SetDelay(time.Hour)
	written := make(chan error, 1)
	go func() { written <- create("after") }()
	testkit.Eventually(t, patience, func() error {
		if n := strings.Count(h.log.String(), "is slow"); n < 3 {
			return fmt.Errorf("%d warnings", n)
		}
		return nil
	})
	disk.SetDelay(0)
	<-written // in time or not
	said := regexp.MustCompile(`^member c1: the disk of (\S+) is slow: a sync takes (\S+),`)
	testkit.Eventually(t, patience, func() error {
		list, err := core.Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: "reason=DiskSlow"})
		if err != nil {
			return err
		}
		var longest time.Duration
		for _, e := range list.Items {
			m := said.FindStringSubmatch(e.Message)
			if m == nil || !strings.HasPrefix(m[1], cfg.DataDir) {
				t.Fatalf("an Event says %q", e.Message)
			}
			d, err := time.ParseDuration(m[2])
			if err != nil || e.Type != corev1.EventTypeWarning || e.InvolvedObject.Name != metav1.NamespaceSystem {
				t.Fatalf("an Event: %+v, %v", e, err)
			}
			longest = max(longest, d)
		}
		if longest < 4*time.Second { // twice twice the second after which it is told
			return fmt.Errorf("%d Events, the longest delay is %s", len(list.Items), longest)
		}
		return nil
	})
}

// awaitEvent waits for a warning about the cluster's own namespace.
func awaitEvent(ctx context.Context, t *testing.T, core *typedcorev1.CoreV1Client, reason string) {
	t.Helper()
	for {
		list, err := core.Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
		if err == nil {
			for _, e := range list.Items {
				if e.Reason == reason && strings.Contains(e.Message, "c1") {
					return
				}
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("no Event %s: %v", reason, err)
		}
	}
}
