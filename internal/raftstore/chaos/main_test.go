// Package chaos has clients on clusters of real processes while those are
// killed, stopped, cut off and given bad disks and clocks, and checks what the
// clients and watchers have seen.
package chaos

import (
	"os"
	"testing"
)

// asMember makes the test's program a member of a cluster: it holds the
// member's settings.
const asMember = "WHERRY_CHAOS_MEMBER"

func TestMain(m *testing.M) {
	if settings := os.Getenv(asMember); settings != "" {
		os.Exit(runMember(settings))
	}
	os.Exit(m.Run())
}
