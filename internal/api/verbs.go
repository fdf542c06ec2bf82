package api

// AllVerbs are the verbs of a kind that is stored and lacks none.
func AllVerbs() []string {
	return []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
}

// StatusOnly is the list of subresources of a kind that has /status alone.
func StatusOnly() []Subresource {
	return []Subresource{{Name: "status", Verbs: []string{"get", "patch", "update"}}}
}

// SetDefault sets what to points to, unless it is set.
func SetDefault[T any](to **T, value T) {
	if *to == nil {
		*to = &value
	}
}
