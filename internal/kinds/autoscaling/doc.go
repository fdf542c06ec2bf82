// Package autoscaling holds the kind of the group autoscaling, which is stored
// in version v2 and served as v1 too: its names, defaults, columns, rules, and
// what the versions are in each other's words.
package autoscaling
