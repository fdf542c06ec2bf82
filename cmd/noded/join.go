package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/pki"
)

// joinWithin bounds one attempt at one address.
const joinWithin = 20 * time.Second

// membership is what a node keeps of the cluster that it has entered.
type membership struct {
	// Format is 1; another one is refused.
	Format   int      `json:"format"`
	Cluster  string   `json:"cluster"`
	Controls []string `json:"controls"`
}

func (c *config) identityDir() string    { return filepath.Join(c.DataDir, "pki") }
func (c *config) joiningDir() string     { return filepath.Join(c.DataDir, "joining") }
func (c *config) membershipFile() string { return filepath.Join(c.DataDir, "cluster.json") }

// joinCluster enters a cluster: a key, a certificate for it, and where the
// control plane is. It refuses where a node has entered one already.
func joinCluster(ctx context.Context, c config, addresses, tokenFile string) error {
	if _, err := os.Stat(c.membershipFile()); err == nil {
		return fmt.Errorf("this machine is a node of a cluster already (%s is there); to enter another one, stop noded and remove %s", c.membershipFile(), c.DataDir)
	}
	list := strings.Split(addresses, ",")
	for _, a := range list {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("address %q: must be HOST:PORT of a controld, such as 10.0.0.1:7443", a)
		}
	}
	text, err := os.ReadFile(tokenFile)
	if err != nil {
		return fmt.Errorf("read the join token: %w", err)
	}
	token, err := pki.ParseToken(string(text))
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(c.AdvertiseAddress)
	if err != nil {
		return fmt.Errorf("advertise-address: %w", err)
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	key, err := pki.PendingKey(c.joiningDir())
	if err != nil {
		return err
	}
	csr, err := pki.NewCSR(key, c.Name, []string{c.Name}, []netip.Addr{addr})
	if err != nil {
		return err
	}
	var answer *wherryv1.JoinResponse
	var failed error
	for _, a := range list {
		request := &wherryv1.JoinRequest{Token: token.Presented(), Role: wherryv1.Role_ROLE_NODE, Name: c.Name, Csr: csr}
		if answer, err = askToJoin(ctx, a, token, request); err == nil {
			break
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", a, err))
		if !errors.Is(err, apierr.ErrUnavailable) && !errors.Is(err, apierr.ErrTimeout) {
			break // a refusal is an answer; others would say the same
		}
	}
	if answer == nil {
		return fmt.Errorf("join: %w", failed)
	}
	if _, err := pki.SaveKeyPair(c.identityDir(), key, answer.GetCertificate(), answer.GetCa()); err != nil {
		return err
	}
	m, err := json.Marshal(membership{Format: 1, Cluster: answer.GetClusterId(), Controls: answer.GetControls()})
	if err != nil {
		return err
	}
	if err := c.writeIfMissing(); err != nil {
		return err
	}
	if err := pki.WriteFile(c.membershipFile(), m, 0o600); err != nil {
		return err
	}
	if err := pki.DropPendingKey(c.joiningDir()); err != nil {
		return err
	}
	fmt.Printf("Node %s has joined the cluster. Start noded to run its pods.\n", c.Name)
	return nil
}

// askToJoin presents the token to one member.
func askToJoin(ctx context.Context, address string, token pki.Token, r *wherryv1.JoinRequest) (*wherryv1.JoinResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(pki.JoinConfig(token))),
		grpc.WithUnaryInterceptor(apierr.ClientUnary))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return wherryv1.NewClusterClient(conn).Join(ctx, r)
}

// loadMembership reads what join wrote.
func loadMembership(c config) (membership, error) {
	var m membership
	b, err := os.ReadFile(c.membershipFile())
	if errors.Is(err, os.ErrNotExist) {
		return m, fmt.Errorf("this machine is in no cluster yet; run: noded join ADDRESS:7443 --token-file FILE")
	} else if err != nil {
		return m, fmt.Errorf("read the node's membership: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w", c.membershipFile(), err)
	}
	if m.Format != 1 {
		return m, fmt.Errorf("%s has format %d and this noded reads 1; run the noded that wrote it", c.membershipFile(), m.Format)
	}
	return m, nil
}
