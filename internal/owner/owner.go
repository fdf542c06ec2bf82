// Package owner knows how objects belong to controllers: by a controller
// reference, which a selector gives to orphans and takes from strangers.
package owner

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Claim sorts candidates by what a controller has to do about them.
type Claim[T metav1.Object] struct {
	// Mine are those that it controls and selects.
	Mine []T
	// Adopt are orphans that it selects, Release those that it controls and
	// no longer selects.
	Adopt, Release []T
}

// Of makes a controller's claim. A controller that is being deleted neither
// adopts nor releases.
func Of[T metav1.Object](controller metav1.Object, selector labels.Selector, candidates []T) Claim[T] {
	var c Claim[T]
	for _, o := range candidates {
		ref := metav1.GetControllerOfNoCopy(o)
		selected := selector.Matches(labels.Set(o.GetLabels()))
		switch {
		case ref != nil && ref.UID != controller.GetUID():
		case ref != nil && selected:
			c.Mine = append(c.Mine, o)
		case controller.GetDeletionTimestamp() != nil || o.GetNamespace() != controller.GetNamespace():
		case ref != nil:
			c.Release = append(c.Release, o)
		case selected && o.GetDeletionTimestamp() == nil:
			c.Adopt = append(c.Adopt, o)
		}
	}
	return c
}

// Ref is the reference that makes controller the one that controls an object.
func Ref(controller metav1.Object, kind schema.GroupVersionKind) metav1.OwnerReference {
	return *metav1.NewControllerRef(controller, kind)
}

// Drop removes the references to uid, and reports whether there were any.
func Drop(o metav1.Object, uid types.UID) bool {
	refs := o.GetOwnerReferences()
	kept := make([]metav1.OwnerReference, 0, len(refs))
	for _, r := range refs {
		if r.UID != uid {
			kept = append(kept, r)
		}
	}
	if len(kept) == len(refs) {
		return false
	}
	o.SetOwnerReferences(kept)
	return true
}
