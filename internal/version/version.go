// Package version tells which Kubernetes API Wherry speaks, and its own
// version, in the form that Kubernetes' clients expect: v1.34.0+wherry.Y.
package version

import (
	"runtime"
	"runtime/debug"
	"strings"

	apiversion "k8s.io/apimachinery/pkg/version"
)

// The version of Kubernetes' API that is served.
const (
	major = "1"
	minor = "34"
	patch = "0"
)

// Set by the linker; else what the Go tool wrote into the program is told.
var commit, date string

// String is Kubernetes' version with that of a build of Wherry as build
// metadata, in which only letters, digits, - and . may stand.
func String(build string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, strings.TrimPrefix(build, "v"))
	return "v" + major + "." + minor + "." + patch + "+wherry." + clean
}

// Info is the answer of /version. A build that knows no date has the zero time,
// as in Kubernetes.
func Info(build string) apiversion.Info {
	info := apiversion.Info{
		Major: major, Minor: minor, GitVersion: String(build), GitCommit: "unknown", GitTreeState: "clean", BuildDate: "1970-01-01T00:00:00Z",
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		fill(&info, b.Settings)
	}
	if commit != "" {
		info.GitCommit = commit
	}
	if date != "" {
		info.BuildDate = date
	}
	if strings.HasSuffix(build, "-dirty") {
		info.GitTreeState = "dirty"
	}
	return info
}

func fill(info *apiversion.Info, settings []debug.BuildSetting) {
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			info.GitCommit = s.Value
		case s.Key == "vcs.time":
			info.BuildDate = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			info.GitTreeState = "dirty"
		}
	}
}
