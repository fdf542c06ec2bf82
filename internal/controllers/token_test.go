package controllers_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/testkit"
)

const tokenSecret = `{metadata: {name: %s, namespace: default, annotations: {kubernetes.io/service-account.name: %s}}, type: kubernetes.io/service-account-token}`

// filled waits for the token of a Secret.
func filled(c *cluster, name string) string {
	c.t.Helper()
	token := ""
	testkit.Eventually(c.t, patience, func() error {
		s, err := get[*corev1.Secret](c, "secrets", "default", name)
		if err != nil {
			return err
		}
		if token = string(s.Data["token"]); token == "" {
			return fmt.Errorf("%s holds %v", name, s.Data)
		}
		return nil
	})
	return token
}

// TestTokenSecrets: a Secret for a token is filled, its token is its account,
// and neither outlives the other or the account.
func TestTokenSecrets(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	account := c.make(&corev1.ServiceAccount{}, `{metadata: {name: app, namespace: default}, secrets: [{name: kept}, {name: robot}]}`)
	c.make(&corev1.Secret{}, fmt.Sprintf(tokenSecret, "robot", "app"))
	token := filled(c, "robot")
	s := must(get[*corev1.Secret](c, "secrets", "default", "robot"))
	if string(s.Data["ca.crt"]) != "the certificate" || string(s.Data["namespace"]) != "default" || s.Annotations[corev1.ServiceAccountUIDKey] != string(account.GetUID()) || len(s.Data) != 3 {
		t.Errorf("it holds %q, %v", s.Data, s.Annotations)
	}
	u, err := c.tokens.User(t.Context(), token)
	if err != nil || u.Name != "system:serviceaccount:default:app" || u.UID != string(account.GetUID()) || strings.Join(u.Groups, " ") != "system:serviceaccounts system:serviceaccounts:default" {
		t.Errorf("the token is %+v, %v", u, err)
	}
	if _, meant, err := c.tokens.Review(t.Context(), token, []string{"vault", "https://test"}); err != nil || len(meant) != 1 || meant[0] != "https://test" {
		t.Errorf("meant for %v, %v", meant, err)
	}
	if _, _, err := c.tokens.Review(t.Context(), token, []string{"vault"}); err == nil {
		t.Error("it is good for others")
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if want := `"kubernetes.io/serviceaccount/secret.name":"robot"`; err != nil || !strings.Contains(string(payload), want) || strings.Contains(string(payload), `"exp"`) {
		t.Errorf("it says %s, %v", payload, err)
	}

	// What is damaged is mended; the token stays.
	change(c, "secrets", "default", "robot", func(s *corev1.Secret) { s.Data["ca.crt"], s.Data["more"] = []byte("x"), []byte("y") })
	testkit.Eventually(t, patience, func() error {
		s := must(get[*corev1.Secret](c, "secrets", "default", "robot"))
		if string(s.Data["ca.crt"]) != "the certificate" || string(s.Data["token"]) != token || string(s.Data["more"]) != "y" {
			return fmt.Errorf("it holds %q", s.Data)
		}
		return nil
	})
	// A token that the Secret does not hold any more is worth nothing.
	change(c, "secrets", "default", "robot", func(s *corev1.Secret) { delete(s.Data, "token") })
	again := filled(c, "robot")
	if _, err := c.tokens.User(t.Context(), token); err == nil || again == token {
		t.Errorf("the former token is good: %v", err)
	}
	if _, err := c.tokens.User(t.Context(), again); err != nil {
		t.Error(err)
	}
	// Nor is one whose Secret is gone; the account does not name it any more.
	remove := func(resource, name string) {
		t.Helper()
		if err := c.admin.Delete(t.Context(), api.Key{Resource: resource, Namespace: "default", Name: name}, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	remove("secrets", "robot")
	if _, err := c.tokens.User(t.Context(), again); err == nil {
		t.Error("the Secret is gone, and its token is good")
	}
	testkit.Eventually(t, patience, func() error {
		if a := must(get[*corev1.ServiceAccount](c, "serviceaccounts", "default", "app")); len(a.Secrets) != 1 || a.Secrets[0].Name != "kept" {
			return fmt.Errorf("the account names %v", a.Secrets)
		}
		return nil
	})
	// With the account they go, and so do those of no account or of another one.
	c.make(&corev1.Secret{}, fmt.Sprintf(tokenSecret, "second", "app"))
	second := filled(c, "second")
	c.make(&corev1.Secret{}, fmt.Sprintf(tokenSecret, "nobody", "absent"))
	c.make(&corev1.Secret{}, strings.Replace(fmt.Sprintf(tokenSecret, "former", "app"), "{kubernetes.io", "{kubernetes.io/service-account.uid: another, kubernetes.io", 1))
	remove("serviceaccounts", "app")
	if _, err := c.tokens.User(t.Context(), second); err == nil {
		t.Error("the account is gone, and its token is good")
	}
	c.make(&corev1.ServiceAccount{}, `{metadata: {name: app, namespace: default}}`)
	testkit.Eventually(t, patience, func() error {
		if left := list[*corev1.Secret](c, "secrets", "default"); len(left) > 0 {
			return fmt.Errorf("%s is left", left[0].Name)
		}
		return nil
	})
}
