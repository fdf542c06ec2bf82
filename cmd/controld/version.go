package main

import (
	"runtime"
	"strings"

	apiversion "k8s.io/apimachinery/pkg/version"
)

// The version of Kubernetes' API that is served, as clients ask for it.
const (
	kubeMajor = "1"
	kubeMinor = "34"
	kubePatch = "0"
)

// versionInfo is the answer of /version: Kubernetes' version, with ours as
// build metadata, in which only letters, digits, - and . may stand.
func versionInfo() apiversion.Info {
	clean := strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, strings.TrimPrefix(version, "v"))
	return apiversion.Info{
		Major: kubeMajor, Minor: kubeMinor, GitVersion: "v" + kubeMajor + "." + kubeMinor + "." + kubePatch + "+wherry." + clean,
		GitTreeState: "clean", GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
}
