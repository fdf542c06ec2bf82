package testimage

import (
	"archive/tar"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// WriteOCI writes images by name as a tar of an OCI layout.
func WriteOCI(w io.Writer, images map[string]*Image) error {
	dir, err := os.MkdirTemp("", "wherry-testimage-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	for _, n := range slices.Sorted(maps.Keys(images)) {
		named := layout.WithAnnotations(map[string]string{"io.containerd.image.name": n})
		if err := path.AppendImage(images[n].img, named); err != nil {
			return fmt.Errorf("append %s: %w", n, err)
		}
	}
	tw := tar.NewWriter(w)
	if err := tw.AddFS(os.DirFS(dir)); err != nil {
		return fmt.Errorf("pack OCI layout: %w", err)
	}
	return tw.Close()
}

// WriteDocker writes images by name as docker save does.
func WriteDocker(w io.Writer, images map[string]*Image) error {
	refs := map[name.Reference]v1.Image{}
	for n, i := range images {
		tag, err := name.NewTag(n)
		if err != nil {
			return err
		}
		refs[tag] = i.img
	}
	return tarball.MultiRefWrite(refs, w)
}

// WriteFile writes images with WriteOCI or WriteDocker to a new file.
func WriteFile(path string, write func(io.Writer, map[string]*Image) error, images map[string]*Image) error {
	f, err := os.Create(filepath.Clean(path))
	if err != nil {
		return err
	}
	if err := write(f, images); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
