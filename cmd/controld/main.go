// Command controld is the control plane: the cluster's state, the API, the
// controllers, the scheduler, the CA. It is one of one, three or five.
package main

import (
	"context"
	"fmt"
	"os"
	"time"
	_ "time/tzdata" // the time zones of cron jobs, whatever the machine has

	"github.com/spf13/cobra"

	"github.com/wherry-project/wherry/internal/daemon"
	"github.com/wherry-project/wherry/internal/heap"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, stop := daemon.Signals(context.Background())
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "controld:", err)
		os.Exit(1)
	}
}

// command is the daemon itself, and what is done before it first starts.
func command() *cobra.Command {
	root := &cobra.Command{
		Use: "controld", Short: "Run the control plane of a cluster",
		Long: "Run the control plane of a cluster.\n\n`controld init` makes a new cluster and `controld join` enters one; afterwards `controld` runs until SIGTERM. " +
			"Settings are read from --config; each has a flag of the same name, which goes before.",
		Example: "  controld init && controld\n  controld join 10.0.0.1:7443 --token-file token && controld",
		Args:    cobra.NoArgs, SilenceUsage: true, SilenceErrors: true, Version: version,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	withConfig(root, func(ctx context.Context, cfg config, _ []string) error {
		if os.Getenv("GOGC") == "" {
			go heap.Keep(ctx, heap.Config{Percent: 100, Room: 48 << 20, Every: 5 * time.Second, Rest: 8 << 20})
		}
		return run(ctx, cfg)
	})
	root.AddCommand(initCommand(), joinCommand(), restoreCommand(), drillCommand(), recoverCommand())
	return root
}

func initCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "init", Short: "Make a new cluster, of which this machine is the first", Args: cobra.NoArgs,
		Long: "Make a new cluster, of which this machine is the first, and write the kubeconfig of its administrator. Nothing is started. It refuses where a cluster's data is.",
	}
	admin := cmd.Flags().String("admin-kubeconfig", "/etc/wherry/admin.kubeconfig", "file to write the administrator's kubeconfig to")
	withConfig(cmd, func(ctx context.Context, cfg config, _ []string) error {
		return initCluster(ctx, cfg, *admin, os.Stdout)
	})
	return cmd
}

func joinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "join ADDRESS:7443[,ADDRESS…] --token-file FILE", Short: "Make this machine a member of a cluster", Args: cobra.ExactArgs(1),
		Long:    "Make this machine a member of the cluster that the token is for. It gets its identity now and its share of the state when `controld` is started. It refuses where a cluster's data is.",
		Example: "  wherry cluster token create --role control >token\n  controld join 10.0.0.1:7443 --token-file token",
	}
	token := cmd.Flags().String("token-file", "", "file with the token that `wherry cluster token create --role control` printed")
	withConfig(cmd, func(ctx context.Context, cfg config, args []string) error {
		return joinCluster(ctx, cfg, args[0], *token, os.Stdout)
	})
	return cmd
}
