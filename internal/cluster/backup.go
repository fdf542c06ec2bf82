package cluster

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/backup"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/store"
)

// Source gives what a backup of the cluster as it is now is made of.
func (s *Server) Source(ctx context.Context) (backup.Source, error) {
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return backup.Source{}, err
	}
	set, err := ReadSettings(snap)
	if err != nil {
		return backup.Source{}, err
	}
	src := backup.Source{Cluster: set.ClusterID, Version: s.cfg.Version, State: snap.Raw(), Now: s.cfg.Now()}
	if s.cfg.Keyring != nil {
		if src.Keys, _, _, err = s.cfg.Keyring.keysAt(snap); err != nil {
			return backup.Source{}, err
		}
	}
	return src, nil
}

// Backup implements wherryv1.ClusterServer. Who may have it may read all
// Secrets anyway, and signs with the CA by asking for it; the caller encrypts,
// so that the passphrase never travels.
func (s *Server) Backup(_ *wherryv1.BackupRequest, out grpc.ServerStreamingServer[wherryv1.BackupResponse]) error {
	ctx := out.Context()
	u, err := s.master(ctx, "make backups")
	if err != nil {
		return err
	}
	src, err := s.Source(ctx)
	if err != nil {
		return err
	}
	m, err := src.Manifest()
	if err != nil {
		return apierr.Internal(err)
	}
	err = out.Send(&wherryv1.BackupResponse{Manifest: &wherryv1.BackupManifest{
		Format: int32(m.Format), ClusterId: m.Cluster, Revision: m.Revision, Created: m.Created.Format(time.RFC3339),
		Version: m.Version, Objects: int64(m.Objects), Bytes: m.Bytes, Sha256: m.SHA256,
	}})
	if err != nil {
		return err
	}
	if err := src.Write(sender{out}); err != nil {
		return err
	}
	s.cfg.Log.Info("backup given out", "user", u.Name, "revision", m.Revision, "objects", m.Objects, "bytes", m.Bytes)
	return nil
}

// sender sends what is written to it, in messages of a bounded size.
type sender struct {
	out grpc.ServerStreamingServer[wherryv1.BackupResponse]
}

// sendBytes bounds one message.
const sendBytes = 256 << 10

// Write implements io.Writer.
func (s sender) Write(b []byte) (int, error) {
	for done := 0; done < len(b); done += sendBytes {
		part := b[done:min(len(b), done+sendBytes)]
		if err := s.out.Send(&wherryv1.BackupResponse{Data: part}); err != nil {
			return done, err
		}
	}
	return len(b), nil
}
