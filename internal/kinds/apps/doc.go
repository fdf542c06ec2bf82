// Package apps holds the kinds of apps/v1: a file per kind with its
// names, defaults, validation, columns and field selectors.
package apps
