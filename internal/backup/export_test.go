package backup

import (
	"io"

	"github.com/wherry-project/wherry/internal/seal"
)

var cheap = seal.Cost{Passes: 1, Memory: 64}

// WriteCheaply is WriteFile with a passphrase that costs next to nothing.
func WriteCheaply(path string, passphrase []byte, m Manifest, contents func(io.Writer) error) error {
	return writeFile(path, passphrase, cheap, m, contents)
}

// Cheaply makes the schedule write so.
func (s *Schedule) Cheaply() { s.cost = cheap }
