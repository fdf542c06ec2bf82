package pki

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// today is when the tests' clusters begin.
func today() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func authority(t *testing.T) *Authority {
	t.Helper()
	a, err := NewAuthority("test", today())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// identity signs and saves a key pair.
func identity(t *testing.T, a *Authority, req Request, now time.Time) *KeyPair {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	k, err := SaveKeyPair(filepath.Join(t.TempDir(), "pki"), key, sign(t, a, key, req, now), a.Certificate().Raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t *testing.T, a *Authority, key crypto.Signer, req Request, now time.Time) []byte {
	t.Helper()
	der, err := a.Sign(key.Public(), req, now)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func member(t *testing.T, a *Authority, name string) *KeyPair {
	names, addrs := ServerNames([]string{name, "cluster.test"}, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, netip.MustParseAddr("10.96.0.1"), "cluster.local")
	return identity(t, a, MemberRequest(name, names, addrs), today())
}

func TestAuthorityKeepsItself(t *testing.T) {
	a := authority(t)
	key, err := a.Key()
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenAuthority(a.Certificate().Raw, key)
	if err != nil {
		t.Fatal(err)
	}
	if a.Hash() != b.Hash() || len(a.Hash()) != 64 {
		t.Errorf("hash %q, then %q", a.Hash(), b.Hash())
	}
	other, err := authority(t).Key()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(a.Certificate().Raw, other); err == nil {
		t.Error("opened with another CA's key")
	}
	if _, err := OpenAuthority(member(t, a, "c1").Leaf().Raw, key); err == nil {
		t.Error("opened a member's certificate as CA")
	}
}

func TestServerNames(t *testing.T) {
	a := authority(t)
	leaf := member(t, a, "c1").Leaf()
	for _, host := range []string{"c1", "cluster.test", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local", "192.0.2.1", "127.0.0.1", "::1", "10.96.0.1"} {
		if err := leaf.VerifyHostname(host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if err := leaf.VerifyHostname("c2"); err == nil {
		t.Error("c1's certificate is good for c2")
	}
	if life := leaf.NotAfter.Sub(today()); life != HostLife {
		t.Errorf("valid for %v, want %v", life, HostLife)
	}
}

func TestSignAtACASLostClock(t *testing.T) {
	a := authority(t)
	k := identity(t, a, NodeRequest("n1", []string{"n1"}, nil), time.Unix(0, 0))
	v := NewVerifier(a.Certificate(), func(Peer) error { return nil }, today)
	if _, err := v.Certificate(k.Leaf()); err != nil {
		t.Errorf("certificate made in 1970: %v", err)
	}
}

func TestCSR(t *testing.T) {
	a := authority(t)
	k := member(t, a, "c1")
	addr := netip.MustParseAddr("2001:db8::7")
	der, err := k.CSR([]string{"new.test"}, []netip.Addr{addr})
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseCSR(der)
	if err != nil {
		t.Fatal(err)
	}
	if c.Key != k.Self().Key || c.User != "system:wherry:control:c1" || !slices.Equal(c.Names, []string{"new.test"}) || !slices.Equal(c.Addresses, []netip.Addr{addr}) {
		t.Errorf("csr = %+v", c)
	}
	der[len(der)-1] ^= 1
	if _, err := ParseCSR(der); err == nil {
		t.Error("a request with a broken signature was read")
	}
}

func TestVerifier(t *testing.T) {
	a, stranger := authority(t), authority(t)
	removed := errors.Join(ErrPinned, errors.New("removed"))
	pinned := func(p Peer) error {
		if p.Name == "gone" {
			return removed
		}
		return nil
	}
	user := Request{User: "ann", Groups: []string{"dev"}, Life: time.Hour}
	later := func() time.Time { return today().Add(HostLife + 24*time.Hour) }
	tests := []struct {
		name string
		key  *KeyPair
		now  func() time.Time
		want Peer
		err  error
	}{
		{"member", member(t, a, "c1"), today, Peer{Role: Member, Name: "c1"}, nil},
		{"node", identity(t, a, NodeRequest("n1", []string{"n1"}, nil), today()), today, Peer{Role: Node, Name: "n1"}, nil},
		{"expired node", identity(t, a, NodeRequest("n1", []string{"n1"}, nil), today()), later, Peer{Role: Node, Name: "n1"}, nil},
		{"removed node", identity(t, a, NodeRequest("gone", []string{"gone"}, nil), today()), today, Peer{}, ErrPinned},
		{"another cluster's node", identity(t, stranger, NodeRequest("n1", []string{"n1"}, nil), today()), today, Peer{}, ErrNotOurs},
		{"user", identity(t, a, user, today()), today, Peer{Role: User}, nil},
		{"expired user", identity(t, a, user, today()), later, Peer{}, ErrExpired},
		{"user of tomorrow", identity(t, a, user, today().Add(24*time.Hour)), today, Peer{}, ErrExpired},
		{"user who calls himself a node", identity(t, a, Request{User: "system:node:n1", Groups: []string{"dev"}}, today()), today, Peer{Role: User}, nil},
		{"admin", identity(t, a, AdminRequest(), today()), later, Peer{Role: User}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := NewVerifier(a.Certificate(), pinned, tt.now)
			for range 2 { // the second time from memory
				got, err := v.Certificate(tt.key.Leaf())
				if !errors.Is(err, tt.err) || got.Role != tt.want.Role || got.Name != tt.want.Name {
					t.Errorf("got %+v, %v; want %+v, %v", got, err, tt.want, tt.err)
				}
				if err == nil && (got.Key != tt.key.Self().Key || got.User != tt.key.Leaf().Subject.CommonName) {
					t.Errorf("got %+v", got)
				}
			}
		})
	}
	v := NewVerifier(a.Certificate(), pinned, today)
	if p, err := v.Peer(&tls.ConnectionState{}); err != nil || p.Role != Nobody {
		t.Errorf("without a certificate: %+v, %v", p, err)
	}
}

// handshake connects client to server and returns what each side saw.
func handshake(t *testing.T, server, client *tls.Config) (seen tls.ConnectionState, err error) {
	t.Helper()
	l, lerr := tls.Listen("tcp", "127.0.0.1:0", server)
	if lerr != nil {
		t.Fatal(lerr)
	}
	defer func() { _ = l.Close() }()
	done := make(chan tls.ConnectionState, 1)
	go func() {
		defer close(done)
		c, aerr := l.Accept()
		if aerr != nil {
			return
		}
		defer func() { _ = c.Close() }()
		tc, _ := c.(*tls.Conn)
		if tc.HandshakeContext(context.WithoutCancel(t.Context())) == nil {
			done <- tc.ConnectionState()
		}
	}()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", l.Addr().String(), client)
	if err == nil {
		_ = c.Close()
	}
	return <-done, err
}

func TestHandshakes(t *testing.T) {
	a, stranger := authority(t), authority(t)
	c1, n1 := member(t, a, "c1"), identity(t, a, NodeRequest("n1", []string{"n1"}, nil), today().Add(-HostLife))
	token, err := NewToken(a.Hash())
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := NewToken(stranger.Hash())
	if err != nil {
		t.Fatal(err)
	}
	refuse := errors.New("not the key pinned")
	tests := []struct {
		name   string
		server *KeyPair
		client *tls.Config
		err    error
	}{
		{"node to member, both expired long ago", c1, n1.ClientConfig(nil), nil},
		{"member to member", c1, member(t, a, "c2").ClientConfig(func(p Peer) error {
			if p.Name != "c1" {
				return refuse
			}
			return nil
		}), nil},
		{"unpinned server", c1, n1.ClientConfig(func(Peer) error { return refuse }), refuse},
		{"node in a member's place", n1, c1.ClientConfig(nil), ErrNotOurs},
		{"member to node", n1, c1.NodeClientConfig(nil), nil},
		{"another cluster", member(t, stranger, "c1"), n1.ClientConfig(nil), ErrNotOurs},
		{"join", c1, JoinConfig(token), nil},
		{"join with another cluster's token", c1, JoinConfig(wrong), ErrTokenWrongCA},
		{"join to a node", n1, JoinConfig(token), ErrNotOurs},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen, err := handshake(t, tt.server.ServerConfig(), tt.client)
			if !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if err == nil && tt.client.GetClientCertificate != nil && len(seen.PeerCertificates) == 0 {
				t.Error("the server saw no certificate")
			}
		})
	}
}

// TestJoinTrustsOnlyTheChain holds a server to the CA it shows: showing the
// right CA beside a certificate of another is not enough.
func TestJoinTrustsOnlyTheChain(t *testing.T) {
	a, thief := authority(t), authority(t)
	token, err := NewToken(a.Hash())
	if err != nil {
		t.Fatal(err)
	}
	k := member(t, thief, "c1")
	cert := *k.cert.Load()
	cert.Certificate = [][]byte{cert.Certificate[0], a.Certificate().Raw}
	k.cert.Store(&cert)
	if _, err := handshake(t, k.ServerConfig(), JoinConfig(token)); !errors.Is(err, ErrNotOurs) {
		t.Errorf("got %v, want %v", err, ErrNotOurs)
	}
}

func TestUserVerifiesTheUsualWay(t *testing.T) {
	now := time.Now()
	a, err := NewAuthority("test", now)
	if err != nil {
		t.Fatal(err)
	}
	k := identity(t, a, MemberRequest("c1", []string{"c1"}, nil), now)
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate())
	if _, err := handshake(t, k.ServerConfig(), &tls.Config{RootCAs: roots, ServerName: "c1"}); err != nil {
		t.Error(err)
	}
	expired := func() time.Time { return now.Add(2 * HostLife) }
	if _, err := handshake(t, k.ServerConfig(), &tls.Config{RootCAs: roots, ServerName: "c1", Time: expired}); err == nil {
		t.Error("an expired server was taken")
	}
}

func TestRenewal(t *testing.T) {
	a := authority(t)
	k := member(t, a, "c1")
	server := k.ServerConfig() // made before
	before := k.Leaf().SerialNumber
	fresh := sign(t, a, k.key, MemberRequest("c1", []string{"c1"}, nil), today().Add(20*24*time.Hour))
	if err := k.Replace(fresh); err != nil {
		t.Fatal(err)
	}
	var seen *x509.Certificate
	client := clientConfig(func(s tls.ConnectionState) error {
		seen = s.PeerCertificates[0]
		return nil
	})
	if _, err := handshake(t, server, client); err != nil {
		t.Fatal(err)
	}
	if seen.SerialNumber.Cmp(before) == 0 {
		t.Error("a new connection still shows the old certificate")
	}
	again, err := OpenKeyPair(k.dir)
	if err != nil {
		t.Fatal(err)
	}
	if again.Leaf().SerialNumber.Cmp(seen.SerialNumber) != 0 || again.Self().Key != k.Self().Key {
		t.Error("the renewed certificate is not on disk")
	}
	if at := k.RenewAt().Sub(k.Leaf().NotBefore); at < 19*24*time.Hour || at > 21*24*time.Hour {
		t.Errorf("renew after %v, want 20 days", at)
	}
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"another key":     sign(t, a, key, MemberRequest("c1", nil, nil), today()),
		"another cluster": sign(t, authority(t), k.key, MemberRequest("c1", nil, nil), today()),
		"nonsense":        []byte("x"),
	} {
		if err := k.Replace(bad); err == nil {
			t.Errorf("%s: replaced", name)
		}
	}
	if k.Leaf().SerialNumber.Cmp(seen.SerialNumber) != 0 {
		t.Error("a refused certificate is in use")
	}
}

func TestKeepFresh(t *testing.T) {
	a := authority(t)
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { // the bubble's clock begins in 2000
		ca, err := NewAuthority("test", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		a = ca
		k, err := SaveKeyPair(dir, key, sign(t, a, key, NodeRequest("n1", nil, nil), time.Now()), a.Certificate().Raw)
		if err != nil {
			t.Fatal(err)
		}
		var tries, failures int
		ctx, cancel := context.WithTimeout(t.Context(), 25*24*time.Hour)
		defer cancel()
		err = k.KeepFresh(ctx, func(context.Context) ([]byte, error) {
			if tries++; tries <= 3 {
				return nil, errors.New("nobody leads")
			}
			return sign(t, a, key, NodeRequest("n1", nil, nil), time.Now()), nil
		}, func(error) { failures++ })
		if err != nil || tries != 4 || failures != 3 {
			t.Errorf("%v after %d tries, %d failures; want 4 and 3", err, tries, failures)
		}
		if left := time.Until(k.Leaf().NotAfter); left < 24*24*time.Hour {
			t.Errorf("valid for another %v only", left)
		}
	})
}

func TestFiles(t *testing.T) {
	a := authority(t)
	k := member(t, a, "c1")
	for _, name := range []string{KeyFile, certFile, caFile} {
		fi, err := os.Stat(filepath.Join(k.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, fi.Mode())
		}
	}
	left, err := os.ReadDir(k.dir)
	if err != nil || len(left) != 3 {
		t.Errorf("%d files, want 3 (%v)", len(left), err)
	}
	if _, err := OpenKeyPair(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	if err := os.WriteFile(filepath.Join(k.dir, certFile), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyPair(k.dir); err == nil || !strings.Contains(err.Error(), certFile) {
		t.Errorf("broken certificate: %v", err)
	}
}
