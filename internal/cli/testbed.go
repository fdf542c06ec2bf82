package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-project/wherry/internal/testbed"
)

// testbedFlags are those of all testbed commands.
type testbedFlags struct {
	name, dir string
	quiet     bool
}

func (c *command) testbed() *cobra.Command {
	f := &testbedFlags{}
	root := &cobra.Command{
		Use: "testbed", Short: "Make a cluster of hosts on this machine, and break it on demand",
		Long: `Make a cluster of hosts on this machine, and break it on demand.

A host is a set of namespaces with /run, /etc, /var and /root/.kube of its own and a
cable to a switch that no other network reaches. Hosts c1, c2 … run controld, n1, n2 …
run noded, and client has the admin's kubeconfig. Nothing of it touches this machine's
network, and down removes all of it. Needs root.`,
		Example: `  # Three controls, two nodes, ready to use
  wherry testbed up

  # Use it
  wherry testbed exec client -- wherry get nodes
  wherry testbed load web.tar

  # Break it
  wherry testbed kill c1
  wherry testbed power-off n2
  wherry testbed cut n1

  # Mend it, then remove it
  wherry testbed start c1
  wherry testbed power-on n2
  wherry testbed heal n1
  wherry testbed down`,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&f.name, "name", testbed.DefaultName, "the testbed's name")
	flags.StringVar(&f.dir, "testbed-dir", defaultDir(), "where testbeds are kept ($WHERRY_TESTBED_DIR)")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "do not tell the steps")
	root.AddCommand(
		c.testbedUp(f), c.testbedDown(f), c.testbedStatus(f), c.testbedExec(f), c.testbedLogs(f),
		c.onDaemon(f, "start", "Start a host's daemon and wait until it is ready", (*testbed.Testbed).Start),
		c.onDaemon(f, "stop", "End a host's daemon by SIGTERM and wait for its end", (*testbed.Testbed).Stop),
		c.onDaemon(f, "kill", "End a host's daemon by SIGKILL", (*testbed.Testbed).Kill),
		c.onHost(f, "power-off", "Pull a host's plug: everything in it dies at once", (*testbed.Testbed).PowerOff),
		c.onHost(f, "power-on", "Start a host that is off, with its daemon", (*testbed.Testbed).PowerOn),
		c.onHost(f, "cut", "Take a host off the network", (*testbed.Testbed).Cut),
		c.onHost(f, "heal", "Put a host back on the network", (*testbed.Testbed).Heal),
		c.testbedAdd(f), c.testbedLoad(f),
	)
	return root
}

// open finds the testbed, and lets it tell its steps on stderr.
func (c *command) open(f *testbedFlags) (*testbed.Testbed, error) {
	t, err := testbed.Open(f.dir, f.name)
	if err != nil {
		return nil, err
	}
	return t.WithProgress(c.steps(f)), nil
}

func (c *command) steps(f *testbedFlags) func(string) {
	begun := time.Now()
	return func(step string) {
		if !f.quiet {
			fmt.Fprintf(c.ErrOut, "%6.2fs  %s\n", time.Since(begun).Seconds(), step)
		}
	}
}

func (c *command) testbedUp(f *testbedFlags) *cobra.Command {
	o := testbed.Options{}
	cmd := &cobra.Command{
		Use: "up", Short: "Make a testbed; returns when all its nodes are Ready", Args: cobra.NoArgs,
		Example: "  wherry testbed up\n  wherry testbed up --name small --controls 1 --nodes 1",
		RunE: run(func(ctx context.Context, _ []string) error {
			o.Name, o.Dir, o.Progress = f.name, f.dir, c.steps(f)
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o.Init, o.Bin = self, cmp.Or(o.Bin, filepath.Dir(self))
			t, err := testbed.Up(ctx, o)
			if err != nil {
				if t != nil {
					return fmt.Errorf("%w\nWhat was made is left to be looked at; `wherry testbed down --name %s` removes it", err, f.name)
				}
				return err
			}
			fmt.Fprintf(c.Out, "testbed %s is up: `wherry testbed exec %sclient -- wherry get nodes`\n", f.name, sameFlags(f))
			return nil
		}),
	}
	cmd.Flags().IntVar(&o.Controls, "controls", 3, "how many hosts run controld")
	cmd.Flags().IntVar(&o.Nodes, "nodes", 2, "how many hosts run noded")
	cmd.Flags().StringVar(&o.Bin, "bin", "", "folder of controld, noded, podshim, podrun and wherry; default: this program's")
	cmd.Flags().DurationVar(&o.ReadyTimeout, "timeout", 90*time.Second, "how long to wait for each daemon and for the nodes")
	cmd.Flags().BoolVar(&o.HostsOnly, "hosts-only", false, "make the hosts, but no cluster on them")
	return cmd
}

// sameFlags are those with which other commands find the same testbed.
func sameFlags(f *testbedFlags) string {
	flags := ""
	if f.dir != defaultDir() {
		flags = "--testbed-dir " + f.dir + " "
	}
	if f.name != testbed.DefaultName {
		flags += "--name " + f.name + " "
	}
	return flags
}

func defaultDir() string { return cmp.Or(os.Getenv("WHERRY_TESTBED_DIR"), testbed.DefaultDir) }

func (c *command) testbedDown(f *testbedFlags) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "down", Short: "Remove a testbed and all in it, whatever state it is in", Args: cobra.NoArgs,
		RunE: run(func(ctx context.Context, _ []string) error {
			known, err := testbed.Names(f.dir)
			if err != nil {
				return err
			}
			names := []string{f.name}
			if all {
				names = known
			}
			for _, name := range names {
				if err := testbed.Down(ctx, f.dir, name); err != nil {
					return err
				}
				if slices.Contains(known, name) {
					fmt.Fprintf(c.Out, "testbed %s is down\n", name)
				} else { // perhaps one whose folder was lost, so Down has looked all the same
					fmt.Fprintf(c.Out, "there was no testbed %q in %s; there are: %v\n", name, f.dir, known)
				}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "remove every testbed")
	return cmd
}

func (c *command) testbedStatus(f *testbedFlags) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "status", Short: "Show the hosts and their daemons", Args: cobra.NoArgs,
		RunE: run(func(ctx context.Context, _ []string) error {
			t, err := c.open(f)
			if err != nil {
				return err
			}
			hosts, err := t.Status(ctx)
			if err != nil {
				return err
			}
			switch output {
			case "json":
				return c.printJSON(hosts)
			case "":
				return c.printHosts(hosts)
			}
			return fmt.Errorf("--output is json or nothing, not %q", output)
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table")
	return cmd
}

func (c *command) printHosts(hosts []testbed.HostStatus) error {
	w := tabwriter.NewWriter(c.Out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "HOST\tADDRESS\tPOWER\tNETWORK\tDAEMON\tPID\tPROCESSES")
	for _, h := range hosts {
		power, network := "on", "joined"
		if !h.On {
			power = "off"
		}
		if h.Cut {
			network = "cut"
		}
		daemon, pid := daemonState(h), ""
		if h.MachinePid != 0 {
			pid = fmt.Sprint(h.MachinePid)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\n", h.Name, h.Address, power, network, daemon, pid, h.Processes)
	}
	return w.Flush()
}

func daemonState(h testbed.HostStatus) string {
	var out []string
	for _, d := range h.Daemons {
		switch age := time.Since(d.Since).Round(time.Second); {
		case d.Ready:
			out = append(out, fmt.Sprintf("%s ready, started %v ago", d.Name, age))
		case d.Running:
			out = append(out, fmt.Sprintf("%s starting for %v", d.Name, age))
		default:
			out = append(out, fmt.Sprintf("%s ended %s %v ago", d.Name, d.Exit, age))
		}
	}
	return strings.Join(out, "; ")
}

func (c *command) testbedExec(f *testbedFlags) *cobra.Command {
	return &cobra.Command{
		Use: "exec HOST -- COMMAND…", Short: "Run a command in a host", Args: cobra.MinimumNArgs(2),
		Long:    "Run a command in a host, in the same folder if the host has it. Input, output, terminal and exit code are passed on; the environment is the host's.",
		Example: "  wherry testbed exec client -- wherry apply -f web.yaml\n  wherry testbed exec n1 -- bash",
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := c.open(f)
			if err != nil {
				return err
			}
			// The terminal sends an interrupt to the command too; it decides.
			quiet := make(chan os.Signal, 1)
			signal.Notify(quiet, os.Interrupt, syscall.SIGQUIT)
			defer signal.Stop(quiet)
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			dir, _ := os.Getwd()
			var env []string
			if term := os.Getenv("TERM"); term != "" {
				env = append(env, "TERM="+term)
			}
			err = t.Run(ctx, args[0], testbed.Command{Argv: args[1:], Env: env, Dir: dir, Stdin: c.In, Stdout: c.Out, Stderr: c.ErrOut})
			if exit := (*testbed.ExitError)(nil); errors.As(err, &exit) {
				return exitCode(exit.Code) // the command has said why
			}
			return err
		},
	}
}

// exitCode ends the process with a command's code and no words.
type exitCode int

// Error is empty: nothing is printed.
func (exitCode) Error() string { return "" }

// String is as Error.
func (exitCode) String() string { return "" }

// Exited reports that there is a code.
func (exitCode) Exited() bool { return true }

// ExitStatus is the code.
func (e exitCode) ExitStatus() int { return int(e) }

func (c *command) testbedLogs(f *testbedFlags) *cobra.Command {
	return &cobra.Command{
		Use: "logs HOST", Short: "Print what a host's daemon has logged", Args: cobra.ExactArgs(1),
		RunE: run(func(_ context.Context, args []string) error {
			t, err := c.open(f)
			if err != nil {
				return err
			}
			return t.Logs(args[0], c.Out)
		}),
	}
}

func (c *command) onDaemon(f *testbedFlags, verb, short string, do func(*testbed.Testbed, context.Context, string, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " HOST [controld|noded]", Short: short, Args: cobra.RangeArgs(1, 2),
		RunE: run(func(ctx context.Context, args []string) error {
			t, err := c.open(f)
			if err != nil {
				return err
			}
			return do(t, ctx, args[0], strings.Join(args[1:], ""))
		}),
	}
}

func (c *command) onHost(f *testbedFlags, verb, short string, do func(*testbed.Testbed, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " HOST…", Short: short, Args: cobra.MinimumNArgs(1),
		RunE: run(func(ctx context.Context, hosts []string) error {
			t, err := c.open(f)
			if err != nil {
				return err
			}
			for _, h := range hosts {
				if err := do(t, ctx, h); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func (c *command) testbedAdd(f *testbedFlags) *cobra.Command {
	return &cobra.Command{
		Use: "add control|node", Short: "Make another host and join it to the cluster", Args: cobra.ExactArgs(1),
		ValidArgs: []string{string(testbed.RoleControl), string(testbed.RoleNode)},
		RunE: run(func(ctx context.Context, args []string) error {
			role := testbed.Role(args[0])
			if role.Daemon() == "" {
				return fmt.Errorf("a host is a control or a node, not %q", args[0])
			}
			t, err := c.open(f)
			if err != nil {
				return err
			}
			m, err := t.Add(ctx, role)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.Out, "host %s has joined\n", m.Name)
			return nil
		}),
	}
}

func (c *command) testbedLoad(f *testbedFlags) *cobra.Command {
	return &cobra.Command{
		Use: "load IMAGE.tar…", Short: "Load images from archives onto every node", Args: cobra.MinimumNArgs(1),
		Long: "Load images from archives (an OCI layout in a tar file, or what `docker save` writes; all tags in it) onto every node.",
		RunE: run(func(ctx context.Context, files []string) error {
			t, err := c.open(f)
			if err != nil {
				return err
			}
			return t.Load(ctx, files...)
		}),
	}
}
