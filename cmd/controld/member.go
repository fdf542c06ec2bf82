package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/pki"
)

// memberFormat goes up when the data directory changes.
const memberFormat = 1

// member is what a controld must know before it has any state: member.json. It
// lies beside identity/ and raft/ in the folder member of the data directory,
// which is there as a whole or not at all.
type member struct {
	Format   int              `json:"format"`
	ID       string           `json:"id"`
	Name     string           `json:"name"`
	Settings cluster.Settings `json:"settings"`
	// Controls are the members that this one knows, to be asked for entry.
	Controls []string `json:"controls,omitempty"`
	// Raft is the folder of the Raft data if it is not raft.
	Raft string `json:"raft,omitempty"`
	// Entered says that it has voted: from then on its data must be there.
	Entered bool `json:"entered,omitempty"`
	// Rebuilding says why it began anew under its id, until it votes again.
	Rebuilding string `json:"rebuilding,omitempty"`
}

func memberDir(dataDir string) string { return filepath.Join(dataDir, "member") }

// prepareDir is where a member is prepared. What a broken attempt left there
// was never in service.
func prepareDir(dataDir string) string { return filepath.Join(dataDir, "member.new") }

// refuseData refuses where a cluster's data is.
func refuseData(dataDir string) error {
	_, err := os.Stat(memberDir(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	m, _, err := openMember(dataDir)
	if err != nil {
		return fmt.Errorf("%s holds a member's data already, which cannot be read: %w", memberDir(dataDir), err)
	}
	return fmt.Errorf("%s holds the data of member %s of cluster %s already; nothing was changed: start it with `controld`, or remove that folder first if it is of no use any more", memberDir(dataDir), m.ID, m.Settings.ClusterID)
}

// save writes member.json and puts the prepared folder in its place.
func (m member) save(dataDir string) error {
	m.Format = memberFormat
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := pki.WriteFile(filepath.Join(prepareDir(dataDir), "member.json"), append(b, '\n'), 0o600); err != nil {
		return err
	}
	if err := os.Rename(prepareDir(dataDir), memberDir(dataDir)); err != nil {
		return err
	}
	d, err := os.Open(dataDir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openMember reads what a daemon begins with.
func openMember(dataDir string) (member, *pki.KeyPair, error) {
	var m member
	b, err := os.ReadFile(filepath.Join(memberDir(dataDir), "member.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil, fmt.Errorf("%s holds no member of a cluster: make a cluster with `controld init`, or enter one with `controld join`", dataDir)
	} else if err != nil {
		return m, nil, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, nil, fmt.Errorf("member.json in %s cannot be read: %w", memberDir(dataDir), err)
	}
	if m.Format != memberFormat {
		return m, nil, fmt.Errorf("%s is of format %d, this version knows %d: start the version that wrote it", memberDir(dataDir), m.Format, memberFormat)
	}
	keys, err := pki.OpenKeyPair(filepath.Join(memberDir(dataDir), "identity"))
	if err != nil {
		return m, nil, fmt.Errorf("read this member's identity: %w", err)
	}
	return m, keys, nil
}
