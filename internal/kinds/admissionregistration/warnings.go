package admissionregistration

import "github.com/wherry-project/wherry/internal/api"

// unused warns of a new object of a kind that is kept and has no effect yet: it
// must not look as if it guarded something.
func unused(text string) func(obj, old api.Object) []string {
	return func(_, old api.Object) []string {
		if old != nil {
			return nil
		}
		return []string{text}
	}
}

const (
	webhooksUnused = "webhooks are kept, but not called yet: they refuse and change nothing"
	policiesUnused = "admission policies are kept, but not enforced yet: they refuse and change nothing"
)
