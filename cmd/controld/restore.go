package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/backup"
	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/raftstore"
)

func restoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Bring a cluster back from a backup, on a machine without data", Args: cobra.ExactArgs(1),
		Long: "Bring a cluster back from a backup of `wherry cluster backup`, when all its controlds are lost. This machine becomes its only controld, with the state, the CA and the keys of the backup; nothing is started. " +
			"Nodes come back by themselves if they find this machine under an address or name of a former controld. The other controlds join anew with `controld join`, on data directories that are empty. " +
			"Run it on one machine only, and never while any controld of the cluster lives. It refuses where data is.",
		Example: "  controld restore backup.wherry && controld\n  controld restore backup.wherry --passphrase-file -",
	}
	file := cmd.Flags().String("passphrase-file", "", "file with the backup's passphrase, or - for standard input; default: ask")
	admin := cmd.Flags().String("admin-kubeconfig", "/etc/wherry/admin.kubeconfig", "file to write an administrator's kubeconfig to, unless it is there")
	withConfig(cmd, func(ctx context.Context, cfg config, args []string) error {
		if err := refuseData(cfg.DataDir); err != nil {
			return err
		}
		if _, err := backup.Peek(args[0]); err != nil {
			return err
		}
		passphrase, err := backup.Passphrase(*file, os.Stdin, os.Stderr, false)
		if err != nil {
			return err
		}
		return restore(ctx, cfg, args[0], passphrase, *admin, os.Stdout)
	})
	return cmd
}

// restore prepares a member that stands alone with the state of a backup.
func restore(ctx context.Context, cfg config, file string, passphrase []byte, adminFile string, out io.Writer) error {
	if err := refuseData(cfg.DataDir); err != nil {
		return err
	}
	b, err := backup.ReadFile(file, passphrase, api.NewCodec(kinds.Table(), 0))
	if err != nil {
		return err
	}
	keyring := cluster.OpenKeyring(b.Keys)
	b.State.Use(keyring)
	snap := b.State.Snapshot()
	m := member{Name: cfg.Name}
	if m.Settings, err = cluster.ReadSettings(snap); err != nil {
		return fmt.Errorf("backup %s: %w", file, err)
	}
	if err := cfg.fixed(m.Settings); err != nil {
		return err
	}
	ca, err := cluster.Authority(snap)
	if err != nil {
		return fmt.Errorf("backup %s: %w", file, err)
	}
	if m.ID, err = cluster.NewMemberID(cfg.Name); err != nil {
		return err
	}
	self, err := cfg.advertise(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	revision, err := cluster.RevivedRevision(b.Revision, now, b.Created)
	if err != nil {
		return err
	}
	dir := prepareDir(cfg.DataDir)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return err
	}
	names, addrs := cfg.wanted(self)
	names, addrs = pki.ServerNames(names, addrs, m.Settings.FirstService(), m.Settings.Domain)
	keys, err := newIdentity(filepath.Join(dir, "identity"), ca, pki.MemberRequest(m.Name, names, addrs), now)
	if err != nil {
		return err
	}
	founder := cluster.Founder{Name: m.Name, Member: m.ID, Key: keys.Self().Key, Public: keys.PublicDER(), Names: names, Addresses: addrs}
	alone, others, err := cluster.Alone(snap, keyring, founder)
	if err != nil {
		return fmt.Errorf("backup %s: %w", file, err)
	}
	if _, err := b.State.Apply(alone); err != nil {
		return fmt.Errorf("backup %s: %w", file, err)
	}
	b.State.Jump(revision)
	if err := raftstore.Install(filepath.Join(dir, "raft"), m.ID, m.Settings.ClusterID, cfg.grpcAddress(self), b.State, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	wrote, err := writeAdmin(adminFile, ca, cfg.server(self), now)
	if err != nil {
		return err
	}
	if err := cfg.writeIfMissing(); err != nil {
		return err
	}
	if err := m.save(cfg.DataDir); err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster %s restored: %d objects as of %s (revision %d); revisions go on from %d\n",
		b.Cluster, b.Objects, b.Created.Format(time.RFC3339), b.Revision, revision)
	if wrote {
		fmt.Fprintf(out, "an administrator's kubeconfig is %s\n", adminFile)
	}
	_, err = fmt.Fprintf(out, "next: start controld; then let the other controlds (there were %s) join anew with a token of `wherry cluster token create --role control`\n", list(others))
	return err
}

// writeAdmin writes an administrator's kubeconfig where there is none.
func writeAdmin(file string, ca *pki.Authority, server string, now time.Time) (bool, error) {
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	kubeconfig, err := adminKubeconfig(ca, server, now)
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return false, err
	}
	return true, pki.WriteFile(file, kubeconfig, 0o600)
}
