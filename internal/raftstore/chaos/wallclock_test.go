//go:build wallclock

package chaos

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// wallOffset is the offset of the time package that scripts/wallclock.sh makes.
//
//go:linkname wallOffset time.wallOffset
var wallOffset int64

// The name above needs the import.
var _ unsafe.Pointer

// setClock puts this process's wall clock forward or back, for all its code.
func setClock(by time.Duration) { atomic.StoreInt64(&wallOffset, int64(by)) }

// clockJumps reports whether it can.
const clockJumps = true
