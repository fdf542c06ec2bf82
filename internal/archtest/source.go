package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// source is one Go file.
type source struct {
	name    string // path below the root
	dir     string
	test    bool
	pkg     string
	imports []imported
}

// imported is one import of a file.
type imported struct {
	path string
	as   string // the name given to it, if any
	line int
}

// inside returns the path below internal/ of a package of this module.
func inside(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, Module+"/internal/")
}

// readSources reads the imports of every Go file below root, except in modules
// of their own, testdata and hidden folders.
func readSources(root fs.FS) ([]source, error) {
	var out []source
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enter(root, name, d.Name())
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		s, err := readSource(root, name)
		if err != nil {
			return err
		}
		out = append(out, s)
		return nil
	})
	return out, err
}

func enter(root fs.FS, name, base string) error {
	if name == "." {
		return nil
	}
	if base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return fs.SkipDir
	}
	if _, err := fs.Stat(root, path.Join(name, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func readSource(root fs.FS, name string) (source, error) {
	fset, f, err := parse(root, name, parser.ImportsOnly)
	if err != nil {
		return source{}, err
	}
	s := source{name: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), pkg: f.Name.Name}
	for _, spec := range f.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return source{}, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		im := imported{path: p, line: fset.Position(spec.Pos()).Line}
		if spec.Name != nil {
			im.as = spec.Name.Name
		}
		s.imports = append(s.imports, im)
	}
	return s, nil
}

func parse(root fs.FS, name string, mode parser.Mode) (*token.FileSet, *ast.File, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, nil, err
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, text, mode)
	return fset, f, err
}
