package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/wherry-project/wherry/internal/alloc"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/bootstrap"
	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/raftstore"
)

// initCluster makes a cluster of one member and writes its first objects.
func initCluster(ctx context.Context, cfg config, adminFile string, out io.Writer) error {
	if err := refuseData(cfg.DataDir); err != nil {
		return err
	}
	self, err := cfg.advertise(ctx)
	if err != nil {
		return err
	}
	if _, err := os.Stat(adminFile); err == nil {
		return fmt.Errorf("%s is there already, the key to another cluster: move it away first", adminFile)
	}
	set, err := cfg.settings()
	if err != nil {
		return err
	}
	if set.ClusterID, err = newClusterID(); err != nil {
		return err
	}
	m := member{Name: cfg.Name, Settings: set}
	if m.ID, err = cluster.NewMemberID(cfg.Name); err != nil {
		return err
	}
	dir := prepareDir(cfg.DataDir)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	now := time.Now()
	ca, err := pki.NewAuthority(set.ClusterID, now)
	if err != nil {
		return err
	}
	names, addrs := cfg.wanted(self)
	names, addrs = pki.ServerNames(names, addrs, set.FirstService(), set.Domain)
	keys, err := newIdentity(filepath.Join(dir, "identity"), ca, pki.MemberRequest(m.Name, names, addrs), now)
	if err != nil {
		return err
	}
	own, err := keys.Agree()
	if err != nil {
		return err
	}
	first := cluster.Founder{
		Name: m.Name, Member: m.ID, Key: keys.Self().Key, Names: names, Addresses: addrs,
		Public: keys.PublicDER(), Keyring: cluster.NewKeyring(own, keys.Self().Key),
	}
	if err := firstState(ctx, cfg, m.raftIn(dir), m, cfg.grpcAddress(self), ca, first); err != nil {
		return err
	}
	kubeconfig, err := adminKubeconfig(ca, cfg.server(self), now)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(adminFile), 0o755); err != nil {
		return err
	}
	if err := pki.WriteFile(adminFile, kubeconfig, 0o600); err != nil {
		return err
	}
	if err := cfg.writeIfMissing(); err != nil {
		return err
	}
	if err := m.save(cfg.DataDir); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "cluster %s made; its administrator's kubeconfig is %s\nnext: start controld, then let machines join with a token of `wherry cluster token create`\n", set.ClusterID, adminFile)
	return err
}

func newClusterID() (string, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make cluster id: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

func newIdentity(dir string, ca *pki.Authority, r pki.Request, now time.Time) (*pki.KeyPair, error) {
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	cert, err := ca.Sign(key.Public(), r, now)
	if err != nil {
		return nil, err
	}
	return pki.SaveKeyPair(dir, key, cert, ca.Certificate().Raw)
}

// firstState writes the first state of a cluster into a Raft of one member.
func firstState(ctx context.Context, cfg config, dir string, m member, address string, ca *pki.Authority, first cluster.Founder) (err error) {
	table := kinds.Table()
	raft, err := raftstore.Open(raftstore.Config{
		ID: m.ID, Address: address, Dir: dir, Codec: api.NewCodec(table, 0), Sealer: first.Keyring, Logger: slog.New(slog.DiscardHandler),
		Dial: func(context.Context, string) (grpc.ClientConnInterface, error) {
			return nil, errors.New("a new cluster has no other members")
		},
		Timeouts: raftstore.Timeouts{Heartbeat: 50 * time.Millisecond, Election: 50 * time.Millisecond, Lease: 40 * time.Millisecond},
	})
	if err != nil {
		return err
	}
	defer func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, raft.Close(late))
	}()
	if err := raft.Bootstrap(); err != nil {
		return err
	}
	if err := untilReady(ctx, raft); err != nil {
		return err
	}
	records, err := cluster.Found(ca, m.Settings, first)
	if err != nil {
		return err
	}
	tokens, err := authn.FoundKeys(time.Now())
	if err != nil {
		return err
	}
	records = append(records, tokens)
	return bootstrap.Write(ctx, raft, bootstrap.Config{
		Kinds: table, Alloc: alloc.New(ranges(m.Settings)), DNS: m.Settings.DNS(), APIPort: int32(cfg.HTTPSPort), Now: time.Now(),
	}, records...)
}

// untilReady waits until the only member leads.
func untilReady(ctx context.Context, raft *raftstore.Store) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		now, changed := raft.Leadership()
		if now.Ready {
			return nil
		}
		select {
		case <-changed:
		case <-raft.Failed():
			return raft.Err()
		case <-ctx.Done():
			return fmt.Errorf("start the new cluster's Raft: %w", ctx.Err())
		}
	}
}

func adminKubeconfig(ca *pki.Authority, server string, now time.Time) ([]byte, error) {
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	cert, err := ca.Sign(key.Public(), pki.AdminRequest(), now)
	if err != nil {
		return nil, err
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return nil, err
	}
	return bootstrap.Kubeconfig(server, pki.AdminUser, pki.EncodeCertificate(ca.Certificate().Raw), pki.EncodeCertificate(cert), keyPEM)
}

// writeIfMissing writes the settings that the daemon needs again into its file.
func (c config) writeIfMissing() error {
	if _, err := os.Stat(c.file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b, err := c.text()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.file), 0o755); err != nil {
		return err
	}
	return pki.WriteFile(c.file, b, 0o644)
}
