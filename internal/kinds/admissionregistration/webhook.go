package admissionregistration

import (
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

const (
	defaultTimeout = 10
	defaultPort    = 443
)

// ValidatingWebhookConfiguration is the kind of webhooks that may refuse.
func ValidatingWebhookConfiguration() *api.Kind {
	return api.WithSpec(&api.Kind{
		Group: admissionv1.GroupName, Version: "v1", Kind: "ValidatingWebhookConfiguration",
		Resource: "validatingwebhookconfigurations", Singular: "validatingwebhookconfiguration",
		Warn:          unused(webhooksUnused),
		NeedsRevision: true,
		Verbs:         api.AllVerbs(),
		New:           func() api.Object { return &admissionv1.ValidatingWebhookConfiguration{} },
		Default: api.On(func(c *admissionv1.ValidatingWebhookConfiguration) {
			for i := range c.Webhooks {
				defaultWebhook(&c.Webhooks[i])
			}
		}),
		Validate: api.Check(func(c *admissionv1.ValidatingWebhookConfiguration) field.ErrorList {
			return validateWebhooks(c.Webhooks)
		}),
		Columns: webhookColumns(),
		Cells: api.Row(func(c *admissionv1.ValidatingWebhookConfiguration, now time.Time) []any {
			return []any{c.Name, int64(len(c.Webhooks)), api.Age(c.CreationTimestamp, now)}
		}),
	}, func(c *admissionv1.ValidatingWebhookConfiguration) any { return c.Webhooks })
}

// MutatingWebhookConfiguration is the kind of webhooks that may change.
func MutatingWebhookConfiguration() *api.Kind {
	return api.WithSpec(&api.Kind{
		Group: admissionv1.GroupName, Version: "v1", Kind: "MutatingWebhookConfiguration",
		Resource: "mutatingwebhookconfigurations", Singular: "mutatingwebhookconfiguration",
		Warn:          unused(webhooksUnused),
		NeedsRevision: true,
		Verbs:         api.AllVerbs(),
		New:           func() api.Object { return &admissionv1.MutatingWebhookConfiguration{} },
		Default: api.On(func(c *admissionv1.MutatingWebhookConfiguration) {
			for i := range c.Webhooks {
				h := &c.Webhooks[i]
				plain := withoutMutation(h)
				defaultWebhook(&plain)
				h.ClientConfig, h.Rules, h.FailurePolicy, h.MatchPolicy = plain.ClientConfig, plain.Rules, plain.FailurePolicy, plain.MatchPolicy
				h.NamespaceSelector, h.ObjectSelector, h.TimeoutSeconds = plain.NamespaceSelector, plain.ObjectSelector, plain.TimeoutSeconds
				api.SetDefault(&h.ReinvocationPolicy, admissionv1.NeverReinvocationPolicy)
			}
		}),
		Validate: api.Check(func(c *admissionv1.MutatingWebhookConfiguration) field.ErrorList {
			plain := make([]admissionv1.ValidatingWebhook, len(c.Webhooks))
			for i := range c.Webhooks {
				plain[i] = withoutMutation(&c.Webhooks[i])
			}
			errs := validateWebhooks(plain)
			for i := range c.Webhooks {
				if p := c.Webhooks[i].ReinvocationPolicy; p != nil {
					errs = append(errs, oneOf(field.NewPath("webhooks").Index(i).Child("reinvocationPolicy"), *p, reinvocations())...)
				}
			}
			return errs
		}),
		Columns: webhookColumns(),
		Cells: api.Row(func(c *admissionv1.MutatingWebhookConfiguration, now time.Time) []any {
			return []any{c.Name, int64(len(c.Webhooks)), api.Age(c.CreationTimestamp, now)}
		}),
	}, func(c *admissionv1.MutatingWebhookConfiguration) any { return c.Webhooks })
}

func webhookColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		api.NameColumn(),
		api.NumberColumn("Webhooks", "How many webhooks the configuration has."),
		api.AgeColumn(),
	}
}

// withoutMutation is a webhook without what only mutating ones have.
func withoutMutation(h *admissionv1.MutatingWebhook) admissionv1.ValidatingWebhook {
	return admissionv1.ValidatingWebhook{
		Name: h.Name, ClientConfig: h.ClientConfig, Rules: h.Rules, FailurePolicy: h.FailurePolicy, MatchPolicy: h.MatchPolicy,
		NamespaceSelector: h.NamespaceSelector, ObjectSelector: h.ObjectSelector, SideEffects: h.SideEffects,
		TimeoutSeconds: h.TimeoutSeconds, AdmissionReviewVersions: h.AdmissionReviewVersions, MatchConditions: h.MatchConditions,
	}
}

func defaultWebhook(h *admissionv1.ValidatingWebhook) {
	api.SetDefault(&h.FailurePolicy, admissionv1.Fail)
	api.SetDefault(&h.MatchPolicy, admissionv1.Equivalent)
	api.SetDefault(&h.NamespaceSelector, metav1.LabelSelector{})
	api.SetDefault(&h.ObjectSelector, metav1.LabelSelector{})
	api.SetDefault(&h.TimeoutSeconds, defaultTimeout)
	if h.ClientConfig.Service != nil {
		api.SetDefault(&h.ClientConfig.Service.Port, defaultPort)
	}
	for i := range h.Rules {
		api.SetDefault(&h.Rules[i].Scope, admissionv1.AllScopes)
	}
}
