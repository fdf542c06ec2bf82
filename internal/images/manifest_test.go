package images

import (
	"strings"
	"testing"
)

func TestBundlesThatCannotBe(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	one := func() *bundle {
		b := &bundle{}
		b.manifest.Layers = []descriptor{{Digest: digest, Size: 1}}
		b.config.RootFS.DiffIDs = []string{digest}
		b.config.OS, b.config.Architecture = "linux", "amd64"
		return b
	}
	if err := one().check("linux", "amd64"); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*bundle){
		"image is for windows/amd64": func(b *bundle) { b.config.OS = "windows" },
		"image is for linux/arm64":   func(b *bundle) { b.config.Architecture = "arm64" },
		"no layers":                  func(b *bundle) { b.manifest.Layers = nil },
		"manifest has 1 layers":      func(b *bundle) { b.config.RootFS.DiffIDs = nil },
		"127 is the most":            func(b *bundle) { b.manifest.Layers = make([]descriptor, 128) },
		"not a sha256 digest":        func(b *bundle) { b.manifest.Layers[0].Digest = "sha256:../../etc" },
		"or diff ID":                 func(b *bundle) { b.config.RootFS.DiffIDs[0] = "sha512:00" },
		"size -1":                    func(b *bundle) { b.manifest.Layers[0].Size = -1 },
	} {
		b := one()
		change(b)
		if err := b.check("linux", "amd64"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

func TestChoose(t *testing.T) {
	all := []descriptor{{Digest: "a", Platform: &platform{"linux", "arm64"}}, {Digest: "b", Platform: &platform{"linux", "amd64"}}}
	if d, err := choose(all, "linux", "amd64"); err != nil || d.Digest != "b" {
		t.Errorf("%v, %v", d, err)
	}
	if _, err := choose(all, "linux", "s390x"); err == nil || !strings.Contains(err.Error(), "linux/arm64, linux/amd64") {
		t.Errorf("got %v", err)
	}
}
