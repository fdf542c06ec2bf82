package archtest

import (
	"fmt"
	"go/parser"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// sole names the modules that one package (or two that share a duty) alone may
// import: what they are for is then behind one small interface.
var sole = []struct {
	module string
	of     []string
}{
	{"github.com/google/nftables", []string{"nft"}},
	{"github.com/vishvananda/netlink", []string{"netns", "link"}},
	{"github.com/miekg/dns", []string{"dns"}},
	{"github.com/google/go-containerregistry", []string{"images"}},
	{"github.com/hashicorp/raft", []string{"raftstore"}},
	{"github.com/opencontainers/runc", []string{"runtime/runc/libct"}},
	{"sigs.k8s.io/structured-merge-diff", []string{"patch"}},
	{"k8s.io/kubectl", []string{"cli"}},
}

// blank lists the only imports that may be blank, and where.
var blank = []struct{ path, dir string }{
	{"embed", ""},
	{"time/tzdata", "cmd/"},
	{"github.com/opencontainers/runc/libcontainer/nsenter", "internal/runtime/runc/libct"},
	{"github.com/opencontainers/cgroups/devices", "internal/runtime/runc/libct"},
}

// never are package names that say nothing.
var never = []string{"util", "utils", "common", "helper", "helpers", "misc", "types", "manager"}

// Check returns what in the tree at root goes against its docs/layout.md, each
// as "file:line: what". An error means that the tree or the page cannot be read.
func Check(root fs.FS) ([]string, error) {
	page, err := fs.ReadFile(root, "docs/layout.md")
	if err != nil {
		return nil, err
	}
	l, err := readLayout(page)
	if err != nil {
		return nil, fmt.Errorf("docs/layout.md: %w", err)
	}
	files, err := readSources(root)
	if err != nil {
		return nil, err
	}
	c := &checker{layout: l, root: root}
	for _, f := range files {
		c.place(f)
		for _, im := range f.imports {
			c.layers(f, im)
			c.sides(f, im)
			c.soles(f, im)
			c.mechanisms(f, im)
			c.plainImport(f, im)
		}
		if err := c.body(f); err != nil {
			return nil, err
		}
	}
	slices.Sort(c.found)
	return slices.Compact(c.found), nil
}

type checker struct {
	layout *layout
	root   fs.FS
	found  []string
}

func (c *checker) report(f source, line int, format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf("%s:%d: %s", f.name, line, fmt.Sprintf(format, args...)))
}

// layer returns the layer of a folder below the root, and reports whether it
// is held to the layers.
func (c *checker) layer(dir string) (int, bool) {
	p, ok := strings.CutPrefix(dir, "internal/")
	if !ok {
		return program, true
	}
	r, ok := c.layout.find(p)
	return r.layer, ok
}

// outside reports whether a folder stands outside the layers.
func (c *checker) outside(dir string) bool {
	p, ok := strings.CutPrefix(dir, "internal/")
	return ok && c.layout.outside[p]
}

// place is rule 1, first half, and the names of rule 6: every package has its
// row and a name that says something.
func (c *checker) place(f source) {
	_, known := c.layer(f.dir)
	switch top, _, _ := strings.Cut(f.dir, "/"); {
	case top != "internal" && top != "cmd" && top != "e2e":
		c.report(f, 1, "package %s: programs are in cmd/, all else is in internal/", f.dir)
	case !known && !c.outside(f.dir):
		c.report(f, 1, "package %s is not in the table of docs/layout.md", f.dir)
	}
	if slices.Contains(never, strings.TrimSuffix(f.pkg, "_test")) || slices.Contains(never, path.Base(f.dir)) {
		c.report(f, 1, "package name %s says nothing: name it for what it holds", f.pkg)
	}
}

// layers is rule 1: imports go strictly down, those of tests not up.
func (c *checker) layers(f source, im imported) {
	to, ok := inside(im.path)
	if !ok {
		return
	}
	if c.layout.outside[to] {
		if !f.test && !c.outside(f.dir) && f.dir != "internal/testbed" && !strings.HasPrefix(f.dir, "e2e") {
			c.report(f, im.line, "imports %s, which is for tests", to)
		}
		return
	}
	from, held := c.layer(f.dir)
	if !held {
		return // outside, or reported by place
	}
	layer, known := c.layer("internal/" + to)
	if !known {
		return // reported at its own files
	}
	if layer > from || layer == from && !f.test {
		c.report(f, im.line, "imports %s of layer %d from layer %d: only lower layers may be imported (by tests: the same too)", to, layer, from)
	}
}

// sides is rule 2: the control side and the node side do not know each other,
// and no file of ours is cgo.
func (c *checker) sides(f source, im imported) {
	if im.path == "C" {
		c.report(f, im.line, "imports C: all but podrun builds without cgo, and podrun has its C from runc")
	}
	to, ok := inside(im.path)
	from, here := strings.CutPrefix(f.dir, "internal/")
	if !ok || !here {
		return
	}
	a, b := c.layout.sideOf(from), c.layout.sideOf(to)
	if a != "" && b != "" && a != b {
		c.report(f, im.line, "imports %s of the %s side from the %s side", to, b, a)
	}
}

// soles is rule 3: some modules have one importer, and libct is for podrun.
func (c *checker) soles(f source, im imported) {
	from := strings.TrimPrefix(f.dir, "internal/")
	if im.path == Module+"/internal/runtime/runc/libct" && f.dir != "cmd/podrun" && f.dir != "internal/runtime/runc/libct" {
		c.report(f, im.line, "imports libct: it is linked only into cmd/podrun")
	}
	if f.dir == "cmd/podrun" && strings.HasPrefix(im.path, "github.com/opencontainers/runc/libcontainer") {
		return // the init hook is main's first statement
	}
	for _, s := range sole {
		if within(im.path, s.module) && !slices.Contains(s.of, from) && !c.outside(f.dir) {
			c.report(f, im.line, "imports %s: only %s may", im.path, strings.Join(s.of, " and "))
		}
	}
	if f.dir == "internal/shim" || f.dir == "cmd/podshim" {
		if strings.Contains(im.path, ".") && im.path != Module+"/internal/shim" && !f.test {
			c.report(f, im.line, "imports %s: the shim is small by using the standard library only", im.path)
		}
	}
}

// within reports whether an import is of a module: hashicorp/raft stands for
// raft-boltdb too, structured-merge-diff for each of its versions.
func within(importPath, module string) bool {
	rest, ok := strings.CutPrefix(importPath, module)
	return ok && (rest == "" || rest[0] == '/' || rest[0] == '-')
}

// mechanisms is rule 4: they take a Config of their own.
func (c *checker) mechanisms(f source, im imported) {
	from, _ := strings.CutPrefix(f.dir, "internal/")
	r, ok := c.layout.find(from)
	if !ok || !r.mechanism || f.test {
		return
	}
	if to, _ := inside(im.path); to == "api" || strings.HasPrefix(im.path, "k8s.io/") || strings.HasPrefix(im.path, "sigs.k8s.io/") {
		c.report(f, im.line, "imports %s: a mechanism takes a small Config of its own, never Kubernetes' objects", im.path)
	}
}

// plainImport is the part of rule 6 on imports.
func (c *checker) plainImport(f source, im imported) {
	if im.as != "_" {
		return
	}
	for _, b := range blank {
		if im.path == b.path && (strings.HasPrefix(f.dir+"/", b.dir) || f.dir == b.dir) {
			return
		}
	}
	c.report(f, im.line, "blank import of %s: nothing happens by being imported", im.path)
}

// body checks what imports alone do not show.
func (c *checker) body(f source) error {
	if strings.HasPrefix(f.dir, "internal/gen/") {
		return nil
	}
	fset, file, err := parse(c.root, f.name, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	b := &body{checker: c, source: f, fset: fset, file: file}
	b.noInit()
	if !f.test {
		b.deterministic()
		b.hidden()
	}
	return nil
}
