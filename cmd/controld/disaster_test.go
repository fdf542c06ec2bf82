package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/backup"
	"github.com/wherry-project/wherry/internal/cluster"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/testkit"
)

const passphrase = "correct horse battery staple"

// secretValue is what is looked for on disks.
func secretValue(i int) []byte { return fmt.Appendf(nil, "hidden-value-number-%04d-zqxj", i) }

func writeSecrets(t *testing.T, core *typedcorev1.CoreV1Client, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("s%04d", i)}, Data: map[string][]byte{"key": secretValue(i)}}
		create(t, func() error {
			_, err := core.Secrets("default").Create(t.Context(), s, metav1.CreateOptions{})
			return err
		})
	}
}

// readSecrets reads them in every way: one by one, as a list, by a watch.
func readSecrets(t *testing.T, core *typedcorev1.CoreV1Client, n int) {
	t.Helper()
	for i := range n {
		s, err := core.Secrets("default").Get(t.Context(), fmt.Sprintf("s%04d", i), metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s.Data["key"], secretValue(i)) {
			t.Fatalf("secret %d reads %q", i, s.Data["key"])
		}
	}
	all, err := core.Secrets("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(all.Items) != n {
		t.Fatalf("%d secrets are listed, want %d", len(all.Items), n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	w, err := core.Secrets("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for i := range n {
		e, ok := <-w.ResultChan()
		if !ok {
			t.Fatal("the watch ended early")
		}
		if s, ok := e.Object.(*corev1.Secret); !ok || !bytes.Equal(s.Data["key"], secretValue(i)) {
			t.Fatalf("the watch shows %v", e.Object)
		}
	}
}

// search looks for bytes in every file of a folder, also as base64.
func search(t *testing.T, dir string, what string, value []byte) {
	t.Helper()
	text := []byte(base64.StdEncoding.EncodeToString(value))
	text = text[4 : len(text)-4] // wherever it begins
	var found string
	testkit.Eventually(t, patience, func() error { // again if a file goes meanwhile: the daemon lives
		return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if bytes.Contains(b, value) || bytes.Contains(b, text) {
				found = path
			}
			return err
		})
	})
	if found != "" {
		t.Errorf("%s is in %s", what, found)
	}
}

func (h *host) dataDir() string { return filepath.Join(h.dir, "data") }

// searchAll looks for all secrets and the CA's private key.
func searchAll(t *testing.T, caKey []byte, n int, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		for i := range n {
			search(t, dir, fmt.Sprintf("secret %d", i), secretValue(i))
		}
		search(t, dir, "the CA's private key", caKey)
	}
}

// privatePart is the part of a key that nobody else has.
func privatePart(t *testing.T, ca *pki.Authority) []byte {
	t.Helper()
	der, err := ca.Key()
	if err != nil {
		t.Fatal(err)
	}
	// PKCS #8 of P-256: the private number stands in the inner structure
	// behind its length, 32 bytes.
	at := bytes.Index(der, []byte{0x02, 0x01, 0x01, 0x04, 0x20})
	if at < 0 {
		t.Fatal("no private number in the CA's key")
	}
	return der[at+5 : at+37]
}

func (h *host) passphraseFile() string {
	file := filepath.Join(h.dir, "passphrase")
	if err := os.WriteFile(file, []byte(passphrase+"\n"), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return file
}

// join makes a host a member by a new token.
func (h *host) join(c wherryv1.ClusterClient, at *host) {
	h.t.Helper()
	r, err := c.CreateToken(h.t.Context(), &wherryv1.CreateTokenRequest{Role: wherryv1.Role_ROLE_CONTROL})
	if err != nil {
		h.t.Fatal(err)
	}
	token := filepath.Join(h.dir, "token")
	if err := os.WriteFile(token, []byte(r.GetToken()), 0o600); err != nil {
		h.t.Fatal(err)
	}
	if out, err := h.do("join", at.at(), "--token-file", token); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
}

// saveBackup makes a backup at a host.
func saveBackup(t *testing.T, rc *rest.Config, at *host) (string, backup.Manifest) {
	t.Helper()
	c := clusterClient(t, rc, at)
	file := filepath.Join(at.dir, "backup.wherry")
	m, err := backup.Fetch(t.Context(), c, file, []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	return file, m
}

func clusterClient(t *testing.T, rc *rest.Config, at *host) wherryv1.ClusterClient {
	t.Helper()
	conf, err := rest.TLSConfigFor(rc)
	if err != nil {
		t.Fatal(err)
	}
	return wherryv1.NewClusterClient(dial(t, conf, at))
}

// openBackup reads a backup and gives its CA.
func openBackup(t *testing.T, file string) (*backup.Backup, *pki.Authority) {
	t.Helper()
	b, err := backup.ReadFile(file, []byte(passphrase), api.NewCodec(kinds.Table(), 0))
	if err != nil {
		t.Fatal(err)
	}
	b.State.Use(cluster.OpenKeyring(b.Keys))
	ca, err := cluster.Authority(b.State.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	return b, ca
}

// TestDisaster takes a cluster of three through everything: nothing secret is
// on any disk or in the backup; two of three are lost for ever and the third
// goes on alone; then all are lost, and the backup comes back on a blank host.
func TestDisaster(t *testing.T) {
	const secrets = 20
	hosts := []*host{newHost(t, "c1"), newHost(t, "c2"), newHost(t, "c3")}
	c1, c2, c3 := hosts[0], hosts[1], hosts[2]
	if out, err := c1.do("init", "--admin-kubeconfig", c1.kubeconfig()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c1.start()
	rc, core := admin(t, c1, c1)
	writeSecrets(t, core, 0, secrets/2)
	for _, h := range hosts[1:] {
		h.join(clusterClient(t, rc, c1), c1)
		h.start()
	}
	writeSecrets(t, core, secrets/2, secrets)
	for _, h := range hosts {
		_, core := admin(t, c1, h)
		readSecrets(t, core, secrets)
	}
	file, manifest := saveBackup(t, rc, c2)
	_, ca := openBackup(t, file)
	caKey := privatePart(t, ca)
	searchAll(t, caKey, secrets, c1.dataDir(), c2.dataDir(), c3.dataDir(), filepath.Dir(file))
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup's mode is %v, %v", info.Mode(), err)
	}

	t.Log("two of three are lost for ever")
	for _, h := range hosts[1:] {
		_ = h.stop(syscall.SIGKILL) // it says how it ended
	}
	if out, err := c1.do("recover", "--yes"); err == nil || !strings.Contains(out, "stop it first") {
		t.Fatalf("recovering under a running controld: %v: %s", err, out)
	}
	if err := c1.stop(syscall.SIGTERM); err != nil {
		t.Log("c1 ended:", err)
	}
	out, err := c1.do("recover", "--show")
	if err != nil || !strings.Contains(out, "last entry:") || !strings.Contains(out, "nothing was changed") {
		t.Fatalf("%v: %s", err, out)
	}
	before := lastRevision(t, out)
	began := time.Now()
	if out, err = c1.do("recover", "--yes"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c1.start()
	rc, core = admin(t, c1, c1)
	made, err := core.ConfigMaps("default").Create(t.Context(), configMap("after-recovery"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > time.Minute {
		t.Errorf("the next write came after %v", d)
	}
	if v := revisionOf(t, made); v <= before+1<<20 {
		t.Errorf("revisions went on from %d to %d", before, v)
	}
	readSecrets(t, core, secrets)
	tooOld(t, core, before)
	if out, err := c1.do("recover", "--yes"); err == nil {
		t.Errorf("recovering under a running controld: %s", out)
	}
	searchAll(t, caKey, secrets, c1.dataDir()) // in a snapshot now
	back := newHost(t, "c2")
	back.join(clusterClient(t, rc, c1), c1)
	back.start()
	_, core2 := admin(t, c1, back)
	readSecrets(t, core2, secrets)
	searchAll(t, caKey, secrets, back.dataDir()) // in a snapshot that was sent
	removedStaysOut(t, c3, c1)

	t.Log("all are lost")
	for _, h := range []*host{c1, back} {
		_ = h.stop(syscall.SIGKILL)
	}
	blank := newHost(t, "c1")
	if out, err := blank.do("restore", file, "--passphrase-file", blank.passphraseFile(), "--admin-kubeconfig", blank.kubeconfig()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	blank.start()
	rc, core = admin(t, blank, blank)
	readSecrets(t, core, secrets)
	tooOld(t, core, manifest.Revision+1)
	if _, err := core.ConfigMaps("default").Get(t.Context(), "after-recovery", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("what was written after the backup: %v", err)
	}
	again, err := core.ConfigMaps("default").Create(t.Context(), configMap("after-restore"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if v := revisionOf(t, again); v <= revisionOf(t, made) {
		t.Errorf("revision %d after the restore, %s before", v, made.ResourceVersion)
	}
	// The administrator of before is one still: the CA is the same.
	_, old := admin(t, c1, blank)
	readSecrets(t, old, secrets)
	third := newHost(t, "c3")
	third.join(clusterClient(t, rc, blank), blank)
	third.start()
	_, core3 := admin(t, blank, third)
	readSecrets(t, core3, secrets)
	searchAll(t, caKey, secrets, blank.dataDir(), third.dataDir())
	if out, err := blank.do("restore", file, "--passphrase-file", blank.passphraseFile()); err == nil || !strings.Contains(out, "holds the data of member") {
		t.Errorf("restoring where data is: %v: %s", err, out)
	}
}

// removedStaysOut starts a lost member with its old data: it must not get in.
func removedStaysOut(t *testing.T, lost, at *host) {
	t.Helper()
	_, core := admin(t, at, at)
	cmd := lost.command()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		createMap(t.Context(), t, core, fmt.Sprintf("beside-%d", i))
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func revisionOf(t *testing.T, o metav1.Object) uint64 {
	t.Helper()
	v, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// lastRevision reads what `recover --show` said.
func lastRevision(t *testing.T, out string) uint64 {
	t.Helper()
	_, rest, _ := strings.Cut(out, "revision ")
	text, _, _ := strings.Cut(rest, "\n")
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return v
}

// tooOld says that a watch from a revision of a former life must begin anew.
func tooOld(t *testing.T, core *typedcorev1.CoreV1Client, revision uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	w, err := core.Secrets("default").Watch(ctx, metav1.ListOptions{ResourceVersion: strconv.FormatUint(revision, 10)})
	if err != nil {
		if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
			t.Errorf("a watch from before: %v", err)
		}
		return
	}
	defer w.Stop()
	e := <-w.ResultChan()
	if err := apierrors.FromObject(e.Object); !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		t.Errorf("a watch from before gets %v", e)
	}
}
