package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wherry-project/wherry/internal/testbed"
)

// TestDiskLost loses a control's whole disk, and later removes that control:
// each time it comes back by the same command, under its name, while writes go
// on.
func TestDiskLost(t *testing.T) {
	breaks(t)
	ns := namespace(t)
	w := startWriter(t, ns)
	more(t, w, 30)
	lost := follower(t)

	if err := suite.Kill(t.Context(), lost, ""); err != nil {
		t.Fatal(err)
	}
	joinAnew(t, lost)
	more(t, w, 30)

	refused(t, "", []string{"cluster", "members", "remove", "c9"}, "no controld is named", "there are c")
	refused(t, "", []string{"cluster", "members", "transfer-leadership", "c9"}, "no controld is named")
	says(t, "leadership goes to", "cluster", "members", "transfer-leadership")
	says(t, lost+" removed", "cluster", "members", "remove", lost)
	// It stops by itself when it hears of it; until then it refuses everything.
	eventually(t, func() error {
		all, err := members(t.Context())
		if err == nil && len(all) != 2 {
			err = fmt.Errorf("members after the removal: %+v", all)
		}
		return err
	})
	_ = suite.Kill(t.Context(), lost, "") // it may have stopped
	joinAnew(t, lost)
	more(t, w, 30)
	w.end()
	w.check(t)
}

// joinAnew empties a control's disk, joins it and starts it.
func joinAnew(t *testing.T, lost string) {
	t.Helper()
	if _, err := on(t.Context(), lost, "", "rm", "-rf", "/var/lib/wherry/controld"); err != nil {
		t.Fatal(err)
	}
	const file = "/root/anew"
	token := says(t, "", "cluster", "token", "create", "--role", "control")
	if err := suite.WriteFile(lost, file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	var others []string
	for _, c := range controls {
		if c != lost {
			others = append(others, c+":7443")
		}
	}
	if out, err := on(t.Context(), lost, "", "controld", "join", strings.Join(others, ","), "--token-file", file); err != nil {
		exit := (*testbed.ExitError)(nil)
		if errors.As(err, &exit) {
			out += exit.Stderr
		}
		t.Fatalf("join: %v\n%s", err, out)
	}
	if err := suite.Start(t.Context(), lost, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if err := whole(t.Context()); err != nil {
			return fmt.Errorf("%s is not back: %w", lost, err)
		}
		return nil
	})
}
