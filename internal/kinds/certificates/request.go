package certificates

import (
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/wherry-project/wherry/internal/api"
)

// CertificateSigningRequest is the kind of requests for a certificate. Its spec
// never changes; who asks is written into it on create by
// internal/admission.
func CertificateSigningRequest() *api.Kind {
	spec := certificatesv1.CertificateSigningRequestSpec{}.SwaggerDoc()
	verbs := []string{"get", "patch", "update"}
	type request = *certificatesv1.CertificateSigningRequest
	return &api.Kind{
		Group: certificatesv1.GroupName, Version: "v1", Kind: "CertificateSigningRequest",
		Resource: "certificatesigningrequests", Singular: "certificatesigningrequest",
		ShortNames: []string{"csr"},
		Verbs:      api.AllVerbs(),
		Subresources: []api.Subresource{
			{Name: "approval", Verbs: verbs, ValidateUpdate: api.CheckPair(validateApproval), OnUpdate: api.OnPair(func(r, old request) {
				keep(r, old)
				r.Status.Certificate = slices.Clone(old.Status.Certificate)
				stamp(r, old)
			})},
			{Name: "status", Verbs: verbs},
		},
		New:       func() api.Object { return &certificatesv1.CertificateSigningRequest{} },
		ValidName: path.ValidatePathSegmentName,
		OnCreate: api.On(func(r request) {
			r.Status = certificatesv1.CertificateSigningRequestStatus{}
		}),
		OnUpdate: api.OnPair(func(r, old request) {
			r.Spec = *old.Spec.DeepCopy()
			r.Status = *old.Status.DeepCopy()
		}),
		OnStatus: api.OnPair(func(r, old request) {
			keep(r, old)
			keepDecisions(r, old)
			stamp(r, old)
		}),
		Validate:       api.Check(validateRequest),
		ValidateStatus: api.CheckPair(validateStatus),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.AgeColumn(),
			api.TextColumn("SignerName", spec["signerName"]),
			api.TextColumn("Requestor", spec["username"]),
			api.TextColumn("RequestedDuration", spec["expirationSeconds"]),
			api.TextColumn("Condition", certificatesv1.CertificateSigningRequestStatus{}.SwaggerDoc()["conditions"]),
		},
		Cells: api.Row(func(r request, now time.Time) []any {
			signer, lasts := api.CellNone, api.CellNone
			if r.Spec.SignerName != "" {
				signer = r.Spec.SignerName
			}
			if s := r.Spec.ExpirationSeconds; s != nil {
				lasts = duration.HumanDuration(time.Duration(*s) * time.Second)
			}
			return []any{r.Name, api.Age(r.CreationTimestamp, now), signer, r.Spec.Username, lasts, state(&r.Status)}
		}),
		FieldNames: []string{"spec.signerName"},
		Fields: api.Of(func(r request) map[string]string {
			return map[string]string{"spec.signerName": r.Spec.SignerName}
		}),
	}
}

// keep keeps what neither /approval nor /status may change.
func keep(r, old *certificatesv1.CertificateSigningRequest) {
	api.KeepMeta(r, old)
	r.Spec = *old.Spec.DeepCopy()
}

func decision(t certificatesv1.RequestConditionType) bool {
	return t == certificatesv1.CertificateApproved || t == certificatesv1.CertificateDenied
}

// keepDecisions keeps the conditions that only /approval may write.
func keepDecisions(r, old *certificatesv1.CertificateSigningRequest) {
	var out []certificatesv1.CertificateSigningRequestCondition
	for _, c := range old.Status.Conditions {
		if decision(c.Type) {
			out = append(out, c)
		}
	}
	for _, c := range r.Status.Conditions {
		if !decision(c.Type) {
			out = append(out, c)
		}
	}
	r.Status.Conditions = out
}

// stamp gives new and changed conditions their times, where the writer gave
// none.
func stamp(r, old *certificatesv1.CertificateSigningRequest) {
	now := metav1.Time{Time: time.Now().Truncate(time.Second)}
	for i := range r.Status.Conditions {
		c := &r.Status.Conditions[i]
		n := slices.IndexFunc(old.Status.Conditions, func(o certificatesv1.CertificateSigningRequestCondition) bool { return o.Type == c.Type })
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		switch {
		case !c.LastTransitionTime.IsZero():
		case n >= 0 && old.Status.Conditions[n].Status == c.Status && !old.Status.Conditions[n].LastTransitionTime.IsZero():
			c.LastTransitionTime = old.Status.Conditions[n].LastTransitionTime
		default:
			c.LastTransitionTime = now
		}
	}
}

// state is what kubectl prints of a request.
func state(s *certificatesv1.CertificateSigningRequestStatus) string {
	has := func(t certificatesv1.RequestConditionType) bool {
		return slices.ContainsFunc(s.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == t })
	}
	out := "Pending"
	switch {
	case has(certificatesv1.CertificateDenied):
		out = "Denied"
	case has(certificatesv1.CertificateApproved):
		out = "Approved"
	}
	if has(certificatesv1.CertificateFailed) {
		out += ",Failed"
	}
	if len(s.Certificate) > 0 {
		out += ",Issued"
	}
	return out
}
