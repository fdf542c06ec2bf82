package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
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
		return fmt.Errorf("%w; nothing was changed", err)
	}
	self, err := cfg.advertise(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	r, err := revive(cfg, b, self, prepareDir(cfg.DataDir), now, false)
	if err != nil {
		return fmt.Errorf("backup %s: %w", file, err)
	}
	wrote, err := writeAdmin(adminFile, r.ca, cfg.server(self), now)
	if err != nil {
		return err
	}
	if err := cfg.writeIfMissing(); err != nil {
		return err
	}
	if err := r.save(cfg.DataDir); err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster %s restored: %d objects as of %s (revision %d); revisions go on from %d\n",
		b.Cluster, b.Objects, b.Created.Format(time.RFC3339), b.Revision, r.revision)
	if wrote {
		fmt.Fprintf(out, "an administrator's kubeconfig is %s\n", adminFile)
	}
	_, err = fmt.Fprintf(out, "next: start controld; then let the other controlds (there were %s) join anew with a token of `wherry cluster token create --role control`\n", list(r.others))
	return err
}

// revived is a member that was made out of a backup.
type revived struct {
	member
	ca       *pki.Authority
	keys     *pki.KeyPair
	revision uint64
	others   []string // of the former members, by name
}

// revive makes a member's folder out of a backup: an identity of its own under
// the cluster's CA, and a Raft of one with the state. On trial the identity is
// of a CA that nobody trusts.
func revive(cfg config, b *backup.Backup, self netip.Addr, dir string, now time.Time, trial bool) (r revived, err error) {
	keyring := cluster.OpenKeyring(b.Keys)
	b.State.Use(keyring)
	snap := b.State.Snapshot()
	r.Name = cfg.Name
	if r.Settings, err = cluster.ReadSettings(snap); err != nil {
		return r, err
	}
	if err := cfg.fixed(r.Settings); err != nil {
		return r, err
	}
	if r.ca, err = cluster.Authority(snap); err != nil {
		return r, err
	}
	if r.ID, err = cluster.NewMemberID(cfg.Name); err != nil {
		return r, err
	}
	if r.revision, err = cluster.RevivedRevision(b.Revision, now, b.Created); err != nil {
		return r, err
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return r, err
	}
	signer := r.ca
	if trial {
		if signer, err = pki.NewAuthority("trial", now); err != nil {
			return r, err
		}
	}
	names, addrs := cfg.wanted(self)
	names, addrs = pki.ServerNames(names, addrs, r.Settings.FirstService(), r.Settings.Domain)
	if r.keys, err = newIdentity(filepath.Join(dir, "identity"), signer, pki.MemberRequest(r.Name, names, addrs), now); err != nil {
		return r, err
	}
	founder := cluster.Founder{Name: r.Name, Member: r.ID, Key: r.keys.Self().Key, Public: r.keys.PublicDER(), Names: names, Addresses: addrs}
	alone, others, err := cluster.Alone(snap, keyring, founder)
	if err != nil {
		return r, err
	}
	r.others = others
	if _, err := b.State.Apply(alone); err != nil {
		return r, err
	}
	b.State.Jump(r.revision)
	return r, raftstore.Install(r.raftIn(dir), r.ID, r.Settings.ClusterID, cfg.grpcAddress(self), b.State, slog.New(slog.DiscardHandler))
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
