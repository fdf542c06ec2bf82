// Package batch holds the kinds of the group batch: a file per kind with its
// names, defaults, columns and field selectors, and files with its rules.
package batch
