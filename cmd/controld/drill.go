package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/backup"
	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/daemon"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/raftstore"
	"github.com/wherry-project/wherry/internal/seal"
	"github.com/wherry-project/wherry/internal/store"
)

func drillCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "drill FILE", Short: "Try whether a backup could be restored", Args: cobra.ExactArgs(1),
		Long: "Try whether a backup could be restored: do all that `controld restore` does in a folder of its own below the data directory, open what came of it, compare it with the backup, and remove it. Nothing else is touched; controld may be running.",
	}
	file := cmd.Flags().String("passphrase-file", "", "file with the backup's passphrase, or - for standard input; default: ask")
	withConfig(cmd, func(ctx context.Context, cfg config, args []string) error {
		passphrase, err := backup.Passphrase(*file, os.Stdin, os.Stderr, false)
		if err != nil {
			return err
		}
		return drill(ctx, cfg, args[0], passphrase, os.Stdout)
	})
	return cmd
}

// drill restores a backup on trial. It ends between two steps when ctx does, and
// leaves nothing behind: what it makes holds the cluster's keys.
func drill(ctx context.Context, cfg config, file string, passphrase []byte, out io.Writer) (err error) {
	codec := api.NewCodec(kinds.Table(), 0)
	b, err := backup.ReadFile(file, passphrase, codec)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	before := b.State.Snapshot().Raw()
	room, err := takeDrillRoom(cfg.DataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, room.leave()) }()
	dir := filepath.Join(room.dir, "member")
	r, err := revive(cfg, b, netip.MustParseAddr("192.0.2.1"), dir, time.Now(), true) // an address of nobody
	if err != nil {
		return fmt.Errorf("backup %s: %w", file, err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	o, err := raftstore.OpenOffline(r.raftIn(dir), r.ID, r.Settings.ClusterID, codec, slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("what was restored on trial: %w", err)
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if err := ctx.Err(); err != nil {
		return err
	}
	own, err := r.keys.Agree()
	if err != nil {
		return err
	}
	// The keys come out of the state, as they will have to.
	keyring := cluster.NewKeyring(own, r.keys.Self().Key)
	keyring.Use(reader{o.State()})
	o.State().Use(keyring)
	opened, err := same(before, o.State().Snapshot())
	if err != nil {
		return fmt.Errorf("backup %s: restored on trial: %w", file, err)
	}
	if _, err := cluster.Authority(o.State().Snapshot()); err != nil {
		return fmt.Errorf("backup %s: restored on trial: %w", file, err)
	}
	_, err = fmt.Fprintf(out, "good: %d objects at revision %d of cluster %s, made %s; all %d sealed ones open\n",
		b.Objects, b.Revision, b.Cluster, b.Created.Format(time.RFC3339), opened)
	return err
}

// reader reads a state that nobody else has.
type reader struct{ mem *store.Mem }

// Snapshot implements store.Reader.
func (r reader) Snapshot(context.Context, store.At) (*store.Snapshot, error) {
	return r.mem.Snapshot(), nil
}

// same compares what was backed up with what came back, and opens what is
// sealed. Whom the cluster consists of is expected to differ.
func same(before, after *store.Snapshot) (opened int, err error) {
	raw := after.Raw()
	for resource := range before.Resources() {
		if resource == "identities.internal.wherry" || resource == "datakeys.internal.wherry" {
			continue
		}
		if a, b := before.Count(resource, ""), raw.Count(resource, ""); a != b {
			return 0, fmt.Errorf("there are %d %s, and were %d", b, resource, a)
		}
		for was := range before.Scan(resource, "", api.Key{}) {
			is, ok := raw.Get(was.Key)
			if !ok || is.Revision != was.Revision || is.UID != was.UID || !bytes.Equal(is.Full(), was.Full()) {
				return 0, fmt.Errorf("%s is not what it was", was.Key)
			}
			if !seal.Is(is.Bytes) {
				continue
			}
			if open, _ := after.Get(is.Key); seal.Is(open.Bytes) {
				return 0, fmt.Errorf("%s cannot be opened", is.Key)
			}
			opened++
		}
	}
	return opened, nil
}

// backupPart is keepBackups with the time that a drill needs to end.
func (d *controld) backupPart(e cluster.Recorder) daemon.Part {
	p := daemon.Ready("backups", d.keepBackups(e))
	p.Grace = daemon.Grace + drillEnds
	return p
}

// keepBackups makes the scheduled backups; it runs on the leader.
func (d *controld) keepBackups(events cluster.Recorder) func(context.Context) error {
	s := backup.Schedule{
		Dir: d.cfg.BackupDir, Every: d.cfg.BackupEvery.std(), Keep: d.cfg.BackupKeep, Host: d.member.Name,
		Passphrase: func() ([]byte, error) {
			b, err := backup.Passphrase(d.cfg.BackupPassphraseFile, os.Stdin, io.Discard, false)
			if err != nil {
				err = fmt.Errorf("backup-passphrase-file: %w", err)
			}
			return b, err
		},
		Source: d.cluster.Source, Drill: d.drillApart,
		Keeper:  &cluster.Report{Store: d.raft, Door: d.api.As(d.self()), Events: events},
		Metrics: d.backups, Now: time.Now, Log: d.log,
	}
	return s.Run
}

// self is this member as a user.
func (d *controld) self() api.User {
	r := pki.MemberRequest(d.member.Name, nil, nil)
	return api.User{Name: r.User, Groups: r.Groups}
}

// drillEnds is how long a drill may take to clean up when it is to end.
const drillEnds = 10 * time.Second

// drillApart tries a backup in a process of its own, whose memory is gone
// afterwards. When ctx ends it is asked to end, so that it cleans up.
func (d *controld) drillApart(ctx context.Context, file string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, exe, "drill", file, "--passphrase-file", d.cfg.BackupPassphraseFile, "--config", d.cfg.file,
		"--name", d.cfg.Name, "--data-dir", d.cfg.DataDir)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = drillEnds
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		text := strings.TrimPrefix(strings.TrimSpace(problem.String()), "controld: ")
		return "", fmt.Errorf("%w: %s", err, text)
	}
	return strings.TrimSpace(out.String()), nil
}
