package apiserver_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

const issuer = "https://kubernetes.default.svc.cluster.local"

// clock is a time that tests move.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// withTokens is a cluster that gives out tokens.
func withTokens(t testing.TB) (*cluster, *authn.Accounts, *clock) {
	t.Helper()
	codec := api.NewCodec(kinds.Table(), 16<<20)
	s := store.NewLocal(codec)
	now := &clock{time.Now().Truncate(time.Second)}
	tokens := authn.NewAccounts(authn.AccountsConfig{State: s, Issuer: issuer, Now: now.now})
	c := open(t, codec, s, apiserver.Config{Tokens: tokens})
	if err := tokens.KeepKeys(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	c.must(c.create("serviceaccounts", "demo", `metadata: {name: app}`))
	c.must(c.create("pods", "demo", `{metadata: {name: mine}, spec: {nodeName: n1, serviceAccountName: app, containers: [{name: c, image: i}]}}`))
	return c, tokens, now
}

// ask posts a review, or a body to a subresource, as a user.
func ask[T api.Object](c *cluster, u api.User, t api.Target, body T, text string) (T, error) {
	c.t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), body); err != nil {
		c.t.Fatal(err)
	}
	t.Version = "v1"
	v, err := c.api.Create(c.t.Context(), u, t, body, api.WriteOptions{})
	if err != nil {
		var none T
		return none, err
	}
	return v.Object.(T), nil
}

// gone checks that a delete was done.
func (c *cluster) gone(_ api.Deletion, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func get[T api.Object](c *cluster, resource, namespace, name string) T {
	c.t.Helper()
	obj, err := c.get(resource, namespace, name)
	if err != nil {
		c.t.Fatal(err)
	}
	return obj.(T)
}

func review(resource, namespace string) api.Target {
	group := "authorization.k8s.io"
	if resource == "tokenreviews" || resource == "selfsubjectreviews" {
		group = "authentication.k8s.io"
	}
	return api.Target{Group: group, Resource: resource, Namespace: namespace}
}

func tokenOf(c *cluster, u api.User, account, text string) (*authenticationv1.TokenRequest, error) {
	c.t.Helper()
	return ask(c, u, api.Target{Resource: "serviceaccounts", Namespace: "demo", Name: account, Subresource: "token"}, &authenticationv1.TokenRequest{}, text)
}

func TestTokenLife(t *testing.T) {
	c, tokens, now := withTokens(t)
	reviewed := func(token string, audiences ...string) *authenticationv1.TokenReview {
		t.Helper()
		r, err := ask(c, admin, review("tokenreviews", ""), &authenticationv1.TokenReview{}, fmt.Sprintf(`spec: {token: %q, audiences: [%s]}`, token, strings.Join(audiences, ",")))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	plain, err := tokenOf(c, admin, "app", `{}`)
	if err != nil {
		t.Fatal(err)
	}
	if end := plain.Status.ExpirationTimestamp.Time; *plain.Spec.ExpirationSeconds != 3600 || !end.Equal(now.at.Add(time.Hour)) || plain.Kind != "TokenRequest" {
		t.Errorf("%+v", plain)
	}
	r := reviewed(plain.Status.Token)
	want := []string{"system:serviceaccounts", "system:serviceaccounts:demo", "system:authenticated"}
	if !r.Status.Authenticated || r.Status.User.Username != "system:serviceaccount:demo:app" || strings.Join(r.Status.User.Groups, ",") != strings.Join(want, ",") ||
		r.Status.User.UID == "" || strings.Join(r.Status.Audiences, ",") != issuer {
		t.Errorf("%+v", r.Status)
	}
	if r := reviewed(plain.Status.Token, "other"); r.Status.Authenticated || !strings.Contains(r.Status.Error, "invalid for the target audiences") {
		t.Errorf("another audience: %+v", r.Status)
	}
	other, err := tokenOf(c, admin, "app", `spec: {audiences: [vault, db], expirationSeconds: 600}`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.User(t.Context(), other.Status.Token); err == nil {
		t.Error("a token for others opens the API")
	}
	if r := reviewed(other.Status.Token, "db", "x"); !r.Status.Authenticated || strings.Join(r.Status.Audiences, ",") != "db" {
		t.Errorf("%+v", r.Status)
	}
	now.at = now.at.Add(11 * time.Minute)
	if r := reviewed(other.Status.Token, "db"); r.Status.Authenticated || !strings.Contains(r.Status.Error, "expired") {
		t.Errorf("expired: %+v", r.Status)
	}
	if _, _, err := tokens.RotateKeys(t.Context(), c.store); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.User(t.Context(), plain.Status.Token); err != nil {
		t.Errorf("after a rotation: %v", err)
	}
	if jwks, err := tokens.JWKS(t.Context()); err != nil || strings.Count(string(jwks), `"kid"`) != 2 {
		t.Errorf("%s %v", jwks, err)
	}
	// Another account of the same name is another account.
	c.gone(c.delete("serviceaccounts", "demo", "app", metav1.DeleteOptions{}))
	if _, err := tokens.User(t.Context(), plain.Status.Token); err == nil {
		t.Error("the account is gone and its token is good")
	}
	c.must(c.create("serviceaccounts", "demo", `metadata: {name: app}`))
	if _, err := tokens.User(t.Context(), plain.Status.Token); err == nil {
		t.Error("the token of an account that was replaced is good")
	}
}

func TestBoundTokens(t *testing.T) {
	c, tokens, now := withTokens(t)
	pod := get[*corev1.Pod](c, "pods", "demo", "mine")
	bound := fmt.Sprintf(`spec: {expirationSeconds: 3607, boundObjectRef: {kind: Pod, apiVersion: v1, name: mine, uid: %s}}`, pod.UID)
	r, err := tokenOf(c, node("n1"), "app", bound)
	if err != nil {
		t.Fatal(err)
	}
	u, err := tokens.User(t.Context(), r.Status.Token)
	if err != nil || strings.Join(u.Extra["authentication.kubernetes.io/pod-name"], "") != "mine" {
		t.Fatalf("%+v %v", u, err)
	}
	now.at = now.at.Add(2 * time.Hour) // what pods mount is good for longer than it says
	if _, err := tokens.User(t.Context(), r.Status.Token); err != nil || !r.Status.ExpirationTimestamp.Time.Before(now.at) {
		t.Errorf("%v, says %v", err, r.Status.ExpirationTimestamp)
	}
	// While the pod ends, and for a minute after its time, it may speak.
	c.gone(c.delete("pods", "demo", "mine", metav1.DeleteOptions{}))
	if p := get[*corev1.Pod](c, "pods", "demo", "mine"); p.DeletionTimestamp == nil {
		t.Fatal("the pod is gone at once")
	} else {
		now.at = p.DeletionTimestamp.Add(59 * time.Second)
	}
	if _, err := tokens.User(t.Context(), r.Status.Token); err != nil {
		t.Error(err)
	}
	now.at = now.at.Add(2 * time.Second)
	if _, err := tokens.User(t.Context(), r.Status.Token); err == nil {
		t.Error("the token outlives its pod")
	}
	for _, b := range []struct{ kind, resource, namespace, text string }{
		{"Secret", "secrets", "demo", `metadata: {name: s}`}, {"Node", "nodes", "", `metadata: {name: s}`},
	} {
		c.must(c.create(b.resource, b.namespace, b.text))
		r, err := tokenOf(c, admin, "app", `spec: {boundObjectRef: {kind: `+b.kind+`, apiVersion: v1, name: s}}`)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tokens.User(t.Context(), r.Status.Token); err != nil {
			t.Error(err)
		}
		c.gone(c.delete(b.resource, b.namespace, "s", metav1.DeleteOptions{}))
		if _, err := tokens.User(t.Context(), r.Status.Token); err == nil {
			t.Errorf("the token outlives its %s", b.kind)
		}
	}
}

func TestBadTokenRequests(t *testing.T) {
	c, _, _ := withTokens(t)
	uid := get[*corev1.Pod](c, "pods", "demo", "mine").UID
	c.must(c.create("pods", "demo", `{metadata: {name: theirs}, spec: {nodeName: n2, serviceAccountName: app, containers: [{name: c, image: i}]}}`))
	c.must(c.create("serviceaccounts", "demo", `metadata: {name: other}`))
	for _, b := range []struct {
		who     api.User
		account string
		text    string
		kind    apierr.Kind
		says    string
	}{
		{admin, "app", `spec: {expirationSeconds: 599}`, apierr.ErrInvalid, `spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes`},
		{admin, "app", `spec: {expirationSeconds: 4294967297}`, apierr.ErrInvalid, `may not specify a duration larger than 2^32 seconds`},
		{admin, "app", `spec: {expirationSeconds: -1}`, apierr.ErrInvalid, `spec.expirationSeconds`},
		{admin, "app", `spec: {audiences: [a, ""]}`, apierr.ErrInvalid, `spec.audiences[1]: Invalid value: "": must not be empty`},
		{admin, "gone", `{}`, apierr.ErrNotFound, `serviceaccounts "gone" not found`},
		{admin, "app", `metadata: {name: other}`, apierr.ErrBadRequest, `does not match the name on the URL`},
		{admin, "app", `metadata: {namespace: default}`, apierr.ErrBadRequest, `does not match the namespace sent`},
		{admin, "app", `spec: {boundObjectRef: {kind: Pod, name: gone}}`, apierr.ErrNotFound, `pods "gone" not found`},
		{admin, "app", `spec: {boundObjectRef: {kind: Pod, name: mine, uid: other}}`, apierr.ErrConflict, `does not match the UID in record`},
		{admin, "app", `spec: {boundObjectRef: {kind: ConfigMap, name: x}}`, apierr.ErrBadRequest, `cannot bind token for serviceaccount to object of type ConfigMap`},
		{admin, "other", `spec: {boundObjectRef: {kind: Pod, name: mine}}`, apierr.ErrBadRequest, `different serviceaccount name`},
		{jane, "app", `{}`, apierr.ErrForbidden, `serviceaccounts "app" is forbidden: User "jane" cannot create resource "serviceaccounts/token" in API group "" in the namespace "demo"`},
		{node("n1"), "app", `{}`, apierr.ErrForbidden, `node requested token not bound to a pod`},
		{node("n1"), "app", `spec: {boundObjectRef: {kind: Pod, name: mine}}`, apierr.ErrForbidden, `without a uid`},
		{node("n1"), "app", `spec: {boundObjectRef: {kind: Pod, name: mine, uid: other}}`, apierr.ErrForbidden, `does not match the UID`},
		{node("n1"), "other", fmt.Sprintf(`spec: {boundObjectRef: {kind: Pod, name: mine, uid: %s}}`, uid), apierr.ErrForbidden, `no relationship found`},
		{node("n1"), "app", fmt.Sprintf(`spec: {boundObjectRef: {kind: Pod, name: theirs, uid: %s}}`, get[*corev1.Pod](c, "pods", "demo", "theirs").UID), apierr.ErrForbidden, `different node`},
		{node("n3"), "app", fmt.Sprintf(`spec: {boundObjectRef: {kind: Pod, name: mine, uid: %s}}`, uid), apierr.ErrForbidden, `no relationship found`},
	} {
		_, err := tokenOf(c, b.who, b.account, b.text)
		if !errors.Is(err, b.kind) || !strings.Contains(err.Error(), b.says) {
			t.Errorf("%s %s: %v; want %s", b.account, b.text, err, b.says)
		}
	}
}

func TestBadTokenReviews(t *testing.T) {
	c, tokens, _ := withTokens(t)
	good, err := tokenOf(c, admin, "app", `{}`)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good.Status.Token, ".")
	for _, token := range []string{
		"x", "a.b", "a.b.c", "....", parts[0] + "." + parts[1], parts[0] + "." + parts[1] + ".", parts[0] + "." + parts[2] + "." + parts[1],
		good.Status.Token + "A", strings.ToUpper(good.Status.Token), "Bearer " + good.Status.Token, strings.Repeat("A", 1<<20),
	} {
		r, err := ask(c, admin, review("tokenreviews", ""), &authenticationv1.TokenReview{}, fmt.Sprintf(`{spec: {token: %q}, status: {authenticated: true, user: {username: x}}}`, token))
		if err != nil || r.Status.Authenticated || r.Status.User.Username != "" || !strings.HasPrefix(r.Status.Error, "[invalid bearer token, ") {
			t.Errorf("%.40s: %+v %v", token, r.Status, err)
		}
		if _, err := tokens.User(t.Context(), token); err == nil {
			t.Errorf("%.40s opens the API", token)
		}
	}
	if _, err := ask(c, admin, review("tokenreviews", ""), &authenticationv1.TokenReview{}, `{}`); !errors.Is(err, apierr.ErrBadRequest) {
		t.Error(err)
	}
	if _, err := ask(c, jane, review("tokenreviews", ""), &authenticationv1.TokenReview{}, `spec: {token: x}`); !errors.Is(err, apierr.ErrForbidden) {
		t.Error(err)
	}
}

func TestAccessReviews(t *testing.T) {
	c, _, _ := withTokens(t)
	c.must(c.create("clusterroles.rbac.authorization.k8s.io", "", `{metadata: {name: r}, rules: [{apiGroups: [""], resources: [pods], verbs: [get]}, {nonResourceURLs: [/logs/*], verbs: [get]}]}`))
	c.must(c.create("clusterrolebindings.rbac.authorization.k8s.io", "", `{metadata: {name: b}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: r}, subjects: [{kind: Group, apiGroup: rbac.authorization.k8s.io, name: g}]}`))
	u := api.User{Name: "ugo", Groups: []string{"g", "system:authenticated"}}
	for i, q := range []struct {
		resource, namespace, text string
		allowed                   bool
	}{
		{"subjectaccessreviews", "", `spec: {user: x, groups: [g], resourceAttributes: {verb: get, resource: pods, namespace: demo}}`, true},
		{"subjectaccessreviews", "", `spec: {user: x, resourceAttributes: {verb: get, resource: pods, namespace: demo}}`, false},
		{"subjectaccessreviews", "", `spec: {groups: [g], nonResourceAttributes: {verb: get, path: /logs/x}}`, true},
		{"subjectaccessreviews", "", `spec: {groups: [g], nonResourceAttributes: {verb: get}}`, false},
		{"localsubjectaccessreviews", "demo", `spec: {groups: [g], resourceAttributes: {verb: get, resource: pods, namespace: demo}}`, true},
		{"localsubjectaccessreviews", "demo", `spec: {groups: [g], resourceAttributes: {verb: get, resource: pods, subresource: log, namespace: demo}}`, false},
		{"selfsubjectaccessreviews", "", `spec: {resourceAttributes: {verb: get, resource: pods}}`, true},
		{"selfsubjectaccessreviews", "", `spec: {resourceAttributes: {verb: delete, resource: pods}}`, false},
	} {
		var status authorizationv1.SubjectAccessReviewStatus
		var err error
		switch q.resource {
		case "subjectaccessreviews":
			var r *authorizationv1.SubjectAccessReview
			if r, err = ask(c, admin, review(q.resource, q.namespace), &authorizationv1.SubjectAccessReview{}, q.text); err == nil {
				status = r.Status
			}
		case "localsubjectaccessreviews":
			var r *authorizationv1.LocalSubjectAccessReview
			if r, err = ask(c, admin, review(q.resource, q.namespace), &authorizationv1.LocalSubjectAccessReview{}, q.text); err == nil {
				status = r.Status
			}
		default:
			var r *authorizationv1.SelfSubjectAccessReview
			if r, err = ask(c, u, review(q.resource, q.namespace), &authorizationv1.SelfSubjectAccessReview{}, q.text); err == nil {
				status = r.Status
			}
		}
		if err != nil || status.Allowed != q.allowed || status.Allowed != strings.HasPrefix(status.Reason, "RBAC: allowed by ClusterRoleBinding") {
			t.Errorf("%d: %+v %v", i, status, err)
		}
	}
	r, err := ask(c, u, review("selfsubjectrulesreviews", ""), &authorizationv1.SelfSubjectRulesReview{}, `spec: {namespace: demo}`)
	has := func(resource string) bool {
		for _, rule := range r.Status.ResourceRules {
			if strings.Join(rule.Resources, ",") == resource {
				return true
			}
		}
		return false
	}
	if err != nil || !has("pods") || !has("selfsubjectaccessreviews,selfsubjectrulesreviews") || len(r.Status.NonResourceRules) == 0 || r.Status.Incomplete {
		t.Errorf("%+v %v", r, err)
	}
	me, err := ask(c, u, review("selfsubjectreviews", ""), &authenticationv1.SelfSubjectReview{}, `{}`)
	if err != nil || me.Status.UserInfo.Username != "ugo" || len(me.Status.UserInfo.Groups) != 2 {
		t.Errorf("%+v %v", me, err)
	}
}

func TestBadAccessReviews(t *testing.T) {
	c, _, _ := withTokens(t)
	const good = `resourceAttributes: {verb: get, resource: pods, namespace: demo}`
	specs := map[string]string{
		`spec: {user: u}`: `spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified`,
		`spec: {user: u, ` + good + `, nonResourceAttributes: {path: /}}`: `spec.nonResourceAttributes: Invalid value: {"path":"/"}: cannot be specified in combination with resourceAttributes`,
		`spec: {` + good + `}`:                                                      `spec.user: Invalid value: "": at least one of user or group must be specified`,
		`{metadata: {name: x}, spec: {user: u, ` + good + `}}`:                      `metadata: Invalid value: `,
		`{metadata: {labels: {a: b}}, spec: {user: u, ` + good + `}}`:               `must be empty`,
		`spec: {user: u, resourceAttributes: {namespace: demo, fieldSelector: {}}}`: `spec.resourceAttributes.fieldSelector.requirements: Required value`,
		`spec: {user: u, resourceAttributes: {namespace: demo, labelSelector: {}}}`: `spec.resourceAttributes.labelSelector.requirements: Required value`,
		`spec: {user: u, resourceAttributes: {namespace: demo, fieldSelector: {rawSelector: a=b, requirements: [{key: a, operator: Exists}]}}}`: `spec.resourceAttributes.fieldSelector.rawSelector: Invalid value: "a=b": may not specified at the same time as requirements`,
		`spec: {user: u, resourceAttributes: {namespace: demo, labelSelector: {requirements: [{operator: Exists}]}}}`:                           `spec.resourceAttributes.labelSelector.requirements[0].key: Required value: must be specified`,
		`spec: {user: u, resourceAttributes: {namespace: demo, labelSelector: {requirements: [{key: a, operator: In}]}}}`:                       `requirements[0].values: Required value`,
		`spec: {user: u, resourceAttributes: {namespace: demo, fieldSelector: {requirements: [{key: a, operator: Exists, values: [x]}]}}}`:      `requirements[0].values: Forbidden`,
		`spec: {user: u, resourceAttributes: {namespace: demo, fieldSelector: {requirements: [{key: a, operator: Has}]}}}`:                      `requirements[0].operator: Unsupported value: "Has"`,
	}
	check := func(text, want string, err error) {
		t.Helper()
		if !errors.Is(err, apierr.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", text, err, want)
		}
	}
	for text, want := range specs {
		_, err := ask(c, admin, review("subjectaccessreviews", ""), &authorizationv1.SubjectAccessReview{}, text)
		check(text, want, err)
		_, err = ask(c, admin, review("localsubjectaccessreviews", "demo"), &authorizationv1.LocalSubjectAccessReview{}, text)
		check("local "+text, strings.Replace(want, "must be empty", "must be empty except for namespace", 1), err)
		self := strings.Replace(strings.Replace(text, "user: u, ", "", 1), "user: u", "", 1)
		if self == text { // the missing user is no error
			continue
		}
		_, err = ask(c, admin, review("selfsubjectaccessreviews", ""), &authorizationv1.SelfSubjectAccessReview{}, self)
		check("self "+self, want, err)
	}
	local := func(text string) error {
		_, err := ask(c, admin, review("localsubjectaccessreviews", "demo"), &authorizationv1.LocalSubjectAccessReview{}, text)
		return err
	}
	check("other namespace", `spec.resourceAttributes.namespace: Invalid value: "x": must match metadata.namespace`, local(`spec: {user: u, resourceAttributes: {namespace: x}}`))
	check("path", `spec.nonResourceAttributes: Invalid value: {"path":"/"}: disallowed on this kind of request`, local(`spec: {user: u, nonResourceAttributes: {path: /}}`))
	if _, err := ask(c, admin, review("selfsubjectrulesreviews", ""), &authorizationv1.SelfSubjectRulesReview{}, `{}`); !errors.Is(err, apierr.ErrBadRequest) {
		t.Error(err)
	}
	target := review("subjectaccessreviews", "")
	target.Version = "v1"
	if _, err := c.api.Get(t.Context(), admin, target, api.GetOptions{}); !errors.Is(err, apierr.ErrMethodNotAllowed) {
		t.Errorf("get: %v", err)
	}
	if _, err := c.api.List(t.Context(), admin, target, api.ListOptions{}); !errors.Is(err, apierr.ErrMethodNotAllowed) {
		t.Errorf("list: %v", err)
	}
	if _, err := c.api.Create(t.Context(), admin, target, &corev1.Pod{}, api.WriteOptions{}); !errors.Is(err, apierr.ErrBadRequest) {
		t.Errorf("another kind: %v", err)
	}
}

// TestEscalation: nobody gives what he does not have, whatever the verb.
func TestEscalation(t *testing.T) {
	c, _, _ := withTokens(t)
	c.must(c.create("clusterrolebindings.rbac.authorization.k8s.io", "", `{metadata: {name: b}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}, subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: jane}]}`))
	jane := api.User{Name: "jane", Groups: []string{"system:authenticated"}}
	at := api.Target{Group: rbacv1.GroupName, Version: "v1", Resource: "roles", Namespace: "demo"}
	make := func(text string) error {
		_, err := ask(c, jane, at, &rbacv1.Role{}, text)
		return err
	}
	_, err := c.api.Create(t.Context(), jane, at, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}}}}, api.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := make(`{metadata: {name: s}, rules: [{apiGroups: [""], resources: [nodes], verbs: [get]}]}`); !errors.Is(err, apierr.ErrForbidden) {
		t.Error(err)
	}
	at.Name = "r"
	patch := `{"rules":[{"apiGroups":[""],"resources":["nodes"],"verbs":["get"]}]}`
	for _, dry := range []bool{true, false} {
		if _, err := c.api.Patch(t.Context(), jane, at, "application/merge-patch+json", []byte(patch), api.WriteOptions{DryRun: dry}); !errors.Is(err, apierr.ErrForbidden) {
			t.Error(err)
		}
	}
	if _, err := c.api.Patch(t.Context(), jane, at, "application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`), api.WriteOptions{}); err != nil {
		t.Error(err)
	}
}

// TestListOfOneName: who may list one name may list what has that name, and no
// more.
func TestListOfOneName(t *testing.T) {
	c, _, _ := withTokens(t)
	c.must(c.create("roles.rbac.authorization.k8s.io", "demo", `{metadata: {name: one}, rules: [{apiGroups: [""], resources: [configmaps], resourceNames: [m], verbs: [list, watch]}]}`))
	c.must(c.create("rolebindings.rbac.authorization.k8s.io", "demo", `{metadata: {name: one}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: one}, subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: jane}]}`))
	at := api.Target{Version: "v1", Resource: "configmaps", Namespace: "demo"}
	for text, ok := range map[string]bool{"metadata.name=m": true, "metadata.name=n": false, "metadata.name!=m": false, "": false} {
		sel := api.Selection{Fields: fields.ParseSelectorOrDie(text)}
		if _, err := c.api.List(t.Context(), jane, at, api.ListOptions{Selection: sel}); (err == nil) != ok {
			t.Errorf("list %q: %v", text, err)
		}
		w, err := c.api.Watch(t.Context(), jane, at, api.WatchOptions{Selection: sel})
		if (err == nil) != ok {
			t.Errorf("watch %q: %v", text, err)
		}
		if err == nil {
			w.Stop()
		}
	}
}
