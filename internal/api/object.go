package api

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Object is a stored Kubernetes object: a pointer to a k8s.io/api type.
// Objects that come out of a store, a watch or the codec's cache are shared
// and must not be modified; DeepCopyObject gives a copy that may be.
type Object interface {
	runtime.Object
	metav1.Object
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
	Size() int
}

// Key names one object in the store.
type Key struct {
	// Resource is the plural name with its group, such as "pods" or
	// "deployments.apps" (schema.GroupResource.String).
	Resource string
	// Namespace is empty for cluster-scoped kinds.
	Namespace string
	Name      string
}

// String gives resource/namespace/name.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Resource + "/" + k.Name
	}
	return k.Resource + "/" + k.Namespace + "/" + k.Name
}

// User is who makes a request, as authentication found it.
type User struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
	// By is who asks in this user's name, by impersonation; nil if the user
	// asks itself.
	By *User
}

// Has reports whether the user is in a group.
func (u User) Has(group string) bool {
	for _, g := range u.Groups {
		if g == group {
			return true
		}
	}
	return false
}
