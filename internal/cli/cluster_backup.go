package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-project/wherry/internal/backup"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

func (c *command) backup(address *string) *cobra.Command {
	var passphraseFile string
	var force bool
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write the whole cluster into one encrypted file", Args: cobra.ExactArgs(1),
		Long: "Write the cluster's state, its CA and its keys into one file, encrypted with a passphrase. Whoever has both has the cluster, so keep them apart and away from it. " +
			"`controld restore` brings the cluster back from it, and `controld drill` tries whether it could.\n\nThe passphrase is asked for, or read from a file or from standard input; it never leaves this machine.",
		Example: "  wherry cluster backup cluster.wherry\n  pass show cluster | wherry cluster backup cluster.wherry --passphrase-file -",
		RunE: run(func(ctx context.Context, args []string) error {
			file := args[0]
			if _, err := os.Lstat(file); err == nil && !force {
				return fmt.Errorf("%s is there already: choose another name, or give --force to replace it", file)
			}
			in, ok := c.In.(*os.File)
			if !ok {
				in = os.Stdin
			}
			passphrase, err := backup.Passphrase(passphraseFile, in, c.ErrOut, true)
			if err != nil {
				return err
			}
			conn, err := c.connect(*address)
			if err != nil {
				return err
			}
			defer conn.Close()
			m, err := backup.Fetch(ctx, wherryv1.NewClusterClient(conn), file, passphrase)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.Out, "%s: %d objects of cluster %s at revision %d, as of %s\n", file, m.Objects, m.Cluster, m.Revision, m.Created.Format(time.RFC3339))
			return err
		}),
	}
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "file whose first line is the passphrase, or - for standard input; default: ask")
	cmd.Flags().BoolVar(&force, "force", false, "replace the file if it is there")
	return cmd
}

// local is a command that controld does itself, on the data of this machine,
// since it is for when no API answers.
func (c *command) local(name, use, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, DisableFlagParsing: true,
		Long: long + fmt.Sprintf("\n\nNo API answers when this is needed, so it works on the data of this machine: it starts `controld %s` with the same arguments. `controld %s --help` lists the flags.", name, name),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && (args[0] == "-h" || args[0] == "--help") {
				return cmd.Help()
			}
			exe, err := controld()
			if err != nil {
				return err
			}
			return syscall.Exec(exe, append([]string{"controld", name}, args...), os.Environ())
		},
	}
}

// controld finds the program: beside this one, or in the path.
func controld() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "controld")
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			return beside, nil
		}
	}
	exe, err := exec.LookPath("controld")
	if err != nil {
		return "", errors.New("controld is not on this machine: run this where the cluster's controld is, or is to be")
	}
	return exe, nil
}

func (c *command) restore() *cobra.Command {
	return c.local("restore", "restore FILE", "Bring the cluster back from a backup, on a blank machine",
		"Bring a cluster back from a backup when all its controlds are lost. This machine becomes its only controld.")
}

func (c *command) recover() *cobra.Command {
	return c.local("recover", "recover", "Go on with one controld when most are lost for ever",
		"Go on with this machine's controld alone when so many others are lost for ever that there is no majority. It shows what may be lost, and asks.")
}

func (c *command) rotateSealingKey(address *string) *cobra.Command {
	return &cobra.Command{
		Use: "rotate-sealing-key", Short: "Make a new key for what is sealed at rest", Args: cobra.NoArgs,
		Long: "Make a new key with which Secrets and the CA's key are sealed in the log, in snapshots and in their copies. The leader then seals anew what an older key holds. The removal of a controld does this by itself.",
		RunE: run(func(ctx context.Context, _ []string) error {
			conn, err := c.connect(*address)
			if err != nil {
				return err
			}
			defer conn.Close()
			r, err := wherryv1.NewClusterClient(conn).RotateSealingKey(ctx, &wherryv1.RotateSealingKeyRequest{})
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.Out, fmt.Sprintf("key %d seals from now on\n", r.GetKey()))
			return err
		}),
	}
}
