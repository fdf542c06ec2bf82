package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// report is all that was measured, as Markdown: it reads well on a terminal too.
type report struct {
	to  io.Writer
	all bytes.Buffer
}

// print shows text and keeps it.
func (r *report) print(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.all.WriteString(text)
	io.WriteString(r.to, text) // a terminal that is gone ends the run by a signal
}

// table is one group of figures.
type table struct {
	title string
	// about says how it was measured.
	about string
	head  []string
	rows  [][]string
	notes []string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// show prints a table, its columns aligned.
func (r *report) show(t *table) {
	r.print("\n### %s\n\n", t.title)
	if t.about != "" {
		r.print("%s\n\n", t.about)
	}
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	line := func(row []string) {
		var b strings.Builder
		for i := range t.head {
			c := ""
			if i < len(row) {
				c = row[i]
			}
			b.WriteString("| " + c + strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)+1))
		}
		r.print("%s|\n", b.String())
	}
	line(t.head)
	rule := make([]string, len(t.head))
	for i := range rule {
		rule[i] = strings.Repeat("-", width[i])
	}
	line(rule)
	for _, row := range t.rows {
		line(row)
	}
	for _, n := range t.notes {
		r.print("\n%s\n", n)
	}
}

// goal says whether a figure is as good as it should be.
func goal(met bool, text string) string {
	if met {
		return text + ": ok"
	}
	return text + ": **missed**"
}

// The marks between which a file holds the figures.
const (
	beginMark = "<!-- figures: written by make bench-write -->"
	endMark   = "<!-- end of figures -->"
)

// save replaces the figures in a file.
func (r *report) save(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), beginMark)
	_, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return errors.New(file + " has no marks between which the figures go")
	}
	text := before + beginMark + "\n" + r.all.String() + "\n" + endMark + after
	return os.WriteFile(file, []byte(text), 0o644)
}
