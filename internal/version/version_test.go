package version

import "testing"

func TestString(t *testing.T) {
	for build, want := range map[string]string{
		"v0.1.0": "v1.34.0+wherry.0.1.0", "1a2b3c-dirty": "v1.34.0+wherry.1a2b3c-dirty", "a b_c": "v1.34.0+wherry.a-b-c",
	} {
		if got := String(build); got != want {
			t.Errorf("String(%q) = %q, want %q", build, got, want)
		}
	}
}
