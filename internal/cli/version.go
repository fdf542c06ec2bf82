package cli

import (
	"encoding/json"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/component-base/version"
)

// addVersion lets `version` tell Wherry's version first. In json and yaml the
// output is kubectl's.
func addVersion(root *cobra.Command, streams genericiooptions.IOStreams) {
	for _, c := range root.Commands() {
		if c.Name() != "version" {
			continue
		}
		kubectl := c.Run
		c.Run = func(c *cobra.Command, args []string) {
			if o, _ := c.Flags().GetString("output"); o == "" && len(args) == 0 {
				fmt.Fprintf(streams.Out, "Wherry Version: %s\n", wherryVersion())
			}
			kubectl(c, args)
		}
	}
}

// wherryVersion is the one given when the program was linked, or what Go knows
// of the source it was built from.
func wherryVersion() string {
	if v := version.Get().GitVersion; v != "" && v != "v0.0.0-master+$Format:%H$" {
		return v
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}

// printJSON is how commands print with -o json.
func (c *command) printJSON(v any) error {
	e := json.NewEncoder(c.Out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
