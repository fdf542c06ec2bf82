package version

import (
	"runtime/debug"
	"testing"
)

func TestString(t *testing.T) {
	for build, want := range map[string]string{
		"v0.1.0": "v1.34.0+wherry.0.1.0", "1a2b3c-dirty": "v1.34.0+wherry.1a2b3c-dirty", "a b_c": "v1.34.0+wherry.a-b-c",
	} {
		if got := String(build); got != want {
			t.Errorf("String(%q) = %q, want %q", build, got, want)
		}
	}
}

func TestInfo(t *testing.T) {
	info := Info("v0.1.0")
	if info.GitCommit == "" || info.BuildDate == "" || info.Major != "1" {
		t.Errorf("info %+v", info)
	}
	fill(&info, []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2030-01-02T03:04:05Z"}, {Key: "vcs.modified", Value: "true"}})
	if info.GitCommit != "abc" || info.BuildDate != "2030-01-02T03:04:05Z" || info.GitTreeState != "dirty" {
		t.Errorf("info %+v", info)
	}
}
