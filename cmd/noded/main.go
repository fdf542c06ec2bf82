// Noded runs the pods of one machine.
//
//	noded join ADDRESS:7443[,ADDRESS…] --token-file FILE   enter a cluster, once
//	noded                                                  run, from then on
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/wherry-project/wherry/internal/daemon"
)

// version is set by the build.
var version = "unknown"

func main() {
	ctx, stop := daemon.Signals(context.Background())
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "noded:", err)
		os.Exit(1)
	}
}

// command is the command line.
func command() *cobra.Command {
	var c config
	root := &cobra.Command{
		Use: "noded", Short: "Run the pods of this machine", Version: version,
		Long:         "noded runs the pods that the cluster gives to this machine. Enter a cluster first: noded join.",
		SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.load(cmd.Flags(), false); err != nil {
				return err
			}
			return run(cmd.Context(), c)
		},
	}
	c.flags(root.PersistentFlags())
	var tokenFile string
	join := &cobra.Command{
		Use: "join ADDRESS:PORT[,ADDRESS:PORT…] --token-file FILE", Short: "Enter a cluster with a join token",
		Long: "join enters the cluster of the control plane at the given addresses and writes the node's identity.\n" +
			"Make a token on a machine with the admin's kubeconfig: wherry cluster token create --role node",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if tokenFile == "" {
				return errors.New("--token-file is missing: name a file that holds a join token (a token on a command line could be read by every user)")
			}
			if err := c.load(cmd.Flags(), true); err != nil {
				return err
			}
			return joinCluster(cmd.Context(), c, args[0], tokenFile)
		},
	}
	join.Flags().StringVar(&tokenFile, "token-file", "", "file that holds the join token")
	root.AddCommand(join)
	return root
}
