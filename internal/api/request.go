package api

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Target names a resource and, where the verb needs it, one object of it.
type Target struct {
	Group, Version, Resource string
	// Namespace is empty for cluster-scoped kinds and for all namespaces.
	Namespace   string
	Name        string
	Subresource string
}

// GetOptions ask for one object.
type GetOptions struct {
	// ResourceVersion: empty is most recent, "0" any, N at least as new as N.
	ResourceVersion string
}

// Selection narrows lists and watches; nil selectors match everything.
type Selection struct {
	Labels labels.Selector
	Fields fields.Selector
}

// ListOptions ask for a page.
type ListOptions struct {
	Selection
	Limit                int64
	Continue             string
	ResourceVersion      string
	ResourceVersionMatch metav1.ResourceVersionMatch
}

// WatchOptions ask for a watch.
type WatchOptions struct {
	Selection
	ResourceVersion      string
	ResourceVersionMatch metav1.ResourceVersionMatch
	Bookmarks            bool
	SendInitialEvents    *bool
}

// WriteOptions hold for create, update and patch.
type WriteOptions struct {
	DryRun       bool
	FieldManager string
	// Force takes fields in conflict, for apply only.
	Force bool
	// Strict lets a patch that makes unknown or duplicate fields fail; with
	// Warn they become warnings, else they are dropped in silence.
	FieldValidation string
}

// Value is an object on its way out: a record, or for subresources and dry
// runs a decoded object.
type Value struct {
	Record *Record
	// Object is shared when Record is set; it is nil when nobody needed it.
	Object runtime.Object
	// Created reports that an update or apply made the object.
	Created  bool
	Warnings []string
}

// Page is one page of a list.
type Page struct {
	Kind     *Kind
	Records  []*Record
	Revision uint64
	Continue string
	// Remaining is nil when selectors were used or nothing remains.
	Remaining *int64
	// Warnings are for who asked for the page, or deleted what it holds.
	Warnings []string
}

// EventType is what happened, as a watcher with its selection sees it.
type EventType string

// The types of watch events.
const (
	Added    EventType = "ADDED"
	Modified EventType = "MODIFIED"
	Deleted  EventType = "DELETED"
	Bookmark EventType = "BOOKMARK"
)

// WatchEvent is one event. A deleted object's record is its last state with
// the revision of the delete. A bookmark has only Revision, and InitialEnd if
// it ends the initial events.
type WatchEvent struct {
	Type       EventType
	Record     *Record
	Revision   uint64
	InitialEnd bool
}

// Stream is a running watch.
type Stream interface {
	// Next waits for the next events. An expired watch gives an error of kind
	// apierr Expired; the end of ctx gives ctx.Err().
	Next(ctx context.Context) ([]WatchEvent, error)
	// Stop frees the watch.
	Stop()
}

// Deletion is the answer to a delete.
type Deletion struct {
	Value
	// Gone reports that the object is no longer there.
	Gone bool
	Kind *Kind
	UID  types.UID
}

// Resources is the API as its front ends see it: the HTTP gateway and gRPC
// both translate to it. Every method authorizes, so that it is the one door.
type Resources interface {
	Kinds() *Kinds
	Codec() *Codec
	Get(ctx context.Context, u User, t Target, o GetOptions) (Value, error)
	List(ctx context.Context, u User, t Target, o ListOptions) (*Page, error)
	Watch(ctx context.Context, u User, t Target, o WatchOptions) (Stream, error)
	Create(ctx context.Context, u User, t Target, obj runtime.Object, o WriteOptions) (Value, error)
	Update(ctx context.Context, u User, t Target, obj runtime.Object, o WriteOptions) (Value, error)
	Patch(ctx context.Context, u User, t Target, pt types.PatchType, patch []byte, o WriteOptions) (Value, error)
	Delete(ctx context.Context, u User, t Target, o metav1.DeleteOptions) (Deletion, error)
	// DeleteCollection gives the objects of a list that it deleted, as they
	// were.
	DeleteCollection(ctx context.Context, u User, t Target, l ListOptions, o metav1.DeleteOptions) (*Page, error)
}
