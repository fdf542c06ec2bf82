package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// addVersion lets `version` tell Wherry's version first. In json and yaml the
// output is kubectl's.
func addVersion(root *cobra.Command, version string, streams genericiooptions.IOStreams) {
	for _, c := range root.Commands() {
		if c.Name() != "version" {
			continue
		}
		kubectl := c.Run
		c.Run = func(c *cobra.Command, args []string) {
			if o, _ := c.Flags().GetString("output"); o == "" && len(args) == 0 {
				fmt.Fprintf(streams.Out, "Wherry Version: %s\n", version)
			}
			kubectl(c, args)
		}
	}
}

// printJSON is how commands print with -o json.
func (c *command) printJSON(v any) error {
	e := json.NewEncoder(c.Out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
