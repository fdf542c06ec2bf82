package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// Fetch gets a backup from a controld and writes it into an encrypted
// file, which is there as a whole or not at all.
func Fetch(ctx context.Context, c wherryv1.ClusterClient, file string, passphrase []byte) (Manifest, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Backup(ctx, &wherryv1.BackupRequest{})
	if err != nil {
		return Manifest{}, err
	}
	first, err := stream.Recv()
	if err != nil {
		return Manifest{}, err
	}
	m, err := manifestOf(first.GetManifest())
	if err != nil {
		return m, err
	}
	return m, WriteFile(file, passphrase, m, func(w io.Writer) error {
		var n int64
		for {
			part, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
			n += int64(len(part.GetData()))
			if _, err := w.Write(part.GetData()); err != nil {
				return err
			}
		}
		if n <= m.Bytes {
			return fmt.Errorf("the controld sent %d bytes, less than the %d of its state: nothing was written, try again", n, m.Bytes)
		}
		return nil
	})
}

func manifestOf(m *wherryv1.BackupManifest) (Manifest, error) {
	created, err := time.Parse(time.RFC3339, m.GetCreated())
	if err != nil || m.GetClusterId() == "" {
		return Manifest{}, errors.New("the controld's answer is not a backup: is it of a newer version?")
	}
	return Manifest{
		Format: int(m.GetFormat()), Cluster: m.GetClusterId(), Revision: m.GetRevision(), Created: created,
		Version: m.GetVersion(), Objects: int(m.GetObjects()), Bytes: m.GetBytes(), SHA256: m.GetSha256(),
	}, nil
}
