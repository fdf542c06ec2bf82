// Package core holds the kinds of the core group, v1: a file per kind with its
// names, defaults, validation, columns and field selectors.
package core
