package authn

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/pki"
)

// Tokens are users by the hashes of their tokens: a look-up takes as long for a
// token that is nearly right as for any other.
type Tokens map[[sha256.Size]byte]api.User

// mostTokens bounds a file of tokens, in bytes.
const mostTokens = 10 << 20

// ReadTokens reads a file of tokens as Kubernetes has it: lines of token, user,
// uid, and, in quotes if there are several, the groups. Lines with a # first
// are comments. Errors name lines, never tokens.
func ReadTokens(file string) (Tokens, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostTokens+1))
	if err != nil {
		return nil, err
	}
	if len(b) > mostTokens {
		return nil, fmt.Errorf("%s: it is too large: at most %d bytes", file, mostTokens)
	}
	out, err := parseTokens(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return out, nil
}

func parseTokens(b []byte) (Tokens, error) {
	r := csv.NewReader(bytes.NewReader(b))
	r.FieldsPerRecord, r.Comment, r.TrimLeadingSpace = -1, '#', true
	out, lines := Tokens{}, map[[sha256.Size]byte]int{}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			var bad *csv.ParseError
			if errors.As(err, &bad) {
				return nil, fmt.Errorf("line %d: %w", bad.StartLine, bad.Err)
			}
			return nil, err
		}
		line, _ := r.FieldPos(0)
		u, token, err := tokenUser(row)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		sum := sha256.Sum256([]byte(token))
		if before, twice := lines[sum]; twice {
			return nil, fmt.Errorf("line %d: the token of line %d again", line, before)
		}
		out[sum], lines[sum] = u, line
	}
	if len(out) == 0 {
		return nil, errors.New("there is no token in it")
	}
	return out, nil
}

func tokenUser(row []string) (u api.User, token string, err error) {
	for i := range row {
		row[i] = strings.TrimSpace(row[i])
	}
	switch {
	case len(row) < 3:
		return u, "", errors.New("token, user and uid must be there, with commas between")
	case len(row) > 4:
		return u, "", errors.New("groups that are several must be in quotes: \"one,two\"")
	case row[0] == "":
		return u, "", errors.New("the token is empty")
	case row[1] == "":
		return u, "", errors.New("the user is empty")
	}
	u = api.User{Name: row[1], UID: row[2]}
	if len(row) < 4 || row[3] == "" {
		return u, row[0], nil
	}
	for g := range strings.SplitSeq(row[3], ",") {
		u.Groups = append(u.Groups, strings.TrimSpace(g))
	}
	for _, g := range []string{pki.MembersGroup, pki.NodesGroup} {
		if slices.Contains(u.Groups, g) {
			return u, "", fmt.Errorf("the group %s is for who has joined, with a certificate", g)
		}
	}
	return u, row[0], nil
}

// find gives the user of a token.
func (t Tokens) find(token string) (api.User, bool) {
	if len(t) == 0 {
		return api.User{}, false
	}
	u, ok := t[sha256.Sum256([]byte(token))]
	u.Groups = slices.Clone(u.Groups)
	return u, ok
}
