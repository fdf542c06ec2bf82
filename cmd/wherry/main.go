// Command wherry is kubectl and the cluster's own commands in one.
package main

import (
	"fmt"
	"os"

	"github.com/wherry-project/wherry/internal/cli"
	"github.com/wherry-project/wherry/internal/testbed"
)

// version is set by the linker.
var version = "unknown"

func main() {
	if testbed.IsHost(os.Args) { // a testbed's host has this program as its init
		fmt.Fprintln(os.Stderr, testbed.Host(os.Args))
		os.Exit(1)
	}
	cli.Main(version, os.Args)
}
