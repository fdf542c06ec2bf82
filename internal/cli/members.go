package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

func (c *command) members(address *string) *cobra.Command {
	// Without a further word it lists them too.
	root := c.membersList(address, "members", "List the controlds; remove one, or have another lead")
	root.Example = "  wherry cluster members\n  wherry cluster members -o json\n  wherry cluster members remove c3\n  wherry cluster members transfer-leadership c2"
	list := c.membersList(address, "list", "List the controlds, with the leader among them")
	list.Example = "  wherry cluster members list\n  wherry cluster members list -o json"
	root.AddCommand(list, c.membersRemove(address), c.membersTransfer(address))
	return root
}

func (c *command) membersList(address *string, use, short string) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		Long: short + ".\n\nA learner has no vote yet: it gets one by itself as soon as it has caught up with the others.",
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

// memberID finds the id of a member by its name or id.
func memberID(ctx context.Context, client wherryv1.ClusterClient, name string) (string, error) {
	m, err := client.Members(ctx, &wherryv1.MembersRequest{})
	if err != nil {
		return "", err
	}
	var names []string
	for _, one := range m.GetMembers() {
		if one.GetName() == name || one.GetId() == name {
			return one.GetId(), nil
		}
		names = append(names, one.GetName())
	}
	return "", fmt.Errorf("no controld is named %q; there are %s", name, strings.Join(names, ", "))
}

func (c *command) membersRemove(address *string) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Take a controld out of the cluster", Args: cobra.ExactArgs(1),
		Long: "Take a controld out of the cluster. Its certificate is no good any more, and it votes no more; if it leads, another takes over first. " +
			"It is refused where the others could not go on.\n\n" +
			"A machine whose disk was lost needs no removal: `controld join` with its name takes its place.",
		Example: "  # c3 is gone for good\n  wherry cluster members remove c3",
		RunE: run(func(ctx context.Context, args []string) error {
			conn, err := c.connect(*address)
			if err != nil {
				return err
			}
			defer conn.Close()
			client := wherryv1.NewClusterClient(conn)
			id, err := memberID(ctx, client, args[0])
			if err != nil {
				return err
			}
			if _, err := client.RemoveMember(ctx, &wherryv1.RemoveMemberRequest{Id: id}); err != nil {
				return err
			}
			fmt.Fprintf(c.Out, "controld %s removed; stop it if it runs, and delete its data directory before it joins again\n", args[0])
			return nil
		}),
	}
}

func (c *command) membersTransfer(address *string) *cobra.Command {
	return &cobra.Command{
		Use: "transfer-leadership [NAME]", Short: "Have another controld lead", Args: cobra.MaximumNArgs(1),
		Long: "Have another controld lead: the one that is named, or any. A controld that is stopped in an orderly way does so by itself.",
		Example: "  # c1 is to be worked on\n  wherry cluster members transfer-leadership\n" +
			"  # to that one\n  wherry cluster members transfer-leadership c2",
		RunE: run(func(ctx context.Context, args []string) error {
			conn, err := c.connect(*address)
			if err != nil {
				return err
			}
			defer conn.Close()
			client := wherryv1.NewClusterClient(conn)
			r := &wherryv1.TransferLeadershipRequest{}
			to := "another controld"
			if len(args) == 1 {
				to = args[0]
				if r.Id, err = memberID(ctx, client, to); err != nil {
					return err
				}
			}
			if _, err := client.TransferLeadership(ctx, r); err != nil {
				return err
			}
			fmt.Fprintf(c.Out, "leadership goes to %s\n", to)
			return nil
		}),
	}
}
