package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/testkit"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func apply(t *testing.T, s *Store, vols ...Volume) map[string]string {
	t.Helper()
	paths, err := s.Apply(t.Context(), Config{PodID: "pod-1", Volumes: vols})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func files(list ...string) *Files { // path, content, …
	f := &Files{}
	for i := 0; i < len(list); i += 2 {
		f.Add(list[i], []byte(list[i+1]), 0o640)
	}
	return f
}

// shows lists a volume as a program in the pod sees it: path=content.
func shows(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(d.Name(), "..") {
			if err == nil && d.IsDir() {
				err = fs.SkipDir
			}
			return err
		}
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			return err
		}
		return filepath.WalkDir(target, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || path == dir {
				return err
			}
			b, err := os.ReadFile(p)
			out = append(out, path[len(dir)+1:]+strings.TrimPrefix(p, target)+"="+string(b))
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Mode() & (os.ModePerm | os.ModeSetgid)
}

func TestFiles(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	s := open(t)
	steps := []struct {
		name, want string
		files      *Files
	}{
		{"first", "a=1 d/e/f=deep", files("a", "1", "d/e/f", "deep")},
		{"one changes", "a=2 d/e/f=deep", files("a", "2", "d/e/f", "deep")},
		{"one comes, one goes", "b=3 d/e/f=deep", files("b", "3", "d/e/f", "deep")},
		{"a folder goes", "b=3", files("b", "3")},
		{"all go", "", files()},
		{"and come back", "b=3", files("b", "3")},
	}
	for _, st := range steps {
		dir := apply(t, s, Volume{Name: "v", Files: st.files})["v"]
		if got := shows(t, dir); got != st.want {
			t.Errorf("%s: %q, want %q", st.name, got, st.want)
		}
		// The form that Kubernetes' programs know, and nothing left over.
		link, err := os.Readlink(filepath.Join(dir, "..data"))
		if err != nil || !strings.HasPrefix(link, "..20") {
			t.Errorf("%s: ..data is %q, %v", st.name, link, err)
		}
		hidden, err := filepath.Glob(filepath.Join(dir, "..*"))
		if err != nil || len(hidden) != 2 {
			t.Errorf("%s: %q, %v", st.name, hidden, err)
		}
		// Applying again changes nothing.
		apply(t, s, Volume{Name: "v", Files: st.files})
		if again, err := os.Readlink(filepath.Join(dir, "..data")); err != nil || again != link {
			t.Errorf("%s: applied again, ..data is %q, %v; was %q", st.name, again, err, link)
		}
		if mode(t, dir) != 0o755 {
			t.Errorf("mode %v", mode(t, dir))
		}
	}
	if got := mode(t, filepath.Join(s.pod("pod-1"), "v", "b")); got != 0o640 {
		t.Errorf("a file's mode is %v", got)
	}
}

// A program that has a file open through ..data, or opens it anew, sees the old
// set or the new one, and never a missing file.
func TestFilesChangeAtOneMoment(t *testing.T) {
	s := open(t)
	dir := apply(t, s, Volume{Name: "v", Files: files("a", "0", "b", "0")})["v"]
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			now, err := os.Readlink(filepath.Join(dir, "..data"))
			if err != nil {
				done <- err
				return
			}
			a, err := os.ReadFile(filepath.Join(dir, now, "a"))
			b, berr := os.ReadFile(filepath.Join(dir, now, "b"))
			if err == nil && berr == nil && string(a) != string(b) {
				done <- fmt.Errorf("%q and %q in one set", a, b)
				return
			}
			if _, err := os.ReadFile(filepath.Join(dir, "a")); err != nil && !errors.Is(err, fs.ErrNotExist) {
				done <- err
				return
			}
		}
	}()
	for n := range 200 {
		apply(t, s, Volume{Name: "v", Files: files("a", fmt.Sprint(n), "b", fmt.Sprint(n))})
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFilesAfterACrash(t *testing.T) {
	s := open(t)
	dir := apply(t, s, Volume{Name: "v", Files: files("a", "1")})["v"]
	if err := os.MkdirAll(filepath.Join(dir, "..2020_01_01_00_00_00.1", "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "..data_tmp")); err != nil {
		t.Fatal(err)
	}
	apply(t, s, Volume{Name: "v", Files: files("a", "2")})
	if got := shows(t, dir); got != "a=2" {
		t.Errorf("shows %q", got)
	}
	if hidden, err := filepath.Glob(filepath.Join(dir, "..*")); err != nil || len(hidden) != 2 {
		t.Errorf("left %q, %v", hidden, err)
	}
}

func TestBadPaths(t *testing.T) {
	s := open(t)
	for _, path := range []string{"../x", "/x", "a/../../x", "..x", ""} {
		if _, err := s.Apply(t.Context(), Config{PodID: "p", Volumes: []Volume{{Name: "v", Files: files(path, "1")}}}); err == nil {
			t.Errorf("path %q is taken", path)
		}
	}
	for _, c := range []Config{{PodID: "../p"}, {PodID: "p", Volumes: []Volume{{Name: "../v", Empty: &Empty{}}}}, {PodID: "p", Volumes: []Volume{{Name: "v"}}}} {
		if _, err := s.Apply(t.Context(), c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	if err := s.Remove(t.Context(), "../x"); err == nil {
		t.Error("removes outside")
	}
}

func TestEmpty(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	s := open(t)
	dir := apply(t, s, Volume{Name: "e", Empty: &Empty{}})["e"]
	if got := mode(t, dir); got != 0o777 {
		t.Errorf("mode %v", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	apply(t, s, Volume{Name: "e", Empty: &Empty{}})
	if _, err := os.Stat(filepath.Join(dir, "kept")); err != nil {
		t.Error("what was in it is gone after another Apply")
	}
	if got, err := s.List(); err != nil || len(got) != 1 || got[0] != "pod-1" {
		t.Errorf("list %v, %v", got, err)
	}
	for range 2 {
		if err := s.Remove(t.Context(), "pod-1"); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.List(); err != nil || len(got) != 0 {
		t.Errorf("list %v, %v", got, err)
	}
}

func TestHostPath(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("file")
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tests := []struct{ path, kind, fails string }{
		{"new", "", ""}, {"file", "", ""}, {"made", "DirectoryOrCreate", ""}, {"made", "Directory", ""}, {"none", "Directory", "no such file"},
		{"file", "Directory", "hostPath type check failed: " + dir + "/file is not a directory"},
		{"file", "File", ""}, {"none", "File", "no such file"}, {"made", "File", "is not a file"}, {"touched", "FileOrCreate", ""}, {"file", "FileOrCreate", ""},
		{"no/parent", "FileOrCreate", "no such file"}, {"socket", "Socket", ""}, {"file", "Socket", "is not a socket file"},
		{"/dev/null", "CharDevice", ""}, {"file", "CharDevice", "is not a character device"}, {"/dev/null", "BlockDevice", "is not a block device"},
		{"file", "Odd", "not known"},
	}
	for _, tt := range tests {
		path := tt.path
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		paths, err := open(t).Apply(t.Context(), Config{PodID: "p", Volumes: []Volume{{Name: "h", Host: &Host{Path: path, Type: tt.kind}}}})
		if tt.fails == "" && (err != nil || paths["h"] != path) || tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)) {
			t.Errorf("%s as %q: %v, %v; want %q", path, tt.kind, paths, err, tt.fails)
		}
	}
	if _, err := open(t).Apply(t.Context(), Config{PodID: "p", Volumes: []Volume{{Name: "h", Host: &Host{Path: "relative"}}}}); err == nil {
		t.Error("a relative path is taken")
	}
}

func TestMemoryAndGroups(t *testing.T) {
	testkit.NeedsRoot(t)
	s, group := open(t), int64(4711)
	secret := files("token", "hush")
	secret.Memory = true
	cfg := Config{PodID: "pod-1", FSGroup: &group, Volumes: []Volume{
		{Name: "m", Empty: &Empty{Memory: true, Size: 1 << 20}}, {Name: "e", Empty: &Empty{}}, {Name: "s", Files: secret},
	}}
	t.Cleanup(func() {
		if err := s.Remove(t.Context(), "pod-1"); err != nil {
			t.Error(err)
		}
	})
	for range 2 { // again changes nothing
		paths, err := s.Apply(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for name, memory := range map[string]bool{"m": true, "e": false, "s": true} {
			var st unix.Statfs_t
			if err := unix.Statfs(paths[name], &st); err != nil {
				t.Fatal(err)
			}
			if is := st.Type == unix.TMPFS_MAGIC; is != memory {
				t.Errorf("%s is in RAM: %v", name, is)
			}
			if name == "m" && int64(st.Blocks)*st.Bsize != 1<<20 {
				t.Errorf("size %d", int64(st.Blocks)*st.Bsize)
			}
			info, err := os.Stat(paths[name])
			if err != nil {
				t.Fatal(err)
			}
			if name != "s" && (info.Sys().(*syscall.Stat_t).Gid != 4711 || mode(t, paths[name]) != 0o777|os.ModeSetgid) {
				t.Errorf("%s: group %d, mode %v", name, info.Sys().(*syscall.Stat_t).Gid, mode(t, paths[name]))
			}
		}
		info, err := os.Stat(filepath.Join(paths["s"], "token"))
		if err != nil || info.Sys().(*syscall.Stat_t).Gid != 4711 || info.Mode().Perm() != 0o640 {
			t.Errorf("token: %+v, %v", info, err)
		}
		points, err := mountsBelow(s.pod("pod-1"))
		if err != nil || len(points) != 2 {
			t.Errorf("mounts %v, %v", points, err)
		}
	}
}

// What a container mounted inside its volume, or what a subPath shows, is
// unmounted and not removed.
func TestRemoveStopsAtMounts(t *testing.T) {
	testkit.NeedsRoot(t)
	s, host := open(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := apply(t, s, Volume{Name: "e", Empty: &Empty{}})["e"]
	inner := filepath.Join(dir, "a b", "inner")
	if err := os.MkdirAll(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // one over the other
		if err := unix.Mount(host, inner, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.SubPath(t.Context(), "pod-1", "c-0", host, "."); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "pod-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(host, "precious")); err != nil {
		t.Errorf("the host's file: %v", err)
	}
	if _, err := os.Stat(s.pod("pod-1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

func TestSubPath(t *testing.T) {
	testkit.NeedsRoot(t)
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	s, outside := open(t), t.TempDir()
	t.Cleanup(func() {
		if err := s.Remove(t.Context(), "pod-1"); err != nil {
			t.Error(err)
		}
	})
	vol := apply(t, s, Volume{Name: "e", Empty: &Empty{}})["e"]
	if err := os.WriteFile(filepath.Join(vol, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"in": "file", "out": outside, "up": "../../.."} {
		if err := os.Symlink(to, filepath.Join(vol, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(vol, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := s.SubPath(t.Context(), "pod-1", "c-0", vol, "x/y")
	if err != nil {
		t.Fatal(err)
	}
	if mode(t, dir) != 0o777 || mode(t, filepath.Join(vol, "x")) != 0o777 {
		t.Errorf("made with modes %v, %v; want the volume's", mode(t, dir), mode(t, filepath.Join(vol, "x")))
	}
	// What it shows stays, whatever is put in its place.
	if err := os.Rename(filepath.Join(vol, "x"), filepath.Join(vol, "z")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(vol, "x")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "here"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(vol, "z", "y", "here")); err != nil {
		t.Errorf("it shows something else: %v", err)
	}
	for _, sub := range []string{"file", "in"} { // the same mount again, now a file
		got, err := s.SubPath(t.Context(), "pod-1", "c-0", vol, sub)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(got); err != nil || string(b) != "content" {
			t.Errorf("%s: %q, %v", sub, b, err)
		}
	}
	for _, sub := range []string{"out", "out/x", "up", "up/x", "..", "../x", "/etc", "x/y", "fifo", "file/x"} {
		if got, err := s.SubPath(t.Context(), "pod-1", "c-1", vol, sub); err == nil {
			t.Errorf("%s leads to %s", sub, got)
		}
	}
	if points, err := mountsBelow(s.pod("pod-1")); err != nil || len(points) != 1 {
		t.Errorf("mounts %v, %v; want one for the one mount", points, err)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/a\040b`: "/a b", `/a\134b`: `/a\b`, `/a\04`: `/a\04`, `/a\9xx`: `/a\9xx`, `/a`: "/a"} {
		if got := unescape(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}
