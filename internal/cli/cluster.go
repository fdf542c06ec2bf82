package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
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
	root.AddCommand(token, c.members(&address))
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

func (c *command) members(address *string) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "members", Short: "List the controlds, with the leader among them", Args: cobra.NoArgs,
		Example: "  wherry cluster members\n  wherry cluster members -o json",
		RunE: run(func(ctx context.Context, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("--output is json or nothing, not %q", output)
			}
			conn, err := c.connect(*address)
			if err != nil {
				return err
			}
			defer conn.Close()
			m, err := wherryv1.NewClusterClient(conn).Members(ctx, &wherryv1.MembersRequest{})
			if err != nil {
				return err
			}
			if output == "json" {
				return c.printJSON(m)
			}
			w := tabwriter.NewWriter(c.Out, 0, 8, 3, ' ', 0)
			fmt.Fprintln(w, "NAME\tSTATUS\tROLE\tADDRESS\tID")
			for _, one := range m.GetMembers() {
				fmt.Fprintln(w, strings.Join([]string{one.GetName(), memberStatus(one), memberRole(one), one.GetAddress(), one.GetId()}, "\t"))
			}
			return w.Flush()
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table")
	return cmd
}

func memberStatus(m *wherryv1.Member) string {
	if m.GetReachable() {
		return "Ready"
	}
	return "NotReachable"
}

func memberRole(m *wherryv1.Member) string {
	switch {
	case m.GetLeader():
		return "leader"
	case m.GetVoter():
		return "follower"
	}
	return "learner"
}
