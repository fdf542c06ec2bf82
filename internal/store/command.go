package store

import (
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// valid checks what must hold of every command.
func (c Command) valid() error {
	if len(c.Changes) == 0 {
		return apierr.BadRequest("store command without changes")
	}
	var seen map[api.Key]bool
	if len(c.Changes) > 8 {
		seen = make(map[api.Key]bool, len(c.Changes))
	}
	for i, change := range c.Changes {
		if err := change.valid(); err != nil {
			return err
		}
		twice := seen[change.Key]
		if seen != nil {
			seen[change.Key] = true
		} else {
			for _, earlier := range c.Changes[:i] {
				twice = twice || earlier.Key == change.Key
			}
		}
		if twice {
			return apierr.BadRequest("store command has %s twice", change.Key)
		}
	}
	return nil
}

func (c Change) valid() error {
	switch {
	case c.Key.Resource == "" || c.Key.Name == "":
		return apierr.BadRequest("store command with an incomplete key %q", c.Key)
	case c.Op != Put && c.Op != Delete && c.Op != Check:
		return apierr.BadRequest("store command with an unknown operation %d", c.Op)
	case c.Op == Put && (c.Record == nil || c.Record.Key != c.Key):
		return apierr.BadRequest("store command puts no record, or another's, at %s", c.Key)
	case c.If.Absent && (c.Op == Delete || c.If.Revision != 0 || c.If.UID != ""):
		return apierr.BadRequest("store command has a condition on %s that cannot hold", c.Key)
	}
	return nil
}
