package images

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
)

// login is an entry of a Docker configuration.
type login struct {
	Auth          string `json:"auth"` // base64 of user:password
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// Credentials returns the logins that a .dockerconfigjson (or .dockercfg) holds
// for the registry of ref, best match first. A key is a host, which may hold *
// for a part of it, with or without scheme, port and path.
func Credentials(dockerConfig []byte, ref string) ([]Auth, error) {
	name, err := ParseReference(ref)
	if err != nil {
		return nil, err
	}
	var file struct {
		Auths map[string]login `json:"auths"`
	}
	if err := json.Unmarshal(dockerConfig, &file); err != nil {
		return nil, fmt.Errorf("parse Docker configuration: %w", err)
	}
	if file.Auths == nil {
		if err := json.Unmarshal(dockerConfig, &file.Auths); err != nil {
			return nil, fmt.Errorf("parse Docker configuration: %w", err)
		}
	}
	var keys []string
	for key := range file.Auths {
		if matches(key, name) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b string) int { // the longer, the closer
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	var out []Auth
	for _, key := range keys {
		auth, err := file.Auths[key].auth()
		if err != nil {
			return nil, fmt.Errorf("parse Docker configuration: %s: %w", key, err)
		}
		out = append(out, auth)
	}
	return out, nil
}

func (l login) auth() (Auth, error) {
	a := Auth{Username: l.Username, Password: l.Password, IdentityToken: l.IdentityToken, RegistryToken: l.RegistryToken}
	if a.Username != "" || l.Auth == "" {
		return a, nil
	}
	plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(l.Auth))
	if err != nil {
		return a, fmt.Errorf("auth is not base64: %w", err)
	}
	user, password, ok := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
	if !ok {
		return a, fmt.Errorf("auth is not user:password")
	}
	a.Username, a.Password = user, password
	return a, nil
}

// matches reports whether a key of a Docker configuration is about name.
func matches(key string, name Reference) bool {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, dir, _ := strings.Cut(key, "/")
	dir = strings.Trim(dir, "/")
	if dir == "v1" || dir == "v2" {
		dir = "" // what Docker writes after the host
	}
	if dir != "" && name.Repository != dir && !strings.HasPrefix(name.Repository, dir+"/") {
		return false
	}
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	return hostMatches(strings.ToLower(host), strings.ToLower(name.Registry))
}

// hostMatches compares part by part; a port must be the same in both.
func hostMatches(pattern, host string) bool {
	pattern, patternPort, _ := strings.Cut(pattern, ":")
	host, hostPort, _ := strings.Cut(host, ":")
	if patternPort != hostPort {
		return false
	}
	a, b := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if ok, err := path.Match(a[i], b[i]); err != nil || !ok {
			return false
		}
	}
	return true
}
