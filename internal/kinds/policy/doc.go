// Package policy holds the kind of the group policy: budgets for disruptions.
package policy
