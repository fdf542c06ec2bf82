package admission

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// namespaceLifecycle refuses new objects where there is no namespace or it is
// being deleted, and the deletion of the namespaces that the cluster needs.
func namespaceLifecycle(r *Request) error {
	if r.Kind.Group == "" && r.Kind.Resource == "namespaces" {
		return immortal(r)
	}
	if !r.Kind.Namespaced || r.Operation != Create {
		return nil
	}
	name := r.Object.GetNamespace()
	ns, err := store.Get[*corev1.Namespace](r.Snapshot, api.Key{Resource: "namespaces", Name: name})
	if err != nil {
		return err
	}
	if ns.DeletionTimestamp == nil && ns.Status.Phase != corev1.NamespaceTerminating {
		return nil
	}
	st := apierr.StatusOf(apierr.Forbidden(r.Kind.KeyResource(), r.Object.GetName(),
		fmt.Errorf("unable to create new content in namespace %s because it is being terminated", name)))
	if st.Details == nil {
		st.Details = &metav1.StatusDetails{}
	}
	st.Details.Causes = append(st.Details.Causes, metav1.StatusCause{
		Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", name), Field: "metadata.namespace",
	})
	return apierr.FromStatus(st)
}

func immortal(r *Request) error {
	if r.Operation != Delete || r.Subresource != "" {
		return nil
	}
	switch name := r.Old.GetName(); name {
	case metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic:
		return apierr.Forbidden("namespaces", name, fmt.Errorf("this namespace may not be deleted"))
	}
	return nil
}
