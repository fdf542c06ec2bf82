package images

import (
	"errors"
	"strings"
	"testing"
)

func TestParseReference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for in, want := range map[string]string{
		"busybox":                         "docker.io/library/busybox:latest",
		"busybox:1.36":                    "docker.io/library/busybox:1.36",
		"me/app":                          "docker.io/me/app:latest",
		"docker.io/busybox":               "docker.io/library/busybox:latest",
		"index.docker.io/library/busybox": "docker.io/library/busybox:latest",
		"localhost/app":                   "localhost/app:latest",
		"localhost:5000/app:x":            "localhost:5000/app:x",
		"registry.test/a/b/c@" + digest:   "registry.test/a/b/c@" + digest,
		"app:1@" + digest:                 "docker.io/library/app:1@" + digest,
		"[::1]:5000/app":                  "[::1]:5000/app:latest",
	} {
		got, err := ParseReference(in)
		if err != nil || got.String() != want {
			t.Errorf("ParseReference(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "UPPER", "a:b:c", "a b", "app@sha256:12", "http://reg.test/app", "app:", "/app", strings.Repeat("0a", 32), "app@sha512:" + strings.Repeat("0a", 64), "a..b/c"} {
		if got, err := ParseReference(in); !errors.Is(err, ErrInvalidName) {
			t.Errorf("ParseReference(%q) = %v, %v", in, got, err)
		}
	}
}

func TestCredentials(t *testing.T) {
	config := `{"auths":{
		"https://index.docker.io/v1/":{"auth":"aHViOnB3"},
		"reg.test:5000":{"username":"u","password":"p"},
		"reg.test:5000/team":{"auth":"dGVhbTpwOnc="},
		"*.cloud.test":{"registrytoken":"tok"}}}`
	for ref, want := range map[string][]Auth{
		"busybox":                {{Username: "hub", Password: "pw"}},
		"reg.test:5000/x":        {{Username: "u", Password: "p"}},
		"reg.test:5000/team/app": {{Username: "team", Password: "p:w"}, {Username: "u", Password: "p"}},
		"reg.test:5000/teams":    {{Username: "u", Password: "p"}},
		"reg.test/x":             nil,
		"eu.cloud.test/x":        {{RegistryToken: "tok"}},
		"a.eu.cloud.test/x":      nil,
	} {
		got, err := Credentials([]byte(config), ref)
		if err != nil || len(got) != len(want) {
			t.Errorf("%s: %v, %v; want %v", ref, got, err, want)
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: %v, want %v", ref, got, want)
			}
		}
	}
	if got, err := Credentials([]byte(`{"reg.test":{"auth":"dTpw"}}`), "reg.test/a"); err != nil || len(got) != 1 || got[0].Username != "u" {
		t.Errorf(".dockercfg: %v, %v", got, err)
	}
	for _, bad := range []string{"", "{", `{"auths":{"reg.test":{"auth":"!"}}}`, `{"auths":{"reg.test":{"auth":"bm9jb2xvbg=="}}}`} {
		if _, err := Credentials([]byte(bad), "reg.test/a"); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
