package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Nice gives this process another niceness, below 0 for one that is not to wait
// behind others, and so all that it starts later. It needs a privilege to go
// below.
func Nice(niceness int) error {
	// The kernel keeps it for each thread; new ones have that of their maker.
	// The second time finds those made meanwhile.
	for range 2 {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("set niceness: %w", err)
		}
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, niceness); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("set niceness %d: %w", niceness, err)
			}
		}
	}
	return nil
}
