package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

func (c *command) cluster() *cobra.Command {
	var address string
	root := &cobra.Command{
		Use: "cluster", Short: "Ask about the cluster itself, and let machines join it",
		Long: "Ask about the cluster itself, and let machines join it.\n\nThese commands speak gRPC to a controld, on port 7443 of the kubeconfig's server, with the kubeconfig's user.",
	}
	root.PersistentFlags().StringVar(&address, "grpc-address", "", "HOST:PORT of a controld's gRPC; default: port 7443 of the kubeconfig's server")
	token := &cobra.Command{Use: "token", Short: "Make tokens with which machines join"}
	token.AddCommand(c.tokenCreate(&address))
	root.AddCommand(token, c.members(&address), c.nodes(&address), c.backup(&address), c.restore(), c.recover(), c.rotateSealingKey(&address), c.rotateTokenKey(&address))
	return root
}

func (c *command) tokenCreate(address *string) *cobra.Command {
	var role string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "create --role node|control", Short: "Make a join token and print it", Args: cobra.NoArgs,
		Long: "Make a token that lets machines of one role join until it expires. It carries the hash of the cluster's CA, so a joining machine knows that it speaks to the right cluster. Keep it secret: who has it can join.",
		Example: "  # Let a machine become a node\n  wherry cluster token create --role node >token\n" +
			"  noded join CONTROL:7443 --token-file token",
		RunE: run(func(ctx context.Context, _ []string) error {
			roles := map[string]wherryv1.Role{"node": wherryv1.Role_ROLE_NODE, "control": wherryv1.Role_ROLE_CONTROL}
			r, ok := roles[role]
			if !ok {
				return fmt.Errorf("--role is node or control, not %q", role)
			}
			if ttl < time.Second {
				return fmt.Errorf("--ttl is a time such as 30m or 24h, not %v", ttl)
			}
			conn, err := c.connect(*address)
			if err != nil {
				return err
			}
			defer conn.Close()
			t, err := wherryv1.NewClusterClient(conn).CreateToken(ctx, &wherryv1.CreateTokenRequest{Role: r, TtlSeconds: int64(ttl / time.Second)})
			if err != nil {
				return err
			}
			fmt.Fprintln(c.Out, t.GetToken())
			fmt.Fprintf(c.ErrOut, "a token for a %s, good until %s\n", role, t.GetExpires())
			return nil
		}),
	}
	cmd.Flags().StringVar(&role, "role", "", "what the machine will be: node or control")
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "how long the token can be used")
	return cmd
}
