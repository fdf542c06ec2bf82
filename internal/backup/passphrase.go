package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// maxPassphrase bounds a passphrase.
const maxPassphrase = 4096

// Passphrase gets a passphrase: out of a file; from standard input if the file
// is "-"; or, if there is none, by asking at the terminal, twice if it is a new
// one. It is never an argument: others can read those.
func Passphrase(file string, in *os.File, prompt io.Writer, fresh bool) ([]byte, error) {
	switch {
	case file == "-":
		return line(in, "standard input")
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("--passphrase-file: %w", err)
		}
		defer f.Close()
		return line(f, file)
	case !term.IsTerminal(int(in.Fd())):
		return nil, errors.New("a passphrase is needed, and there is no terminal to ask at: give --passphrase-file FILE, or --passphrase-file - to read it from standard input")
	}
	one, err := ask(in, prompt, "Passphrase: ")
	if err != nil || !fresh {
		return one, err
	}
	two, err := ask(in, prompt, "The same again: ")
	if err == nil && !bytes.Equal(one, two) {
		err = errors.New("the two passphrases differ; nothing was done")
	}
	return one, err
}

func ask(in *os.File, prompt io.Writer, text string) ([]byte, error) {
	fmt.Fprint(prompt, text)
	b, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(prompt)
	if err == nil && len(b) == 0 {
		err = errors.New("the passphrase is empty")
	}
	return b, err
}

// line reads a passphrase: everything up to the end of the first line.
func line(from io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(from, maxPassphrase+1))
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	b, _, _ = bytes.Cut(b, []byte("\n"))
	b = bytes.TrimSuffix(b, []byte("\r"))
	switch {
	case len(b) == 0:
		return nil, fmt.Errorf("the passphrase in %s is empty: its first line must be the passphrase", name)
	case len(b) > maxPassphrase:
		return nil, fmt.Errorf("the passphrase in %s is longer than %d bytes", name, maxPassphrase)
	}
	return b, nil
}
