package images

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/testimage"
)

// mounted calls f with the image's files as overlayfs shows them, in a mount
// namespace that goes with its thread.
func mounted(t *testing.T, img Image, f func(root string)) {
	t.Helper()
	dir := t.TempDir()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread and its namespace end here
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			lowers := append(slices.Clone(img.Layers), t.TempDir())
			if err := unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+strings.Join(lowers, ":")); err != nil {
				return err
			}
			f(dir)
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// tree lists all files below root with their first bytes.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(p)
		rel, _ := filepath.Rel(root, p)
		out = append(out, rel+"="+string(body))
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return out
}

func TestWhiteouts(t *testing.T) {
	file := func(name string) testimage.File { return testimage.File{Name: name, Body: []byte("1")} }
	again := func(name string) testimage.File { return testimage.File{Name: name, Body: []byte("2")} }
	dir := func(name string) testimage.File { return testimage.File{Name: name, Dir: true} }
	below := testimage.Layer{
		dir("gone"), file("gone/a"), dir("opaque"), file("opaque/a"), file("opaque/b"), dir("part"), file("part/a"), file("part/b"),
		file("one"), dir("anew"), file("anew/a"), dir("turned"), file("turned/a"), file("file"), dir("late"), file("late/a"),
	}
	above := testimage.Layer{
		file(".wh.gone"), file(".wh.one"), file("part/.wh.a"),
		dir("opaque"), file("opaque/.wh..wh..opq"), again("opaque/c"),
		file(".wh.anew"), dir("anew"), again("anew/b"), // first gone, then made again
		dir("late"), again("late/b"), file(".wh.late"), // the other way round
		file(".wh.turned"), again("turned"), // a file where a directory was
		file(".wh.file"), dir("file"), again("file/x"), file(".wh..wh.plnk"),
	}
	b := newBench(t)
	b.push(t, "w:1", testimage.Spec{Layers: []testimage.Layer{below, above}})
	img := must(b.Pull(t.Context(), b.host+"/w:1"))(t)
	want := []string{"anew/b=2", "file/x=2", "late/b=2", "opaque/c=2", "part/b=1", "turned=2"}
	mounted(t, img, func(root string) {
		if got := tree(t, root); !slices.Equal(got, want) {
			t.Errorf("overlayfs shows %v\nwant %v", got, want)
		}
	})
	for name, there := range map[string]bool{"/gone": false, "/gone/a": false, "/opaque/a": false, "/opaque/c": true, "/anew/a": false, "/late/a": false, "/turned": true, "/one": false, "/part/b": true} {
		p, err := find(img.Layers, name)
		if err != nil || (p != "") != there {
			t.Errorf("find(%s) = %q, %v; want there: %v", name, p, err, there)
		}
	}
}

func TestFilesKeepWhatTheyAre(t *testing.T) {
	b := newBench(t)
	b.push(t, "f:1", testimage.Spec{Layers: []testimage.Layer{{
		{Name: "a", Body: []byte("x"), Mode: 0o4755, UID: 5, GID: 6, Xattrs: map[string]string{"user.k": "v", "trusted.overlay.redirect": "/etc"}},
		{Name: "b", Hardlink: "a", Mode: 0o4755, UID: 5, GID: 6}, {Name: "c", Symlink: "/a"}, {Name: "d", Dir: true, Mode: 0o1777, UID: 9},
	}}})
	img := must(b.Pull(t.Context(), b.host+"/f:1"))(t)
	stat := func(name string) *syscall.Stat_t {
		fi := must(os.Lstat(filepath.Join(img.Layers[0], name)))(t)
		return fi.Sys().(*syscall.Stat_t)
	}
	if a, l := stat("a"), stat("b"); a.Ino != l.Ino || a.Nlink != 2 {
		t.Error("the hard link is a file of its own")
	}
	if a := stat("a"); a.Uid != 5 || a.Gid != 6 || a.Mode&0o7777 != 0o4755 {
		t.Errorf("a is %d:%d %o", a.Uid, a.Gid, a.Mode)
	}
	if d := stat("d"); d.Uid != 9 || d.Mode&0o7777 != 0o1777 {
		t.Errorf("d is %d %o", d.Uid, d.Mode)
	}
	if target := must(os.Readlink(filepath.Join(img.Layers[0], "c")))(t); target != "/a" {
		t.Errorf("c points to %s", target)
	}
	var v [16]byte
	if n, err := unix.Lgetxattr(filepath.Join(img.Layers[0], "a"), "user.k", v[:]); err != nil || string(v[:n]) != "v" {
		t.Errorf("attribute %q, %v", v[:max(n, 0)], err)
	}
	if _, err := unix.Lgetxattr(filepath.Join(img.Layers[0], "a"), "trusted.overlay.redirect", v[:]); err == nil {
		t.Error("a layer may give overlayfs orders")
	}
}

// A layer that has tmp/x but no entry for tmp must not make /tmp 0755 root.
func TestUnlistedDirectoriesInherit(t *testing.T) {
	b := newBench(t)
	b.push(t, "i:1", testimage.Spec{Layers: []testimage.Layer{
		{{Name: "tmp", Dir: true, Mode: 0o1777, UID: 7, GID: 8}, {Name: "lib", Symlink: "/usr/lib"}, {Name: "usr/lib", Dir: true, Mode: 0o700}},
		{{Name: "other", Body: []byte("x")}},
		{{Name: "tmp/deep/x", Body: []byte("x")}, {Name: "lib/y", Body: []byte("y")}},
	}})
	img := must(b.Pull(t.Context(), b.host+"/i:1"))(t)
	mounted(t, img, func(root string) {
		fi, err := os.Stat(filepath.Join(root, "tmp"))
		if err != nil {
			t.Error(err)
			return
		}
		st := fi.Sys().(*syscall.Stat_t)
		if st.Mode&0o7777 != 0o1777 || st.Uid != 7 || st.Gid != 8 {
			t.Errorf("/tmp is %o of %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
		}
	})
}

func TestNothingLeavesTheLayer(t *testing.T) {
	b := newBench(t)
	outside := t.TempDir()
	b.push(t, "evil:1", testimage.Spec{Layers: []testimage.Layer{{
		{Name: "link", Symlink: outside}, {Name: "link/planted", Body: []byte("x")},
		{Name: "../../../../../../../../.." + outside + "/planted2", Body: []byte("x")},
		{Name: "up", Symlink: "../../../../../../../../.." + outside}, {Name: "up/.wh.victim", Body: nil},
	}}})
	_, err := b.Pull(t.Context(), b.host+"/evil:1")
	t.Log("pull:", err)
	if e := must(os.ReadDir(outside))(t); len(e) > 0 {
		t.Errorf("written outside: %v", e)
	}
}

func TestResolve(t *testing.T) {
	b := newBench(t)
	b.push(t, "u:1", testimage.Spec{Layers: []testimage.Layer{
		{
			{Name: "etc", Dir: true}, {Name: "etc/passwd", Body: []byte("web:x:1:1::/old:/bin/sh\n")},
			{Name: "usr/lib/group", Body: []byte("logs:x:7:web\nmail:x:8:\n")},
		},
		{{Name: "etc/passwd", Body: []byte("root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n")}, {Name: "etc/group", Symlink: "../usr/lib/group"}},
	}})
	img := must(b.Pull(t.Context(), b.host+"/u:1"))(t)
	for spec, want := range map[string]User{
		"":          {Home: "/root"},
		"web":       {UID: 1000, GID: 1001, Groups: []uint32{7}, Home: "/home/web"},
		"1000":      {UID: 1000, GID: 1001, Groups: []uint32{7}, Home: "/home/web"},
		"web:mail":  {UID: 1000, GID: 8, Home: "/home/web"},
		"4242":      {UID: 4242, Home: "/"},
		"4242:4343": {UID: 4242, GID: 4343, Home: "/"},
	} {
		got, err := img.Resolve(spec)
		if err != nil || got.UID != want.UID || got.GID != want.GID || !slices.Equal(got.Groups, want.Groups) || got.Home != want.Home {
			t.Errorf("Resolve(%q) = %+v, %v; want %+v", spec, got, err, want)
		}
	}
	for _, spec := range []string{"nobody", "web:nogroup", "-1"} {
		if u, err := img.Resolve(spec); err == nil {
			t.Errorf("Resolve(%q) = %+v", spec, u)
		}
	}
}

func TestFindFollowsLinksWithinTheImage(t *testing.T) {
	top, bottom := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(bottom, "usr/lib"), 0o755), os.WriteFile(filepath.Join(bottom, "usr/lib/f"), nil, 0o600),
		os.Symlink("/usr/lib", filepath.Join(top, "abs")), os.Symlink("usr/./lib", filepath.Join(top, "rel")),
		os.Symlink("loop", filepath.Join(top, "loop")), os.Symlink("../../../../etc", filepath.Join(top, "out")),
		os.MkdirAll(filepath.Join(top, "usr"), 0o755), os.Symlink("../usr/lib/../lib/f", filepath.Join(top, "usr/up")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	lowers := []string{top, bottom}
	for name, want := range map[string]string{
		"/abs/f": bottom + "/usr/lib/f", "rel/f": bottom + "/usr/lib/f", "/usr/up": bottom + "/usr/lib/f", "/usr/lib/../lib/f": bottom + "/usr/lib/f",
		"/out/passwd": "", "/usr/lib/f/g": "", "/none": "",
	} {
		if got, err := find(lowers, name); err != nil || got != want {
			t.Errorf("find(%s) = %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := find(lowers, "/loop"); err == nil {
		t.Error("a link to itself was followed to an end")
	}
}
