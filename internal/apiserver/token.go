package apiserver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// token is where a list goes on. It holds all that another replica needs.
type token struct {
	Version  string `json:"v"`
	Revision uint64 `json:"rv"`
	Start    string `json:"start"`
}

const tokenVersion = "meta.wherry/v1"

func tokenAfter(revision uint64, r *api.Record) token {
	return token{tokenVersion, revision, r.Namespace + "/" + r.Name}
}

// after is the key behind which the list goes on.
func (c token) after(k *api.Kind) api.Key {
	namespace, name, _ := strings.Cut(c.Start, "/")
	return k.Key(namespace, name)
}

func (c token) encode() string {
	b, err := json.Marshal(c)
	if err != nil { // strings and numbers always encode
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeToken(text string) (token, error) {
	var c token
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	_, name, _ := strings.Cut(c.Start, "/")
	if err != nil || c.Version != tokenVersion || c.Revision == 0 || name == "" {
		return c, apierr.BadRequest("continue key is not valid: %s", "take the token from the list before, unchanged")
	}
	return c, nil
}

// expired adds to a 410 of a page the token with which the list may go on from
// the same place in the newest state.
func (s *Server) expired(ctx context.Context, err error, o api.ListOptions, after api.Key) error {
	if o.Continue == "" || apierr.KindOf(err) != apierr.ErrExpired {
		return err
	}
	now, serr := s.store.Snapshot(ctx, store.At{Level: store.Linearizable})
	if serr != nil {
		return err
	}
	st := apierr.StatusOf(apierr.Expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."))
	st.ListMeta.Continue = tokenAfter(now.Revision(), &api.Record{Key: after}).encode()
	return apierr.FromStatus(st)
}
