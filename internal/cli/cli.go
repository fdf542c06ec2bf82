// Package cli is the command wherry: every command of kubectl, from
// k8s.io/kubectl, and the cluster's own. kubectl's rules hold for all of them:
// which kubeconfig is read, how errors are told, which code the process ends
// with.
package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	componentcli "k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/templates"
)

// AdminKubeconfig is read where no other kubeconfig is named or found: the one
// that `controld init` writes.
const AdminKubeconfig = "/etc/wherry/admin.kubeconfig"

// Main runs the command line of the program of that version and does not
// return: kubectl's commands end the process with their own codes.
func Main(version string, args []string) {
	if path := fallback(os.Getenv, AdminKubeconfig); path != "" {
		os.Setenv("KUBECONFIG", path) // the one place that all of kubectl's commands look at
	}
	// As kubectl's main does: the level of -v counts while commands are built.
	logs.GlogSetter(cmd.GetLogVerbosity(args)) //nolint:errcheck // a wrong level is told by the flag itself
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	cmdutil.CheckErr(componentcli.RunNoErrOutput(New(version, streams, args)))
	os.Exit(0)
}

// fallback returns the admin's kubeconfig if kubectl would find none.
func fallback(getenv func(string) string, admin string) string {
	if getenv("KUBECONFIG") != "" {
		return ""
	}
	if _, err := os.Stat(filepath.Join(getenv("HOME"), ".kube", "config")); err == nil {
		return ""
	}
	f, err := os.Open(admin)
	if err != nil {
		return "" // not there, or not for this user
	}
	f.Close()
	return admin
}

// New returns the command for args, of which the first is the program's name.
func New(version string, streams genericiooptions.IOStreams, args []string) *cobra.Command {
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().
		WithDiscoveryBurst(300).WithDiscoveryQPS(50).WithWarningPrinter(streams)
	options := cmd.KubectlOptions{Arguments: args, ConfigFlags: flags, IOStreams: streams}
	if len(args) > 1 && !own(args[1]) { // a plugin may not take the place of a command of ours
		options.PluginHandler = cmd.NewDefaultPluginHandler(append([]string{"wherry"}, plugin.ValidPluginFilenamePrefixes...))
	}
	root := cmd.NewDefaultKubectlCommandWithArgs(options)
	rebrand(root)
	root.Use = "wherry"
	root.Short = "wherry controls a Wherry cluster"
	root.Long = "wherry controls a Wherry cluster: all of kubectl's commands, and the cluster's own."
	c := &command{IOStreams: streams, flags: flags}
	groups := templates.CommandGroups{{Message: "Wherry's Own Commands:", Commands: []*cobra.Command{
		c.cluster(), c.image(), c.testbed(),
	}}}
	for _, own := range groups[0].Commands {
		showInherited(own)
	}
	groups.Add(root)
	addVersion(root, version, streams)
	showFirst(root, groups)
	return root
}

func own(name string) bool { return name == "cluster" || name == "image" || name == "testbed" }

// command is what the cluster's own commands share.
type command struct {
	genericiooptions.IOStreams
	flags *genericclioptions.ConfigFlags
}

// run makes a cobra RunE whose ctx ends with an interrupt. kubectl's commands
// keep the signal's usual effect, so this is not done for all in main.
func run(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return explain(f(ctx, args))
	}
}

var (
	word   = regexp.MustCompile("(^|[\\s`'\"(])kubectl([ `'\")]|$)")
	mended = "${1}wherry${2}"
)

// rebrand lets examples and help texts name the program that the reader has.
func rebrand(c *cobra.Command) {
	c.Long = word.ReplaceAllString(c.Long, mended)
	c.Example = word.ReplaceAllString(c.Example, mended)
	usage := func(f *pflag.Flag) { f.Usage = word.ReplaceAllString(f.Usage, mended) }
	c.Flags().VisitAll(usage)
	c.PersistentFlags().VisitAll(usage)
	for _, sub := range c.Commands() {
		rebrand(sub)
	}
}

// showInherited lets the help of each command below root tell the flags that
// all of them take: kubectl's template leaves out those of a parent.
func showInherited(root *cobra.Command) {
	for _, sub := range root.Commands() {
		sub.DisableFlagsInUseLine = true // the template says [options]
		root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
			if shown := *f; sub.HasSubCommands() {
				sub.PersistentFlags().AddFlag(&shown)
			} else {
				sub.Flags().AddFlag(&shown)
			}
		})
		showInherited(sub)
	}
}

// showFirst puts groups before kubectl's in the help of root.
func showFirst(root *cobra.Command, groups templates.CommandGroups) {
	help := root.HelpFunc()
	root.SetHelpFunc(func(c *cobra.Command, args []string) {
		if c == root {
			fmt.Fprintln(c.OutOrStdout(), root.Long)
			for _, g := range groups {
				fmt.Fprintf(c.OutOrStdout(), "\n%s\n", g.Message)
				for _, sub := range g.Commands {
					fmt.Fprintf(c.OutOrStdout(), "  %-15s %s\n", sub.Name(), sub.Short)
				}
			}
			fmt.Fprintln(c.OutOrStdout())
			root.Long = ""
		}
		help(c, args)
	})
}
