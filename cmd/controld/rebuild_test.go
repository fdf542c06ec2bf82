package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/testkit"
)

// TestLostData damages a member's log, takes another's whole disk away, and
// removes a member. Each time the rest go on, and what was lost is brought back
// from them.
func TestLostData(t *testing.T) {
	c1 := newHost(t, "c1")
	if out, err := c1.do("init", "--admin-kubeconfig", c1.kubeconfig()); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	c1.start()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	config, core := admin(t, c1, c1)
	if _, err := core.ConfigMaps("default").Create(ctx, configMap("one"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	c2, c3 := newHost(t, "c2"), newHost(t, "c3")
	grow(ctx, t, tlsConfig, c1, c2, c3)
	client := wherryv1.NewClusterClient(dial(t, tlsConfig, c1))
	three := memberIDs(ctx, t, client, "c1", "c2", "c3")
	c3.remembers(t)

	damagedLog(ctx, t, client, c1, c3, three["c3"])
	lostDisk(ctx, t, client, c1, c2, three["c2"])

	three = memberIDs(ctx, t, client, "c1", "c2", "c3")
	// The folder of a member that was rebuilt has another name.
	_ = c3.stop(syscall.SIGKILL) // says that it was killed
	if out, err := c3.do("recover", "--show"); err != nil || !strings.Contains(out, "this member:    "+three["c3"]) {
		t.Errorf("recover after a rebuild: %v\n%s", err, out)
	}
	if _, err := client.RemoveMember(ctx, &wherryv1.RemoveMemberRequest{Id: three["c3"]}); err != nil {
		t.Fatal(err)
	}
	memberIDs(ctx, t, client, "c1", "c2")
	createMap(ctx, t, core, "later")
	c3.endsAsRemoved(t)
	_ = c2.stop(syscall.SIGKILL) // says that it was killed
	two := memberIDs(ctx, t, client, "c1", "c2")
	within, end := context.WithTimeout(ctx, 5*time.Second)
	defer end()
	if _, err := client.RemoveMember(within, &wherryv1.RemoveMemberRequest{Id: two["c1"]}); err == nil {
		t.Error("the only one that answers was removed")
	}
}

// memberIDs waits until these and no others are members with a vote.
func memberIDs(ctx context.Context, t *testing.T, client wherryv1.ClusterClient, names ...string) map[string]string {
	t.Helper()
	var ids map[string]string
	testkit.Eventually(t, patience, func() error {
		m, err := client.Members(ctx, &wherryv1.MembersRequest{})
		if err != nil {
			return err
		}
		ids = map[string]string{}
		for _, one := range m.GetMembers() {
			if ids[one.GetName()] = one.GetId(); !one.GetVoter() || one.GetReplaces() != "" {
				return fmt.Errorf("members %v", m)
			}
		}
		for _, name := range names {
			if ids[name] == "" || len(ids) != len(names) {
				return fmt.Errorf("members %v, want %v", m, names)
			}
		}
		return nil
	})
	return ids
}

func (h *host) memberJSON() (m member, err error) {
	b, err := os.ReadFile(filepath.Join(h.dir, "data", "member", "member.json"))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// remembers waits until the member has written down who the others are.
func (h *host) remembers(t *testing.T) member {
	t.Helper()
	var m member
	testkit.Eventually(t, patience, func() (err error) {
		if m, err = h.memberJSON(); err == nil && (!m.Entered || len(m.Controls) < 3 || m.Rebuilding != "") {
			err = fmt.Errorf("member.json says %+v", m)
		}
		return err
	})
	return m
}

func damagedLog(ctx context.Context, t *testing.T, client wherryv1.ClusterClient, first, h *host, was string) {
	t.Helper()
	_ = h.stop(syscall.SIGKILL) // says that it was killed
	raft := filepath.Join(h.dir, "data", "member", "raft")
	segments, err := filepath.Glob(filepath.Join(raft, "log", "*.seg"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no log: %v", err)
	}
	f, err := os.OpenFile(segments[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damaged"), 200); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	h.start()
	if got := memberIDs(ctx, t, client, "c1", "c2", "c3")["c3"]; got == was {
		t.Errorf("it votes under its former id, %s", was)
	}
	m := h.remembers(t)
	if m.ID == was || m.Raft == "" {
		t.Errorf("member.json says %+v", m)
	}
	testkit.Eventually(t, patience, func() error {
		if _, err := os.Stat(raft); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the damaged folder stays: %w", err)
		}
		if log := h.log.String(); !strings.Contains(log, "this member's data is damaged") || !strings.Contains(log, "has everything again") {
			return fmt.Errorf("the log does not say so:\n%s", log)
		}
		return nil
	})
	_, core := admin(t, first, h)
	if _, err := core.ConfigMaps("default").Get(ctx, "one", metav1.GetOptions{}); err != nil {
		t.Errorf("the member that was brought back: %v", err)
	}
	testkit.Eventually(t, patience, func() error {
		all, err := core.Events("").List(ctx, metav1.ListOptions{FieldSelector: "reason=MemberRebuilt"})
		if err == nil && (len(all.Items) != 1 || all.Items[0].Type != corev1.EventTypeWarning || !strings.Contains(all.Items[0].Message, "controld c3")) {
			err = fmt.Errorf("events %v", all.Items)
		}
		return err
	})
	testkit.Eventually(t, patience, func() error {
		if b, err := core.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
			return fmt.Errorf("readyz: %s, %w", b, err)
		}
		return nil
	})
}

func lostDisk(ctx context.Context, t *testing.T, client wherryv1.ClusterClient, first, h *host, was string) {
	t.Helper()
	token, err := client.CreateToken(ctx, &wherryv1.CreateTokenRequest{Role: wherryv1.Role_ROLE_CONTROL})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token.GetToken()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := first.at()
	// The name is not to be had while its member answers.
	double := newHost(t, h.name)
	testkit.Eventually(t, patience, func() error { // or it would be let in
		m, err := client.Members(ctx, &wherryv1.MembersRequest{})
		for _, one := range m.GetMembers() {
			if one.GetName() == h.name && one.GetReachable() {
				return nil
			}
		}
		return fmt.Errorf("%s does not answer: %v, %w", h.name, m, err)
	})
	if out, err := double.do("join", at, "--token-file", file); err == nil || !strings.Contains(out, "which answers at") {
		t.Errorf("a second %s joins: %v\n%s", h.name, err, out)
	}
	_ = h.stop(syscall.SIGKILL) // says that it was killed
	if err := os.RemoveAll(filepath.Join(h.dir, "data")); err != nil {
		t.Fatal(err)
	}
	if out, err := h.do("join", at, "--token-file", file); err != nil {
		t.Fatalf("join: %v\n%s", err, out)
	}
	h.start()
	if got := memberIDs(ctx, t, client, "c1", "c2", "c3")[h.name]; got == was {
		t.Errorf("it has its former id, %s", was)
	}
	_, core := admin(t, first, h)
	if _, err := core.ConfigMaps("default").Get(ctx, "one", metav1.GetOptions{}); err != nil {
		t.Errorf("the member that joined again: %v", err)
	}
}

// endsAsRemoved starts a member that was removed while it was down: the others
// tell it, and it ends.
func (h *host) endsAsRemoved(t *testing.T) {
	t.Helper()
	cmd, log := h.command(), &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if text := log.String(); err == nil || !strings.Contains(text, "removed from the cluster") || !strings.Contains(text, "join again if this machine is to come back") {
			t.Errorf("%s ended with %v:\n%s", h.name, err, text)
		}
	case <-time.After(2 * patience):
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		t.Errorf("%s goes on though it was removed:\n%s", h.name, log)
	}
}

// TestOnlyMemberDamaged has no others to get its data from, and says what to do.
func TestOnlyMemberDamaged(t *testing.T) {
	h := newHost(t, "c1")
	if out, err := h.do("init", "--admin-kubeconfig", h.kubeconfig()); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	before, err := h.memberJSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(h.dir, "data", "member", "raft", "log")); err != nil {
		t.Fatal(err)
	}
	if out, err := h.do(); err == nil || !strings.Contains(out, "wherry cluster restore") {
		t.Errorf("got %v\n%s", err, out)
	}
	if after, err := h.memberJSON(); err != nil || after.ID != before.ID || after.Rebuilding != "" {
		t.Errorf("member.json says %+v, %v", after, err)
	}
}
