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

// copies is a pointer to a part of an object that can be copied.
type copies[P any] interface {
	*P
	DeepCopyInto(*P)
}

// WithSpec lets metadata.generation follow the part of the object that spec
// gives.
func WithSpec[T Object](k *Kind, spec func(T) any) *Kind {
	k.SpecOf = Of(spec)
	return k
}

// WithStatus adds /status to a kind of which spec and status give the two parts:
// a write of the object keeps the status, a write of /status keeps all else, a
// new object has none, and metadata.generation follows the spec.
func WithStatus[T Object, S, U any, PS copies[S], PU copies[U]](k *Kind, spec func(T) PS, status func(T) PU) *Kind {
	k.Subresources = append(k.Subresources, StatusOnly()...)
	k.OnCreate = On(func(obj T) {
		var none U
		*status(obj) = none
	})
	k.OnUpdate = OnPair(func(obj, old T) {
		var was U
		status(old).DeepCopyInto(&was)
		*status(obj) = was
	})
	k.OnStatus = OnPair(func(obj, old T) {
		KeepMeta(obj, old)
		var was S
		spec(old).DeepCopyInto(&was)
		*spec(obj) = was
	})
	k.SpecOf = Of(func(obj T) any { return spec(obj) })
	return k
}
