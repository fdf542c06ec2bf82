package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/raftstore"
)

func recoverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "recover", Short: "Go on with this machine alone, when most controlds are lost for ever", Args: cobra.NoArgs,
		Long: "Go on with this machine alone, when so many controlds are lost for ever that the others have no majority. It shows what this machine has and what may be lost, and asks. " +
			"controld must not be running here, and the lost ones must never come back with their data: they join anew with `controld join`, on data directories that are empty. " +
			"If there are several survivors, compare them with --show on each, recover the one with the highest entry, and let the others join anew too.",
		Example: "  systemctl stop controld && controld recover && systemctl start controld\n  controld recover --show",
	}
	yes := cmd.Flags().BoolP("yes", "y", false, "do it without asking")
	show := cmd.Flags().Bool("show", false, "show what this machine has, and change nothing")
	withConfig(cmd, func(ctx context.Context, cfg config, _ []string) error {
		return recoverMember(ctx, cfg, func() (bool, error) {
			switch {
			case *show:
				return false, nil
			case *yes:
				return true, nil
			}
			return agreed(os.Stdin, os.Stdout)
		}, os.Stdout)
	})
	return cmd
}

func agreed(in io.Reader, out io.Writer) (bool, error) {
	fmt.Fprint(out, "Go on with this member alone? [y/N] ")
	text, err := bufio.NewReader(io.LimitReader(in, 100)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	text = strings.ToLower(strings.TrimSpace(text))
	return text == "y" || text == "yes", nil
}

// recoverMember makes this member the only one, if ask says so.
func recoverMember(ctx context.Context, cfg config, ask func() (bool, error), out io.Writer) (err error) {
	m, keys, err := openMember(cfg.DataDir)
	if err != nil {
		return err
	}
	self, err := cfg.advertise(ctx)
	if err != nil {
		return err
	}
	own, err := keys.Agree()
	if err != nil {
		return err
	}
	dir := m.raftDir(cfg.DataDir)
	o, err := raftstore.OpenOffline(dir, m.ID, m.Settings.ClusterID, api.NewCodec(kinds.Table(), 0), slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("%w; if controld runs here, stop it first; nothing was changed", err)
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	keyring := cluster.NewKeyring(own, keys.Self().Key)
	o.State().Use(keyring)
	snap := o.State().Snapshot()
	survivor, known, err := cluster.Known(snap, keys.Self().Key)
	if err != nil {
		return err
	}
	if !known {
		return fmt.Errorf("the state on this machine does not know member %s: it was removed, or never got so far; recover another survivor, or restore a backup; nothing was changed", m.ID)
	}
	survivor.Member, survivor.Public = m.ID, keys.PublicDER()
	alone, _, err := cluster.Alone(snap, keyring, survivor)
	if err != nil {
		return err
	}
	if err := tell(out, o, m, snap.Revision()); err != nil {
		return err
	}
	revision, err := cluster.RevivedRevision(snap.Revision(), time.Now(), keys.Leaf().NotBefore)
	if err != nil {
		return err
	}
	if ok, err := ask(); err != nil || !ok {
		fmt.Fprintln(out, "nothing was changed")
		return err
	}
	if _, err := o.State().Apply(alone); err != nil {
		return err
	}
	o.State().Jump(revision)
	if err := o.StandAlone(m.ID, cfg.grpcAddress(self)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "done: member %s is the cluster now; revisions go on from %d\nnext: start controld here; then empty the others' data directories and let them join anew with a token of `wherry cluster token create --role control`\n", m.ID, revision)
	return err
}

// tell says what the survivor has, and what may be lost. It refuses a member
// that needs no help.
func tell(out io.Writer, o *raftstore.Offline, m member, revision uint64) error {
	var dropped []string
	voters, votes := 0, false
	for _, one := range o.Members() {
		if one.Voter {
			voters++
		}
		if one.ID == m.ID {
			votes = one.Voter
		} else {
			dropped = append(dropped, fmt.Sprintf("%s (%s)", one.ID, one.Address))
		}
	}
	if len(dropped) == 0 {
		return fmt.Errorf("member %s is the only one of its cluster already: there is nothing to recover, start controld; nothing was changed", m.ID)
	}
	index, term := o.Last()
	fmt.Fprintf(out, "cluster:        %s\nthis member:    %s\nlast entry:     %d of term %d, revision %d\nwill be dropped: %s\n", m.Settings.ClusterID, m.ID, index, term, revision, list(dropped))
	if !votes {
		fmt.Fprintln(out, "this member had no vote yet: it may be far behind the lost ones")
	}
	if majority := voters/2 + 1; majority > 1 {
		fmt.Fprintf(out, "lost may be:    whatever %d of the %d voters acknowledged after that entry, without this one\n", majority, voters)
	}
	return nil
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
