package archtest

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
)

// body is one file read to its end.
type body struct {
	*checker
	source source
	fset   *token.FileSet
	file   *ast.File
}

func (b *body) line(n ast.Node) int { return b.fset.Position(n.Pos()).Line }

// noInit is the rest of rule 6.
func (b *body) noInit() {
	for _, d := range b.file.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			b.report(b.source, b.line(fn), "func init: what a package does, it does when it is called")
		}
	}
}

// The clock and chance, which a replicated state machine may not ask.
var (
	clocks = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"}
	chance = []string{"math/rand", "math/rand/v2", "crypto/rand", "github.com/google/uuid", "k8s.io/apimachinery/pkg/util/uuid", "k8s.io/apimachinery/pkg/util/rand"}
)

// deterministic is rule 5: the store and raftstore's state machine (the files
// that handle raft.Log, named fsm….go) are functions of (state, command).
func (b *body) deterministic() {
	fsm := strings.HasPrefix(path.Base(b.source.name), "fsm")
	switch b.source.dir {
	case "internal/store":
	case "internal/raftstore":
		if !fsm {
			b.logsElsewhere()
			return
		}
	default:
		return
	}
	for _, im := range b.source.imports {
		if slices.Contains(chance, im.path) {
			b.report(b.source, im.line, "imports %s: every replica must come to the same state", im.path)
		}
	}
	clock := b.nameOf("time")
	ast.Inspect(b.file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && selects(s, clock) && slices.Contains(clocks, s.Sel.Name) {
			b.report(b.source, b.line(s), "time.%s: every replica must come to the same state", s.Sel.Name)
		}
		return true
	})
}

// logsElsewhere reports a state machine outside the fsm files.
func (b *body) logsElsewhere() {
	raft := b.nameOf("github.com/hashicorp/raft")
	for _, d := range b.file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv == nil || fn.Name.Name != "Apply" && fn.Name.Name != "ApplyBatch" {
			continue
		}
		ast.Inspect(fn.Type, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && selects(s, raft) && s.Sel.Name == "Log" {
				b.report(b.source, b.line(fn), "%s applies Raft's log: the state machine is in files named fsm….go, which are held to be deterministic", fn.Name.Name)
			}
			return true
		})
	}
}

// hidden is the rest of rule 3: no exported signature speaks of hashicorp/raft
// or libcontainer.
func (b *body) hidden() {
	var names []string
	for _, module := range []string{"github.com/hashicorp/raft", "github.com/opencontainers/runc"} {
		for _, im := range b.source.imports {
			if within(im.path, module) {
				names = append(names, b.nameOf(im.path))
			}
		}
	}
	if len(names) == 0 {
		return
	}
	for _, d := range b.file.Decls {
		for _, n := range exported(d) {
			b.mentions(n, names)
		}
	}
}

func (b *body) mentions(in ast.Node, names []string) {
	ast.Inspect(in, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			for _, name := range names {
				if selects(s, name) {
					b.report(b.source, b.line(s), "%s.%s in an exported signature: it would be in everybody's", name, s.Sel.Name)
				}
			}
		}
		return true
	})
}

// exported returns the parts of a declaration that others see.
func exported(d ast.Decl) []ast.Node {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && (d.Recv == nil || exportedType(d.Recv.List[0].Type)) {
			return []ast.Node{d.Type}
		}
	case *ast.GenDecl:
		var out []ast.Node
		for _, s := range d.Specs {
			out = append(out, exportedSpec(s)...)
		}
		return out
	}
	return nil
}

func exportedSpec(s ast.Spec) []ast.Node {
	switch s := s.(type) {
	case *ast.ValueSpec:
		if s.Type != nil && slices.ContainsFunc(s.Names, (*ast.Ident).IsExported) {
			return []ast.Node{s.Type}
		}
	case *ast.TypeSpec:
		if !s.Name.IsExported() {
			return nil
		}
		st, ok := s.Type.(*ast.StructType)
		if !ok {
			return []ast.Node{s.Type}
		}
		var out []ast.Node
		for _, f := range st.Fields.List {
			if len(f.Names) == 0 || slices.ContainsFunc(f.Names, (*ast.Ident).IsExported) {
				out = append(out, f.Type)
			}
		}
		return out
	}
	return nil
}

func exportedType(t ast.Expr) bool {
	switch t := t.(type) {
	case *ast.StarExpr:
		return exportedType(t.X)
	case *ast.IndexExpr:
		return exportedType(t.X)
	case *ast.Ident:
		return t.IsExported()
	}
	return false
}

// nameOf returns the name by which the file calls an import, "" if it has none.
func (b *body) nameOf(importPath string) string {
	for _, im := range b.source.imports {
		if im.path != importPath {
			continue
		}
		if im.as != "" {
			return im.as
		}
		return path.Base(importPath)
	}
	return ""
}

func selects(s *ast.SelectorExpr, name string) bool {
	x, ok := s.X.(*ast.Ident)
	return ok && name != "" && x.Name == name
}
