package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/cluster"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/pki"
)

// joinWithin bounds a join at one address.
const joinWithin = 30 * time.Second

// joinCluster gets an identity from a cluster and writes what the daemon starts
// with.
func joinCluster(ctx context.Context, cfg config, addresses, tokenFile string, out io.Writer) error {
	if err := refuseData(cfg.DataDir); err != nil {
		return err
	}
	token, err := readToken(tokenFile)
	if err != nil {
		return err
	}
	self, err := cfg.advertise(ctx)
	if err != nil {
		return err
	}
	dir := prepareDir(cfg.DataDir)
	key, err := pki.PendingKey(dir)
	if err != nil {
		return err
	}
	names, addrs := cfg.wanted(self)
	csr, err := pki.NewCSR(key, cfg.Name, names, addrs)
	if err != nil {
		return err
	}
	r := &wherryv1.JoinRequest{Token: token.Presented(), Role: wherryv1.Role_ROLE_CONTROL, Name: cfg.Name, Csr: csr, Address: cfg.grpcAddress(self)}
	resp, err := joinAny(ctx, strings.Split(addresses, ","), token, r)
	if err != nil {
		return err
	}
	m := member{ID: resp.GetMemberId(), Name: cfg.Name, Controls: resp.GetControls()}
	if m.Settings, err = settingsOf(resp); err != nil {
		return err
	}
	if err := cfg.fixed(m.Settings); err != nil {
		return err
	}
	if _, err := pki.SaveKeyPair(filepath.Join(dir, "identity"), key, resp.GetCertificate(), resp.GetCa()); err != nil {
		return fmt.Errorf("the cluster's answer: %w", err)
	}
	if err := cfg.writeIfMissing(); err != nil {
		return err
	}
	if err := pki.DropPendingKey(dir); err != nil {
		return err
	}
	if err := m.save(cfg.DataDir); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "joined cluster %s as member %s\nnext: start controld\n", resp.GetClusterId(), m.ID)
	return err
}

func readToken(file string) (pki.Token, error) {
	if file == "" {
		return pki.Token{}, errors.New("--token-file must name a file with a token; `wherry cluster token create --role control` prints one")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return pki.Token{}, err
	}
	t, err := pki.ParseToken(string(b))
	if err != nil {
		return t, fmt.Errorf("%s: %w", file, err)
	}
	return t, nil
}

// joinAny joins at the first address that answers; a refusal is an answer.
func joinAny(ctx context.Context, addresses []string, token pki.Token, r *wherryv1.JoinRequest) (*wherryv1.JoinResponse, error) {
	var all error
	for _, a := range addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, fmt.Errorf("address %q: must be HOST:PORT of a controld, such as 10.0.0.1:7443", a)
		}
		resp, err := joinAt(ctx, a, token, r)
		if err == nil {
			return resp, nil
		}
		err = fmt.Errorf("join at %s: %w", a, err)
		if !errors.Is(err, apierr.ErrUnavailable) && !errors.Is(err, apierr.ErrTimeout) {
			return nil, err
		}
		all = errors.Join(all, err)
	}
	return nil, all
}

func joinAt(ctx context.Context, address string, token pki.Token, r *wherryv1.JoinRequest) (*wherryv1.JoinResponse, error) {
	conn, err := grpc.NewClient("dns:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(pki.JoinConfig(token))),
		grpc.WithChainUnaryInterceptor(apierr.ClientUnary))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	return wherryv1.NewClusterClient(conn).Join(ctx, r)
}

func settingsOf(r *wherryv1.JoinResponse) (cluster.Settings, error) {
	s := cluster.Settings{ClusterID: r.GetClusterId(), Domain: r.GetClusterDomain()}
	var perr, serr error
	s.PodCIDR, perr = netip.ParsePrefix(r.GetPodCidr())
	s.ServiceCIDR, serr = netip.ParsePrefix(r.GetServiceCidr())
	if err := errors.Join(perr, serr); err != nil {
		return s, fmt.Errorf("the cluster's answer: %w", err)
	}
	return s, nil
}
