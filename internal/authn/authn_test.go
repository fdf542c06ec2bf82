package authn_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"testing"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/pki"
)

type answer struct {
	peer pki.Peer
	err  error
}

func (a answer) Peer(*tls.ConnectionState) (pki.Peer, error) { return a.peer, a.err }

func TestUser(t *testing.T) {
	admin := pki.Peer{Role: pki.User, User: "kubernetes-admin", Groups: []string{"system:masters"}}
	tests := []struct {
		name   string
		says   answer
		header string
		token  func(context.Context, string) (api.User, error)
		want   api.User
		kind   error
		text   string // of the answer
	}{
		{name: "nobody", want: api.User{Name: "system:anonymous", Groups: []string{"system:unauthenticated"}}},
		{name: "certificate", says: answer{peer: admin}, want: api.User{Name: "kubernetes-admin", Groups: []string{"system:masters", "system:authenticated"}}},
		{name: "expired", says: answer{err: fmt.Errorf("x: %w", pki.ErrExpired)}, kind: apierr.ErrUnauthorized, text: "Unauthorized"},
		{name: "other CA", says: answer{err: pki.ErrNotOurs}, kind: apierr.ErrUnauthorized, text: "Unauthorized"},
		{name: "not pinned", says: answer{err: pki.ErrPinned}, kind: apierr.ErrUnauthorized, text: "Unauthorized: key is not the one the cluster has pinned"}, // nodes and members are told
		{name: "cannot be looked up", says: answer{err: fmt.Errorf("x: %w", apierr.Unavailable("no leader"))}, kind: apierr.ErrUnavailable},
		{name: "no name", says: answer{peer: pki.Peer{Role: pki.User}}, kind: apierr.ErrUnauthorized, text: "Unauthorized"},
		{name: "token unknown", says: answer{peer: admin}, header: "Bearer abc", kind: apierr.ErrUnauthorized, text: "Unauthorized"},
		{name: "token", says: answer{peer: admin}, header: "bearer  abc", want: api.User{Name: "abc", Groups: []string{"system:authenticated"}},
			token: func(_ context.Context, token string) (api.User, error) { return api.User{Name: token}, nil }},
		{name: "token that cannot be looked up", header: "Bearer abc", kind: apierr.ErrUnavailable, text: "no leader",
			token: func(context.Context, string) (api.User, error) { return api.User{}, apierr.Unavailable("no leader") }},
		{name: "token that takes too long", header: "Bearer abc", kind: apierr.ErrTimeout,
			token: func(context.Context, string) (api.User, error) { return api.User{}, context.DeadlineExceeded }},
		{name: "token refused", header: "Bearer abc", kind: apierr.ErrUnauthorized, text: "Unauthorized",
			token: func(context.Context, string) (api.User, error) { return api.User{}, errors.New("no") }},
		{name: "basic is no token", says: answer{peer: admin}, header: "Basic abc", want: api.User{Name: "kubernetes-admin", Groups: []string{"system:masters", "system:authenticated"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := authn.New(authn.Config{Verifier: tt.says, Token: tt.token})
			got, err := a.User(t.Context(), nil, tt.header)
			if tt.kind != nil {
				if apierr.KindOf(err) != tt.kind {
					t.Fatalf("error %v, want %v", err, tt.kind)
				}
				if st := apierr.StatusOf(err); tt.text != "" && st.Message != tt.text {
					t.Errorf("answered %q, want %q", st.Message, tt.text)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("user %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func TestImpersonate(t *testing.T) {
	var asked []string
	a := authn.New(authn.Config{
		Verifier: answer{peer: pki.Peer{Role: pki.User, User: "root"}},
		Authorize: func(u api.User, t api.Target, verb string) error {
			asked = append(asked, fmt.Sprintf("%s %s %s %s/%s/%s", u.Name, verb, t.Resource, t.Subresource, t.Namespace, t.Name))
			if t.Name == "king" {
				return apierr.Forbidden("users", "king", errors.New("no"))
			}
			return nil
		},
	})
	req := func(h map[string]string) *http.Request {
		r, err := http.NewRequest(http.MethodGet, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range h {
			r.Header.Set(k, v)
		}
		return r
	}
	got, err := a.Request(req(map[string]string{"Impersonate-User": "jane", "Impersonate-Group": "dev", "Impersonate-Uid": "7", "Impersonate-Extra-Acme.com%2fProject": "x"}))
	want := api.User{Name: "jane", UID: "7", Groups: []string{"dev", "system:authenticated"}, Extra: map[string][]string{"acme.com/project": {"x"}}}
	if got.By == nil || got.By.Name != "root" {
		t.Errorf("impersonated by %+v", got.By)
	}
	got.By = nil
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, a := range []string{"root impersonate users //jane", "root impersonate groups //dev", "root impersonate uids //7", "root impersonate userextras acme.com/project//x"} {
		if !slices.Contains(asked, a) {
			t.Errorf("%q was not asked: %q", a, asked)
		}
	}
	got, err = a.Request(req(map[string]string{"Impersonate-User": "system:serviceaccount:demo:bot"}))
	if err != nil || !slices.Contains(got.Groups, "system:serviceaccounts:demo") {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := a.Request(req(map[string]string{"Impersonate-User": "king"})); !errors.Is(err, apierr.ErrForbidden) {
		t.Errorf("got %v, want forbidden", err)
	}
	if _, err := a.Request(req(map[string]string{"Impersonate-Group": "dev"})); !errors.Is(err, apierr.ErrBadRequest) {
		t.Errorf("got %v, want bad request", err)
	}
	if got, err := a.Request(req(nil)); err != nil || got.Name != "root" {
		t.Errorf("got %+v, %v", got, err)
	}
	closed := authn.New(authn.Config{Verifier: answer{peer: pki.Peer{Role: pki.User, User: "root"}}})
	if _, err := closed.Request(req(map[string]string{"Impersonate-User": "jane"})); !errors.Is(err, apierr.ErrForbidden) {
		t.Errorf("got %v, want forbidden", err)
	}
}
