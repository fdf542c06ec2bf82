package authn

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

const (
	asUser  = "Impersonate-User"
	asGroup = "Impersonate-Group"
	asUID   = "Impersonate-Uid"
	asExtra = "Impersonate-Extra-"

	serviceAccount      = "system:serviceaccount:"
	allServiceAccounts  = "system:serviceaccounts"
	authenticationGroup = "authentication.k8s.io"
)

// impersonate gives the user that u wants to be, if the headers ask for one
// and u may be each part of it; else u.
func (a *Authenticator) impersonate(u api.User, h http.Header) (api.User, error) {
	want := api.User{Name: h.Get(asUser), UID: h.Get(asUID), Groups: h.Values(asGroup), Extra: extra(h)}
	if want.Name == "" {
		if want.UID != "" || len(want.Groups) > 0 || len(want.Extra) > 0 {
			return api.User{}, apierr.BadRequest("requested to impersonate a group, uid or extra without impersonating a user")
		}
		return u, nil
	}
	for _, t := range targets(want) {
		if err := a.may(u, t); err != nil {
			return api.User{}, err
		}
	}
	want.By = &u
	if want.Name == Anonymous {
		want.Groups = append(want.Groups, Unauthenticated)
		return want, nil
	}
	if ns, _, ok := account(want.Name); ok && len(want.Groups) == 0 {
		want.Groups = []string{allServiceAccounts, allServiceAccounts + ":" + ns}
	}
	return Known(want), nil
}

func (a *Authenticator) may(u api.User, t api.Target) error {
	if a.cfg.Authorize != nil {
		return a.cfg.Authorize(u, t, "impersonate")
	}
	return apierr.Forbidden(t.Resource, t.Name, fmt.Errorf("User %q cannot impersonate resource %q in API group %q at the cluster scope", u.Name, t.Resource, t.Group))
}

// targets are the objects that one must be allowed to impersonate.
func targets(want api.User) []api.Target {
	out := []api.Target{{Resource: "users", Name: want.Name}}
	if ns, name, ok := account(want.Name); ok {
		out = []api.Target{{Version: "v1", Resource: "serviceaccounts", Namespace: ns, Name: name}}
	}
	for _, g := range want.Groups {
		out = append(out, api.Target{Resource: "groups", Name: g})
	}
	if want.UID != "" {
		out = append(out, api.Target{Group: authenticationGroup, Version: "v1", Resource: "uids", Name: want.UID})
	}
	for key, values := range want.Extra {
		for _, v := range values {
			out = append(out, api.Target{Group: authenticationGroup, Version: "v1", Resource: "userextras", Subresource: key, Name: v})
		}
	}
	return out
}

// account takes the name of a service account's user apart.
func account(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, serviceAccount)
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, ":")
}

// extra collects Impersonate-Extra-KEY headers; keys are escaped and in lower
// case.
func extra(h http.Header) map[string][]string {
	var out map[string][]string
	for name, values := range h {
		if len(name) <= len(asExtra) || !strings.EqualFold(name[:len(asExtra)], asExtra) {
			continue
		}
		key := strings.ToLower(name[len(asExtra):])
		if plain, err := url.PathUnescape(key); err == nil {
			key = plain
		}
		if out == nil {
			out = map[string][]string{}
		}
		out[key] = append(out[key], values...)
	}
	return out
}
