// Package testimage makes small real images for tests and serves them: from
// static programs of this repository and Debian's busybox-static, in process,
// without any network but the listener it is given.
//
// It stands outside the layers, like testkit, and is never linked into a
// program.
package testimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is an image built in memory.
type Image struct{ img v1.Image }

// Spec is what an image is built from.
type Spec struct {
	Layers     []Layer // bottom first
	Entrypoint []string
	Cmd        []string
	Env        []string
	WorkingDir string
	User       string
	StopSignal string
	Volumes    []string
	Labels     map[string]string
	Arch       string // default that of the test
	Plain      bool   // layers without compression
}

// Layer is the entries of a layer's tar, in order. Whiteouts are files named
// .wh.NAME.
type Layer []File

// File is one entry of a layer: a regular file unless Dir, Symlink or Hardlink
// is set.
type File struct {
	Name     string
	Body     []byte
	Mode     int64 // default 0644, of directories 0755
	UID, GID int
	Dir      bool
	Symlink  string
	Hardlink string
	Xattrs   map[string]string
}

// Build makes an image.
func Build(s Spec) (*Image, error) {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	var err error
	for _, l := range s.Layers {
		layer, err := l.build(s.Plain)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, fmt.Errorf("append layer: %w", err)
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", s.Arch
	if s.Arch == "" {
		file.Architecture = runtime.GOARCH
	}
	file.Config = v1.Config{
		Entrypoint: s.Entrypoint, Cmd: s.Cmd, Env: s.Env, WorkingDir: s.WorkingDir,
		User: s.User, StopSignal: s.StopSignal, Labels: s.Labels, Volumes: map[string]struct{}{},
	}
	for _, v := range s.Volumes {
		file.Config.Volumes[v] = struct{}{}
	}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return nil, fmt.Errorf("set config: %w", err)
	}
	return &Image{img}, nil
}

// build packs the layer.
func (l Layer) build(plain bool) (v1.Layer, error) {
	var raw bytes.Buffer
	tw := tar.NewWriter(&raw)
	for _, f := range l {
		h := f.header()
		if err := tw.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("layer entry %s: %w", f.Name, err)
		}
		if _, err := tw.Write(f.Body); err != nil {
			return nil, fmt.Errorf("layer entry %s: %w", f.Name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	if plain {
		return static.NewLayer(raw.Bytes(), types.OCIUncompressedLayer), nil
	}
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	if _, err := zw.Write(raw.Bytes()); err != nil {
		return nil, err
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
}

func (f File) header() *tar.Header {
	h := &tar.Header{
		Name: f.Name, Mode: f.Mode, Uid: f.UID, Gid: f.GID, Size: int64(len(f.Body)),
		Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{},
	}
	switch {
	case f.Dir:
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(f.Name, "/")+"/"
	case f.Symlink != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.Symlink
	case f.Hardlink != "":
		h.Typeflag, h.Linkname = tar.TypeLink, f.Hardlink
	}
	if f.Mode == 0 {
		if h.Mode = 0o644; f.Dir {
			h.Mode = 0o755
		}
	}
	for k, v := range f.Xattrs {
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	return h
}

// ID returns the digest of the config.
func (i *Image) ID() (string, error) {
	h, err := i.img.ConfigName()
	return h.String(), err
}

// Digest returns the digest of the manifest.
func (i *Image) Digest() (string, error) {
	h, err := i.img.Digest()
	return h.String(), err
}

// LayerDigests returns the digests of the layers' blobs, bottom first.
func (i *Image) LayerDigests() ([]string, error) {
	layers, err := i.img.Layers()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			return nil, err
		}
		out = append(out, h.String())
	}
	return out, nil
}

// base is the files that most programs expect.
func base() Layer {
	return Layer{
		{Name: "etc", Dir: true},
		{Name: "etc/passwd", Body: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nweb:x:1000:1000:web:/home/web:/bin/sh\n")},
		{Name: "etc/group", Body: []byte("root:x:0:\nnogroup:x:65534:\nweb:x:1000:\nlogs:x:1001:web\n")},
		{Name: "root", Dir: true, Mode: 0o700},
		{Name: "tmp", Dir: true, Mode: 0o1777},
		{Name: "home", Dir: true},
		{Name: "home/web", Dir: true, UID: 1000, GID: 1000},
		{Name: "proc", Dir: true}, {Name: "sys", Dir: true}, {Name: "dev", Dir: true},
	}
}

// Hello builds e2e/images/hello with the go command and returns an image of it,
// entrypoint /hello, cmd serve; see the program for what it can do.
func Hello(ctx context.Context) (*Image, error) {
	body, err := program(ctx, "github.com/wherry-project/wherry/e2e/images/hello")
	if err != nil {
		return nil, err
	}
	return Build(Spec{
		Layers:     []Layer{base(), {{Name: "hello", Body: body, Mode: 0o755}}},
		Entrypoint: []string{"/hello"}, Cmd: []string{"serve"},
		Env: []string{"PATH=/bin:/"},
	})
}

// program builds a static program of this repository, from within it.
func program(ctx context.Context, pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "wherry-testimage-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if said, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w: %s", pkg, err, bytes.TrimSpace(said))
	}
	return os.ReadFile(out)
}

// Busybox returns an image of the machine's static busybox, cmd sh.
func Busybox() (*Image, error) {
	body, err := staticBusybox()
	if err != nil {
		return nil, err
	}
	files := append(base(), File{Name: "bin", Dir: true}, File{Name: "bin/busybox", Body: body, Mode: 0o755})
	for _, applet := range []string{
		"sh", "cat", "chmod", "chown", "cut", "date", "df", "dd", "echo", "env", "expr", "false", "find", "grep", "head",
		"hostname", "id", "ip", "kill", "ln", "ls", "mkdir", "mount", "mv", "nc", "netstat", "nslookup", "ping", "printf",
		"ps", "pwd", "readlink", "rm", "sed", "seq", "sleep", "sort", "stat", "stty", "tail", "tar", "tee", "test",
		"touch", "tr", "true", "tty", "umount", "uname", "usleep", "wc", "wget", "whoami", "xargs", "yes", "sync",
	} {
		files = append(files, File{Name: "bin/" + applet, Hardlink: "bin/busybox", Mode: 0o755})
	}
	return Build(Spec{Layers: []Layer{files}, Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}})
}

// staticBusybox reads the machine's busybox and makes sure that it runs without
// any library.
func staticBusybox() ([]byte, error) {
	for _, p := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		body, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		f, err := elf.NewFile(bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		if libs, _ := f.ImportedLibraries(); len(libs) > 0 {
			return nil, fmt.Errorf("%s is not static; install busybox-static", p)
		}
		return body, nil
	}
	return nil, errors.New("no busybox on this machine; install busybox-static")
}
