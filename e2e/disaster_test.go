package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/wherry-project/wherry/internal/testbed"
	"github.com/wherry-project/wherry/internal/testimage"
)

// keeper is two pods that hold a secret, in their environment and as a file.
const keeper = `
apiVersion: v1
kind: Secret
metadata: {name: kept}
stringData: {word: "hidden-word-of-the-pods"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: keeper}
spec:
  replicas: 2
  selector: {matchLabels: {app: keeper}}
  template:
    metadata: {labels: {app: keeper}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: example.test/busybox:1
        command: ["sleep", "100000"]
        env: [{name: WORD, valueFrom: {secretKeyRef: {name: kept, key: word}}}]
        volumeMounts: [{name: kept, mountPath: /kept}]
      volumes: [{name: kept, secret: {secretName: kept}}]
`

// disaster is a testbed that may be ruined.
type disaster struct {
	*testing.T
	bed  *testbed.Testbed
	kube *kubernetes.Clientset
}

func newDisaster(t *testing.T) *disaster {
	t.Helper()
	bed := ownBed(t, "disaster", 3, 2, "backup-dir: /var/lib/wherry/backups\nbackup-every: 1s\nbackup-keep: 2\nbackup-passphrase-file: /etc/wherry/passphrase\n")
	d := &disaster{T: t, bed: bed}
	d.connect()
	busybox, err := testimage.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "images.tar")
	if err := testimage.WriteFile(file, testimage.WriteOCI, map[string]*testimage.Image{busyboxImage: busybox}); err != nil {
		t.Fatal(err)
	}
	if err := bed.Load(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disaster) connect() {
	d.Helper()
	c, err := d.bed.RESTConfig(testbed.Client, "")
	if err != nil {
		d.Fatal(err)
	}
	if d.kube, err = kubernetes.NewForConfig(c); err != nil {
		d.Fatal(err)
	}
}

// on runs a command in a host; it must succeed.
func (d *disaster) on(host, stdin string, argv ...string) string {
	d.Helper()
	out, err := d.try(host, stdin, argv...)
	if err != nil {
		d.Fatal(err)
	}
	return out
}

func (d *disaster) try(host, stdin string, argv ...string) (string, error) {
	var out, errs strings.Builder
	err := d.bed.Run(d.Context(), host, testbed.Command{Argv: argv, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs})
	if err != nil {
		err = fmt.Errorf("%v on %s: %w\n%s%s", argv, host, err, out.String(), errs.String())
	}
	return out.String(), err
}

// soon runs a command in a host until it succeeds, as it does when the
// cluster has a leader.
func (d *disaster) soon(host, stdin string, argv ...string) (out string) {
	d.Helper()
	eventually(d, func() (err error) {
		out, err = d.try(host, stdin, argv...)
		return err
	})
	return out
}

// lose kills a control and takes its disk.
func (d *disaster) lose(hosts ...string) {
	d.Helper()
	for _, h := range hosts {
		if err := d.bed.Kill(d.Context(), h, ""); err != nil {
			d.Fatal(err)
		}
		d.on(h, "", "rm", "-rf", "/var/lib/wherry/controld", "/etc/wherry/admin.kubeconfig")
	}
}

func (d *disaster) start(host string) {
	d.Helper()
	if err := d.bed.Start(d.Context(), host, ""); err != nil {
		d.Fatal(err)
	}
}

// rejoin lets lost controls join anew.
func (d *disaster) rejoin(at string, hosts ...string) {
	d.Helper()
	token := d.soon(testbed.Client, "", "wherry", "cluster", "token", "create", "--role", "control")
	for _, h := range hosts {
		d.on(h, token, "sh", "-c", "umask 077; cat >/run/token; controld join "+at+":7443 --token-file /run/token")
		d.start(h)
	}
	eventually(d, func() error {
		out, err := d.try(testbed.Client, "", "wherry", "cluster", "members")
		if err != nil {
			return err
		}
		if n := strings.Count(out, "Ready") - strings.Count(out, "NotReady"); n != len(controls) {
			return fmt.Errorf("%d of %d members are Ready:\n%s", n, len(controls), out)
		}
		return nil
	})
}

// pods gives the pods that are Ready, by name, with all that would differ if
// one had been made or started again.
func (d *disaster) pods() map[string]string {
	d.Helper()
	var found map[string]string
	eventually(d, func() error {
		ctx, cancel := context.WithTimeout(d.Context(), 5*time.Second)
		defer cancel()
		list, err := d.kube.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=keeper"})
		if err != nil {
			return err
		}
		found = map[string]string{}
		for _, p := range list.Items {
			if condition(&p, corev1.PodReady).Status == corev1.ConditionTrue {
				s := status(&p)
				found[p.Name] = fmt.Sprint(p.UID, s.ContainerID, s.RestartCount, p.Status.PodIP)
			}
		}
		if len(found) != 2 || len(list.Items) != 2 {
			return fmt.Errorf("%d of %d pods are Ready", len(found), len(list.Items))
		}
		return nil
	})
	return found
}

// words reads the secret as a user and in a pod.
func (d *disaster) words(pod string) {
	d.Helper()
	const want = "hidden-word-of-the-pods"
	eventually(d, func() error {
		var out strings.Builder
		err := d.bed.Run(d.Context(), testbed.Client, testbed.Command{
			Argv: []string{"wherry", "exec", pod, "--", "sh", "-c", "echo $WORD; cat /kept/word"}, Stdout: &out, Stderr: &out,
		})
		if got := strings.Fields(out.String()); err != nil || !slices.Equal(got, []string{want, want}) {
			return fmt.Errorf("in the pod: %q, %v", out.String(), err)
		}
		return nil
	})
	eventually(d, func() error {
		ctx, cancel := context.WithTimeout(d.Context(), 5*time.Second)
		defer cancel()
		s, err := d.kube.CoreV1().Secrets("default").Get(ctx, "kept", metav1.GetOptions{})
		if err == nil && string(s.Data["word"]) != want {
			d.Fatalf("the secret reads %q", s.Data["word"])
		}
		return err
	})
}

// hidden looks for the secret on the controls' disks.
func (d *disaster) hidden() {
	d.Helper()
	for _, c := range controls {
		if out := d.on(c, "", "sh", "-c", "grep -rlaF -e hidden-word-of-the-pods /var/lib/wherry || true"); out != "" {
			d.Errorf("on %s the secret is in %s", c, out)
		}
	}
}

// written makes a ConfigMap, as soon as that can be done.
func (d *disaster) written(name string) {
	d.Helper()
	eventually(d, func() error {
		ctx, cancel := context.WithTimeout(d.Context(), 5*time.Second)
		defer cancel()
		_, err := d.kube.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // by a try whose answer did not come
			err = nil
		}
		return err
	})
}

// ahead takes the nodes far beyond the backup, to revisions that the restored
// cluster has never heard of.
func (d *disaster) ahead() {
	d.Helper()
	for i := range 400 {
		d.written(fmt.Sprint("after-the-backup-", i))
	}
	d.on(testbed.Client, "", "wherry", "create", "service", "clusterip", "later", "--tcp=80")
}

// backedUp waits until a scheduled backup was made and restored on trial.
func (d *disaster) backedUp() {
	d.Helper()
	eventually(d, func() error {
		ctx, cancel := context.WithTimeout(d.Context(), 5*time.Second)
		defer cancel()
		m, err := d.kube.CoreV1().ConfigMaps("kube-system").Get(ctx, "cluster-backup", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if c := m.Data["conditions"]; strings.Count(c, `"status": "True"`) != 2 {
			return errors.New(c)
		}
		return nil
	})
}

// TestDisaster loses two of three controls for ever, and goes on with the
// third; then it loses all three with their disks, and goes on from a backup.
// The pods notice neither.
func TestDisaster(t *testing.T) {
	d := newDisaster(t)
	for _, c := range controls {
		d.on(c, "a passphrase\n", "sh", "-c", "umask 077; cat >/etc/wherry/passphrase")
	}
	d.soon(testbed.Client, keeper, "wherry", "apply", "-f", "-")
	before := d.pods()
	pod := slices.Sorted(maps.Keys(before))[0]
	d.words(pod)
	d.backedUp()
	d.hidden()
	same := func() {
		t.Helper()
		if err := d.bed.AwaitNodes(t.Context(), nodes...); err != nil {
			t.Fatal(err)
		}
		if now := d.pods(); !maps.Equal(now, before) {
			t.Errorf("the pods are not the same:\n%v\n%v", before, now)
		}
		d.words(pod)
	}

	d.lose("c2", "c3")
	if err := d.bed.Stop(t.Context(), "c1", ""); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if out := d.on("c1", "n\n", "wherry", "cluster", "recover"); !strings.Contains(out, "nothing was changed") || !strings.Contains(out, "will be dropped: c") {
		t.Errorf("it said\n%s", out)
	}
	d.on("c1", "y\n", "wherry", "cluster", "recover")
	d.start("c1")
	d.written("after-recovery")
	took := time.Since(began)
	t.Logf("two of three lost: the next write came after %v", took.Round(time.Millisecond))
	if took > time.Minute { // it takes seconds, also on a busy machine
		t.Errorf("bringing the cluster back took %v", took)
	}
	d.rejoin("c1", "c2", "c3")
	same()
	d.hidden()

	d.soon(testbed.Client, "a passphrase\n", "wherry", "cluster", "backup", "/root/.kube/backup", "--passphrase-file", "-")
	b, err := d.bed.ReadFile(testbed.Client, "/etc/wherry/kube/backup")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "hidden-word-of-the-pods") {
		t.Error("the secret is in the backup")
	}
	d.ahead()
	d.lose(controls...)
	if err := d.bed.WriteFile("c1", "/etc/wherry/backup", b, 0o600); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	d.on("c1", "a passphrase\n", "wherry", "cluster", "restore", "/etc/wherry/backup", "--passphrase-file", "-")
	d.start("c1")
	d.written("after-restore")
	t.Logf("all lost: the next write came after %v", time.Since(began).Round(time.Millisecond))
	eventually(t, func() error {
		_, err := d.kube.CoreV1().ConfigMaps("default").Get(t.Context(), "after-recovery", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			t.Fatalf("what was written before the backup: %v", err)
		}
		return err
	})
	same()
	d.rejoin("c1", "c2", "c3")
	same()
	// The nodes hear of what is new: a pod goes, and another comes.
	eventually(t, func() error {
		err := d.kube.CoreV1().Pods("default").Delete(t.Context(), pod, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return err
	})
	eventually(t, func() error {
		if now := d.pods(); now[pod] != "" {
			return errors.New("the pod that was deleted is there")
		}
		return nil
	})
	d.hidden()
}
