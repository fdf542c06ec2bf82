//go:build !wallclock

package chaos

import "time"

// setClock puts this process's wall clock forward or back. That needs a
// standard library with such an offset; see scripts/wallclock.sh.
func setClock(time.Duration) {}

// clockJumps reports whether it can.
const clockJumps = false
