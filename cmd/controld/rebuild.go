package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/events"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/raftstore"
)

// A member whose data is damaged or gone may have lost entries that were
// acknowledged with its help, and votes that it gave. So it never goes on as
// who it was: it takes another id and an empty folder, the others take the
// former id out and bring it up to date, and then it votes again. The damaged
// folder stays until that is done. A member that knows of no others stops.

// raftDir is the folder of the member's Raft data: another one for each id.
func (m member) raftDir(dataDir string) string { return m.raftIn(memberDir(dataDir)) }

// raftIn is the same for a member's folder dir, which may still be being made.
func (m member) raftIn(dir string) string { return filepath.Join(dir, or(m.Raft, "raft")) }

// rewrite writes member.json anew, as a whole.
func (m member) rewrite(dataDir string) error {
	m.Format = memberFormat
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return pki.WriteFile(filepath.Join(memberDir(dataDir), "member.json"), append(b, '\n'), 0o600)
}

// openRaft opens the replica, which begins anew if its data is damaged.
func (d *controld) openRaft(c raftstore.Config) (*raftstore.Store, error) {
	c.ID, c.Dir = d.member.ID, d.member.raftDir(d.cfg.DataDir)
	err := d.member.missing(d.cfg.DataDir)
	if err == nil {
		var s *raftstore.Store
		if s, err = raftstore.Open(c); err == nil || !errors.Is(err, raftstore.ErrDamaged) {
			return s, err
		}
	}
	if len(d.others()) == 0 {
		return nil, fmt.Errorf("%w; no other member is known that has the data: restore a backup with `wherry cluster restore`", err)
	}
	was := d.member.ID
	if d.member, err = d.member.anew(d.cfg.DataDir, err); err != nil {
		return nil, err
	}
	d.log.Error("this member's data is damaged; it begins anew, and gets everything from the others", "was", was, "member", d.member.ID, "err", d.member.Rebuilding)
	c.ID, c.Dir = d.member.ID, d.member.raftDir(d.cfg.DataDir)
	return raftstore.Open(c)
}

// missing is an error if the Raft data of a member that has been part of the
// cluster is gone.
func (m member) missing(dataDir string) error {
	if !m.Entered {
		return nil
	}
	_, err := os.Stat(filepath.Join(m.raftDir(dataDir), "format.json"))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is gone: %w", m.raftDir(dataDir), raftstore.ErrDamaged)
	}
	return err
}

// anew gives the member another id and folder, from now on.
func (m member) anew(dataDir string, why error) (member, error) {
	var err error
	if m.ID, err = cluster.NewMemberID(m.Name); err != nil {
		return m, err
	}
	m.Raft, m.Entered, m.Rebuilding = "raft-"+m.ID, false, why.Error()
	return m, m.rewrite(dataDir)
}

// others are the members that this one knows of, besides itself.
func (d *controld) others() []string { return d.member.but(d.address) }

// but gives the members that are known, besides the one at an address.
func (m member) but(address string) []string {
	return slices.DeleteFunc(slices.Clone(m.Controls), func(a string) bool { return a == address })
}

// rebuilt is the check of /readyz that says when this member is being brought
// back.
func (d *controld) rebuilt(context.Context) error {
	if why := d.rebuilding.Load(); why != nil {
		return fmt.Errorf("this member's data was damaged and is being brought back from the others: %s", *why)
	}
	return nil
}

// rememberEvery is how often member.json is compared with what is so.
const rememberEvery = 5 * time.Second

// remember keeps in member.json what a member must know that has lost the rest:
// the others' addresses, and whether it has been part of the cluster. When it
// votes again after its data was damaged, the damaged folder goes. It ends the
// daemon of a member that was removed.
func (d *controld) remember(ctx context.Context) error {
	look := time.NewTicker(rememberEvery)
	defer look.Stop()
	alone := leaderless{since: time.Now()}
	for m := d.member; ; {
		if err := d.pins.Check(d.keys.Self()); errors.Is(err, pki.ErrPinned) && m.Entered {
			return d.removed(err)
		}
		if now, _ := d.raft.Leadership(); alone.long(now.ID != "", time.Now()) {
			if err := d.askRemoved(ctx, m); err != nil {
				return d.removed(err)
			}
		}
		now, err := d.rememberNow(ctx, m)
		if m = now; err != nil {
			d.log.Warn("member.json not brought up to date", "err", err)
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// rememberNow gives what member.json says afterwards.
func (d *controld) rememberNow(ctx context.Context, m member) (member, error) {
	now := m
	now.Controls, now.Entered, now.Rebuilding = d.cluster.Controls(), true, ""
	slices.Sort(now.Controls)
	if !d.votes() || len(now.Controls) == 0 || m.Entered && m.Rebuilding == "" && slices.Equal(now.Controls, m.Controls) {
		return m, nil
	}
	if m.Rebuilding != "" {
		if err := d.tellRebuilt(ctx, m.Rebuilding); err != nil {
			return m, err // so that nobody misses it
		}
		if err := now.removeOthers(d.cfg.DataDir); err != nil {
			return m, err
		}
	}
	if err := now.rewrite(d.cfg.DataDir); err != nil {
		return m, err
	}
	d.rebuilding.Store(nil)
	return now, nil
}

// removeOthers removes the folders of the ids that this member had.
func (m member) removeOthers(dataDir string) error {
	entries, err := os.ReadDir(memberDir(dataDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(memberDir(dataDir), e.Name())
		if (e.Name() == "raft" || strings.HasPrefix(e.Name(), "raft-")) && dir != m.raftDir(dataDir) {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// tellRebuilt writes an Event about the namespace of the system, since members
// are no objects of the API.
func (d *controld) tellRebuilt(ctx context.Context, why string) error {
	d.log.Info("this member has everything again, and votes", "member", d.member.ID, "was damaged", why)
	return d.tell(ctx, "MemberRebuilt", fmt.Sprintf("controld %s had lost its data and was brought back from the others as member %s: %s", d.member.Name, d.member.ID, why))
}

// tell writes one warning Event.
func (d *controld) tell(ctx context.Context, reason, message string) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	e := events.New(d.api.As(d.self()), d.api.Kinds(), "controld", d.member.Name, d.log)
	go func() { done <- e.Run(ctx) }()
	e.Event(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem}}, corev1.EventTypeWarning, reason, message)
	cancel() // what is noted is written at the end
	return <-done
}
