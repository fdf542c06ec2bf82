package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

func (c *command) nodes(address *string) *cobra.Command {
	root := &cobra.Command{
		Use: "nodes", Short: "Take nodes out of the cluster",
		Long:    "Take nodes out of the cluster. `wherry get nodes` lists them, and a token of `wherry cluster token create --role node` lets them in.",
		Example: "  wherry cluster nodes remove n3",
	}
	root.AddCommand(c.nodesRemove(address))
	return root
}

func (c *command) nodesRemove(address *string) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Take a node out of the cluster for good", Args: cobra.ExactArgs(1),
		Long: "Take a node out of the cluster for good: its certificate is worth nothing from now on, its session ends at once, and its Node is deleted, and with it its pods. " +
			"Drain it first if it still works.\n\n" +
			"`wherry delete node` deletes the Node alone: the machine is still trusted, and registers again as soon as it can.",
		Example: "  # n3 is to be given away\n  wherry drain n3 --ignore-daemonsets\n  wherry cluster nodes remove n3\n\n  # n4 was stolen\n  wherry cluster nodes remove n4",
		RunE: run(func(ctx context.Context, args []string) error {
			conn, err := c.connect(*address)
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err := wherryv1.NewClusterClient(conn).RemoveNode(ctx, &wherryv1.RemoveNodeRequest{Name: args[0]}); err != nil {
				return err
			}
			fmt.Fprintf(c.Out, "node %s removed; stop noded there if it runs, and delete its data directory before it joins again\n", args[0])
			return nil
		}),
	}
}

func (c *command) rotateTokenKey(address *string) *cobra.Command {
	return &cobra.Command{
		Use: "rotate-token-key", Short: "Make a new key for the tokens of service accounts", Args: cobra.NoArgs,
		Long: "Make a new key that signs the tokens of service accounts from now on. Tokens that an older key signed are good until they end, so nothing has to be started anew; the older key is forgotten by a later rotation when none of its tokens can be left, a year after it was replaced.",
		RunE: run(func(ctx context.Context, _ []string) error {
			conn, err := c.connect(*address)
			if err != nil {
				return err
			}
			defer conn.Close()
			r, err := wherryv1.NewClusterClient(conn).RotateTokenKey(ctx, &wherryv1.RotateTokenKeyRequest{})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.Out, "key %s signs from now on; %d keys are believed\n", r.GetKey(), r.GetBelieved())
			return nil
		}),
	}
}
