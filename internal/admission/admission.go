// Package admission holds the built-in admission plug-ins: what the cluster
// adds to an object, or refuses, after defaulting and before validation. A
// plug-in is a pure function of the request and a snapshot; they run in order.
package admission

import (
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/store"
)

// The operations that plug-ins see.
const (
	Create = "CREATE"
	Update = "UPDATE"
	Delete = "DELETE"
)

// Request is a write on its way to the store.
type Request struct {
	User api.User
	// Node is the node that the user is, if it is one.
	Node        string
	Kind        *api.Kind
	Operation   string
	Subresource string
	// Object may be changed; it is nil for a delete.
	Object api.Object
	// Old is shared and nil for a create.
	Old api.Object
	// Snapshot is what the write rests on.
	Snapshot *store.Snapshot
	// Authorize answers whether User may do a verb to t as well. Nil lets
	// everybody.
	Authorize func(t api.Target, verb string) error
}

// Plugin is one step.
type Plugin struct {
	Name  string
	Admit func(r *Request) error
}

// Chain runs plug-ins in order; the first error ends it.
type Chain []Plugin

// BuiltIn is the chain of every cluster.
func BuiltIn() Chain {
	return Chain{
		{"NamespaceLifecycle", namespaceLifecycle},
		{"NodeRestriction", nodeRestriction},
		{"DefaultTolerationSeconds", defaultTolerations},
		{"ServiceAccount", serviceAccount},
		{"Priority", priority},
		{"RuntimeClass", runtimeClass},
		{"TaintNodesByCondition", taintNewNode},
		{"CertificateRequester", requester},
		{"CertificateApproval", approver},
		{"CertificateSigning", signer},
		{"CertificateSubjectRestriction", subject},
	}
}

// Admit runs the chain.
func (c Chain) Admit(r *Request) error {
	for _, p := range c {
		if err := p.Admit(r); err != nil {
			return err
		}
	}
	return nil
}
