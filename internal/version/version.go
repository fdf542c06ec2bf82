// Package version tells which Kubernetes API Wherry speaks, and its own
// version, in the form that Kubernetes' clients expect: v1.34.0+wherry.Y.
package version

import (
	"runtime"
	"strings"

	apiversion "k8s.io/apimachinery/pkg/version"
)

// The version of Kubernetes' API that is served.
const (
	major = "1"
	minor = "34"
	patch = "0"
)

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

// Info is the answer of /version.
func Info(build string) apiversion.Info {
	return apiversion.Info{
		Major: major, Minor: minor, GitVersion: String(build), GitTreeState: "clean",
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
}
