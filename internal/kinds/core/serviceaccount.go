package core

import (
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/wherry-project/wherry/internal/api"
)

// ServiceAccount is the kind of service accounts.
func ServiceAccount() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "ServiceAccount",
		Resource: "serviceaccounts", Singular: "serviceaccount",
		Warn:       api.Warn(warnServiceAccount),
		ShortNames: []string{"sa"},
		Namespaced: true,
		Verbs:      allVerbs(),
		Subresources: []api.Subresource{{
			Name: "token", Group: authenticationv1.GroupName, Version: "v1", Kind: "TokenRequest", Verbs: []string{"create"},
			New: func() runtime.Object { return &authenticationv1.TokenRequest{} },
		}},
		New: func() api.Object { return &corev1.ServiceAccount{} },
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.NumberColumn("Secrets", corev1.ServiceAccount{}.SwaggerDoc()["secrets"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(a *corev1.ServiceAccount, now time.Time) []any {
			return []any{a.Name, int64(len(a.Secrets)), api.Age(a.CreationTimestamp, now)}
		}),
		DeleteAnswersObject: true,
	}
}
