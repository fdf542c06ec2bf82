package images

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/testimage"
)

func TestImport(t *testing.T) {
	img := must(testimage.Build(two()))(t)
	spec := two()
	spec.Env, spec.Plain = []string{"B=c"}, true
	other := must(testimage.Build(spec))(t)
	names := map[string]*testimage.Image{"example.test/a:1": img, "example.test/a:2": img, "b": other}
	for kind, write := range map[string]func(io.Writer, map[string]*testimage.Image) error{
		"OCI layout": testimage.WriteOCI, "docker archive": testimage.WriteDocker,
		"OCI layout, gzipped": func(w io.Writer, m map[string]*testimage.Image) error {
			z := gzip.NewWriter(w)
			defer z.Close()
			return testimage.WriteOCI(z, m)
		},
	} {
		b := newBench(t)
		var file bytes.Buffer
		if err := write(&file, names); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Import(t.Context(), &file); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		for name, want := range map[string]*testimage.Image{"example.test/a:1": img, "example.test/a:2": img, "docker.io/library/b:latest": other, "b": other} {
			got, ok := b.Lookup(name)
			if id := must(want.ID())(t); !ok || got.ID != id {
				t.Errorf("%s: %s is %v %s, want %s", kind, name, ok, got.ID, id)
			}
		}
		if n := len(b.List()); n != 2 {
			t.Errorf("%s: %d images", kind, n)
		}
	}
}

func TestExportImportRoundTrip(t *testing.T) {
	b := newBench(t)
	pushed := b.push(t, "app:1", two())
	name := b.host + "/app:1"
	img := must(b.Pull(t.Context(), name))(t)
	var file bytes.Buffer
	if err := b.Export(t.Context(), &file, name); err != nil {
		t.Fatal(err)
	}
	c := newBench(t)
	got := must(c.Import(t.Context(), bytes.NewReader(file.Bytes())))(t)
	if len(got) != 1 || got[0].ID != img.ID || !slices.Equal(got[0].RepoTags, []string{name}) ||
		got[0].PinnedName() != b.host+"/app@"+must(pushed.Digest())(t) {
		t.Errorf("came back as %+v", got)
	}
	var again bytes.Buffer
	if err := c.Export(t.Context(), &again, name); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file.Bytes(), again.Bytes()) {
		t.Error("a second export differs")
	}
	if err := b.Export(t.Context(), io.Discard, "nothing"); err == nil {
		t.Error("exported what is not there")
	}
	// Without index.json it is what docker save wrote before it knew OCI.
	docker := bytes.ReplaceAll(file.Bytes(), []byte("index.json"), []byte("indexxjson"))
	docker = fixChecksums(docker)
	d := newBench(t)
	if got, err := d.Import(t.Context(), bytes.NewReader(docker)); err != nil || got[0].ID != img.ID {
		t.Errorf("docker's part: %v", err)
	}
}

// fixChecksums repairs tar headers after a name was changed.
func fixChecksums(b []byte) []byte {
	i := bytes.Index(b, []byte("indexxjson\x00"))
	sum := 0
	for j, c := range b[i : i+512] {
		if j >= 148 && j < 156 {
			c = ' '
		}
		sum += int(c)
	}
	copy(b[i+148:], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
	return b
}

func TestImportRefusesDamage(t *testing.T) {
	img := must(testimage.Build(two()))(t)
	var file bytes.Buffer
	if err := testimage.WriteOCI(&file, map[string]*testimage.Image{"a:1": img}); err != nil {
		t.Fatal(err)
	}
	layer := strings.TrimPrefix(must(img.LayerDigests())(t)[0], "sha256:")
	body := file.Bytes()
	at := bytes.Index(body, []byte(layer)) // its tar header; the blob follows
	damaged := slices.Clone(body)
	damaged[at/512*512+512+30] ^= 1
	b := newBench(t)
	if _, err := b.Import(t.Context(), bytes.NewReader(damaged)); err == nil {
		t.Error("a damaged layer was imported")
	}
	renamed := bytes.Replace(body, []byte(`"config":{"mediaType":"a`), []byte(`"config":{"mediaType":"b`), 1)
	for what, bytes := range map[string]io.Reader{
		"changed manifest": bytes.NewReader(renamed),
		"cut":              bytes.NewReader(body[:len(body)/2]), "empty": bytes.NewReader(nil), "text": strings.NewReader(strings.Repeat("no tar ", 1000)),
	} {
		if _, err := b.Import(t.Context(), bytes); err == nil {
			t.Errorf("%s archive was imported", what)
		}
	}
	if bytes.Equal(renamed, body) {
		t.Error("the manifest was not found")
	}
	if n := len(b.List()); n != 0 {
		t.Errorf("%d images after damage", n)
	}
	if l := b.leftovers(t); len(l) > 0 {
		t.Errorf("left in tmp: %v", l)
	}
}

func TestRemove(t *testing.T) {
	b := newBench(t)
	b.push(t, "app:1", two())
	b.push(t, "app:2", two())
	spec := two()
	spec.Layers = spec.Layers[:1]
	b.push(t, "base:1", spec)
	for _, n := range []string{"/app:1", "/app:2", "/base:1"} {
		must(b.Pull(t.Context(), b.host+n))(t)
	}
	if err := b.Remove(t.Context(), b.host+"/app:1"); err != nil {
		t.Fatal(err)
	}
	img, ok := b.Lookup(b.host + "/app:2")
	if !ok || len(img.RepoTags) != 1 {
		t.Fatalf("the other tag: %+v", img)
	}
	if err := b.Remove(t.Context(), b.host+"/app:2"); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Lookup(img.ID); ok {
		t.Error("the image outlived its last tag")
	}
	if n := len(must(os.ReadDir(b.path("layers")))(t)); n != 1 {
		t.Errorf("%d layers left, want the base's", n)
	}
	base, _ := b.Lookup(b.host + "/base:1")
	if _, err := os.Stat(filepath.Join(base.Layers[0], "etc/passwd")); err != nil {
		t.Error(err)
	}
	if err := b.Remove(t.Context(), base.ID); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"layers", "blobs", "tmp"} {
		if e := must(os.ReadDir(b.path(d)))(t); len(e) > 0 {
			t.Errorf("%s still holds %d entries", d, len(e))
		}
	}
	if err := b.Remove(t.Context(), "nothing"); err == nil {
		t.Error("removed what is not there")
	}
	b.reopen(t)
	if n := len(b.List()); n != 0 {
		t.Errorf("%d images after reopening", n)
	}
}

func TestCollect(t *testing.T) {
	b := newBench(t)
	var ids []string
	for i, n := range []string{"/a:1", "/b:1", "/c:1"} {
		spec := two()
		spec.Layers = append(spec.Layers, testimage.Layer{{Name: "n", Body: []byte{byte(i)}}})
		b.push(t, n[1:], spec)
		ids = append(ids, must(b.Pull(t.Context(), b.host+n))(t).ID)
	}
	none := func(Image) bool { return false }
	if got := must(b.Collect(t.Context(), Collection{InUse: none, High: 100, Low: 90}))(t); len(got.Images) > 0 {
		t.Errorf("a disk that is not full: %+v", got)
	}
	if got := must(b.Collect(t.Context(), Collection{InUse: none, MinAge: time.Hour}))(t); len(got.Images) > 0 {
		t.Errorf("images used a moment ago: %+v", got)
	}
	b.Lookup(b.host + "/a:1") // now b is longest unused, and c in use
	inUse := func(i Image) bool { return i.ID == ids[2] }
	b.used[ids[2]] = time.Time{}
	if c := b.candidates(Collection{InUse: inUse, MinAge: time.Hour}); len(c) > 0 || b.used[ids[2]].IsZero() {
		t.Errorf("in use counts as used now: %v, candidates %v", b.used[ids[2]], c)
	}
	got := must(b.Collect(t.Context(), Collection{InUse: inUse}))(t)
	if !slices.Equal(got.Images, []string{ids[1], ids[0]}) || got.Bytes == 0 {
		t.Errorf("collected %+v", got)
	}
	if l := b.List(); len(l) != 1 || l[0].ID != ids[2] {
		t.Errorf("left: %+v", l)
	}
	for _, p := range l3(b.List()[0]) {
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
	u := must(b.Usage())(t)
	if u.Images == 0 || u.Total == 0 || u.Free > u.Total {
		t.Errorf("usage %+v", u)
	}
}

func l3(i Image) []string { return i.Layers }

// What a pull has brought but not yet entered in the index is not garbage.
func TestCollectSparesPullsUnderWay(t *testing.T) {
	b := newBench(t)
	img := must(testimage.Build(two()))(t)
	layers := must(img.LayerDigests())(t)
	release := b.hold(layers...)
	if err := os.WriteFile(b.blobPath(layers[0]), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	must(b.Collect(t.Context(), Collection{}))(t)
	if _, err := os.Stat(b.blobPath(layers[0])); err != nil {
		t.Errorf("collected under way: %v", err)
	}
	release()
	must(b.Collect(t.Context(), Collection{}))(t)
	if _, err := os.Stat(b.blobPath(layers[0])); err == nil {
		t.Error("kept for ever")
	}
}
