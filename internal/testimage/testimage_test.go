package testimage

import (
	"archive/tar"
	"bytes"
	"io"
	"path/filepath"
	"slices"
	"testing"
)

func TestProgramsAndArchives(t *testing.T) {
	hello, err := Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	images := map[string]*Image{"hello.test/hello:1": hello}
	if box, err := Busybox(); err != nil {
		t.Log(err)
	} else {
		images["hello.test/busybox:1"] = box
	}
	for file, write := range map[string]func(io.Writer, map[string]*Image) error{"index.json": WriteOCI, "manifest.json": WriteDocker} {
		var b bytes.Buffer
		if err := write(&b, images); err != nil {
			t.Fatal(err)
		}
		var names []string
		for tr := tar.NewReader(&b); ; {
			h, err := tr.Next()
			if err != nil {
				break
			}
			names = append(names, h.Name)
		}
		if !slices.Contains(names, file) {
			t.Errorf("no %s in %v", file, names)
		}
	}
	if err := WriteFile(filepath.Join(t.TempDir(), "none/x.tar"), WriteOCI, images); err == nil {
		t.Error("written to a directory that does not exist")
	}
	r := NewRegistry()
	if err := r.Push("hello:1", hello); err != nil {
		t.Error(err)
	}
}
