package node

import (
	"fmt"

	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/podspec"
)

// handler is the only one that nodes have.
const handler = "runc"

func warnClass(c, old *nodev1.RuntimeClass) []string {
	var out []string
	if c.Scheduling != nil {
		out = podspec.LabelKeyWarnings(c.Scheduling.NodeSelector, func(string) *field.Path { return field.NewPath("scheduling", "nodeSelector") })
	}
	if old == nil && c.Handler != handler {
		out = append(out, fmt.Sprintf("handler: nodes have no handler but %q: pods of this class are refused", handler))
	}
	return out
}
