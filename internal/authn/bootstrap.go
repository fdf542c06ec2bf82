package authn

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// Bootstrap tokens are kept in Secrets of kube-system, whose names and fields
// are Kubernetes': https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
const (
	bootstrapType   = corev1.SecretType("bootstrap.kubernetes.io/token")
	bootstrapPrefix = "bootstrap-token-"
	bootstrapUser   = "system:bootstrap:"
	bootstrapGroup  = "system:bootstrappers"
)

var (
	bootstrapToken  = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)
	bootstrapGroups = regexp.MustCompile(`^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$`)
)

// bootstrap is who holds a bootstrap token, which is good for as long as its
// Secret says.
func (a *Accounts) bootstrap(ctx context.Context, id, secret string) (api.User, error) {
	snap, err := a.cfg.State.Snapshot(ctx, store.At{})
	if err != nil {
		return api.User{}, err
	}
	u, err := a.bootstrapper(snap, id, secret)
	if err == nil {
		return u, nil
	}
	// Another member may have made the Secret, or changed it, a moment ago.
	fresh, ferr := a.cfg.State.Snapshot(ctx, store.At{Level: store.Linearizable})
	if ferr != nil {
		return api.User{}, ferr
	}
	return a.bootstrapper(fresh, id, secret)
}

func (a *Accounts) bootstrapper(snap *store.Snapshot, id, secret string) (api.User, error) {
	name := bootstrapPrefix + id
	s, err := store.Get[*corev1.Secret](snap, api.Key{Resource: "secrets", Namespace: metav1.NamespaceSystem, Name: name})
	if err != nil && !errors.Is(err, apierr.ErrNotFound) {
		return api.User{}, err
	}
	if err != nil || s.DeletionTimestamp != nil || s.Type != bootstrapType ||
		string(s.Data["token-id"]) != id || subtle.ConstantTimeCompare(s.Data["token-secret"], []byte(secret)) != 1 {
		return api.User{}, fmt.Errorf("there is no bootstrap token %s with this secret", id)
	}
	if text := string(s.Data["expiration"]); text != "" {
		end, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return api.User{}, fmt.Errorf("the Secret %s has an expiration that is no time of RFC 3339", name)
		}
		if !a.cfg.Now().Before(end) {
			return api.User{}, fmt.Errorf("the bootstrap token %s has expired", id)
		}
	}
	if string(s.Data["usage-bootstrap-authentication"]) != "true" {
		return api.User{}, fmt.Errorf("the Secret %s does not say usage-bootstrap-authentication: true", name)
	}
	u := api.User{Name: bootstrapUser + id, Groups: []string{bootstrapGroup}}
	for g := range strings.SplitSeq(string(s.Data["auth-extra-groups"]), ",") {
		switch {
		case g == "":
		case !bootstrapGroups.MatchString(g):
			return api.User{}, fmt.Errorf("the Secret %s names the group %q in auth-extra-groups; it must match %s", name, g, bootstrapGroups)
		default:
			u.Groups = append(u.Groups, g)
		}
	}
	return u, nil
}
