package main

import (
	"fmt"

	"github.com/wherry-project/wherry/internal/authn"
)

// staticTokens reads the tokens of the file that the configuration names, none
// if it names none. A file that cannot be used is told at the start.
func (c config) staticTokens() (authn.Tokens, error) {
	if c.TokenAuthFile == "" {
		return nil, nil
	}
	t, err := authn.ReadTokens(c.TokenAuthFile)
	if err != nil {
		return nil, fmt.Errorf("token-auth-file: %w", err)
	}
	return t, nil
}
