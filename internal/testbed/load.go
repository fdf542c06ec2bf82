package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// Load imports image archives (OCI layout or docker-archive, all tags in
// them) onto every node.
func (t *Testbed) Load(ctx context.Context, files ...string) error {
	for _, file := range files {
		if err := t.loadOne(ctx, file); err != nil {
			return fmt.Errorf("load %s: %w", file, err)
		}
	}
	return nil
}

// loadOne hands the archive over as standard input, because the client may not
// have it at the same path.
func (t *Testbed) loadOne(ctx context.Context, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return errors.Join(errors.New("an image is loaded from an archive file, not a folder (`tar -cf IMAGE.tar -C FOLDER .` makes one)"), err)
	}
	t.progress("load " + file + " onto every node")
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	var errs bytes.Buffer
	err = t.Run(ctx, Client, Command{Argv: []string{"wherry", "image", "import", "-"}, Stdin: f, Stderr: &errs})
	if exit := (*ExitError)(nil); errors.As(err, &exit) {
		exit.Stderr = errs.String()
	}
	return err
}
