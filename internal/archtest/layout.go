// Package archtest holds the repository to docs/layout.md: who may import whom,
// and the other rules that page states. It reads the page's table and the Go
// files themselves; `make test` fails on a violation, and on a package that the
// table does not have. It stands outside the layers.
package archtest

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Module is the path of this repository's module.
const Module = "github.com/wherry-project/wherry"

// program is the layer of what is built out of all others: cmd/… and e2e.
const program = 100

// layout is what docs/layout.md says.
type layout struct {
	rows []row
	// outside the layers: for tests, or testing.
	outside map[string]bool
	// The two sides that never import one another, by first element of the path
	// below internal/.
	control, node map[string]bool
}

// row is one package of the table, or a family of them: controllers/<kind>.
type row struct {
	path      string // below internal/
	layer     int
	mechanism bool
}

// readLayout parses docs/layout.md.
func readLayout(page []byte) (*layout, error) {
	l := &layout{outside: make(map[string]bool)}
	inTable := false
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 {
			inTable = false
			continue
		}
		if strings.TrimSpace(cells[1]) == "layer" {
			inTable = true
			continue
		}
		number, name, _ := strings.Cut(strings.TrimSpace(cells[1]), " ")
		layer, err := strconv.Atoi(number)
		if !inTable || err != nil {
			continue
		}
		for _, path := range quoted(cells[2]) {
			l.rows = append(l.rows, row{path: path, layer: layer, mechanism: l.mechanism(layer, name)})
		}
	}
	if len(l.rows) == 0 {
		return nil, errors.New("no table of packages (| layer | package | …)")
	}
	var err error
	if l.control, err = side(page, `control\s+side`); err != nil {
		return nil, err
	}
	if l.node, err = side(page, `node\s+side`); err != nil {
		return nil, err
	}
	i := bytes.Index(page, []byte("stand outside the layers"))
	if i < 0 {
		return nil, errors.New("no sentence that says which packages stand outside the layers")
	}
	sentence := page[bytes.LastIndexAny(page[:i], ".\"")+1 : i]
	for _, name := range quoted(string(sentence)) {
		l.outside[name] = true
	}
	return l, nil
}

// mechanism reports whether a row belongs to layer 3's mechanisms: the name
// "mechanisms" stands at their first row and holds until another name comes.
func (l *layout) mechanism(layer int, name string) bool {
	if name != "" {
		return name == "mechanisms"
	}
	last := len(l.rows) - 1
	return last >= 0 && l.rows[last].layer == layer && l.rows[last].mechanism
}

// find returns the row of a package below internal/.
func (l *layout) find(path string) (row, bool) {
	for _, r := range l.rows {
		if r.path == path {
			return r, true
		}
	}
	dir, base, ok := cutLast(path)
	for _, r := range l.rows {
		family, member, isFamily := cutLast(r.path)
		if ok && isFamily && strings.HasPrefix(member, "<") && family == dir && base != "" {
			return r, true
		}
	}
	return row{}, false
}

// sideOf returns control, node or nothing.
func (l *layout) sideOf(path string) string {
	first, _, _ := strings.Cut(path, "/")
	switch {
	case l.control[first]:
		return "control"
	case l.node[first]:
		return "node"
	}
	return ""
}

func cutLast(path string) (dir, base string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// quoted returns what stands in back quotes, up to the first word that says
// more about a package: "`runtime/runc`; `runtime/runc/libct`" are two.
func quoted(text string) []string {
	var out []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

// side reads "The control side (`a b c`)".
func side(page []byte, name string) (map[string]bool, error) {
	m := regexp.MustCompile(name + "\\s+\\(`([^`]+)`\\)").FindSubmatch(page)
	if m == nil {
		return nil, fmt.Errorf("no list of the packages of the %s", strings.ReplaceAll(name, `\s+`, " "))
	}
	out := make(map[string]bool)
	for _, p := range strings.Fields(string(m[1])) {
		out[p] = true
	}
	return out, nil
}
