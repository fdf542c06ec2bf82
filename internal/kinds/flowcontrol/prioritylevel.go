package flowcontrol

import (
	"fmt"
	"time"

	flowv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// What a priority level gets where it says nothing.
const (
	defaultShares   = 30
	defaultQueues   = 64
	defaultHandSize = 8
	defaultLength   = 50
	maxQueues       = 10 * 1000 * 1000
)

// PriorityLevelConfiguration is the kind of shares of what the server can do.
func PriorityLevelConfiguration() *api.Kind {
	queuing := flowv1.QueuingConfiguration{}.SwaggerDoc()
	return api.WithStatus(&api.Kind{
		Group: flowv1.GroupName, Version: "v1", Kind: "PriorityLevelConfiguration",
		Resource: "prioritylevelconfigurations", Singular: "prioritylevelconfiguration",
		Verbs:    api.AllVerbs(),
		New:      func() api.Object { return &flowv1.PriorityLevelConfiguration{} },
		Default:  api.On(func(p *flowv1.PriorityLevelConfiguration) { defaultLevel(&p.Spec) }),
		Validate: api.Check(validateLevel),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Type", flowv1.PriorityLevelConfigurationSpec{}.SwaggerDoc()["type"]),
			api.TextColumn("NominalConcurrencyShares", flowv1.LimitedPriorityLevelConfiguration{}.SwaggerDoc()["nominalConcurrencyShares"]),
			api.TextColumn("Queues", queuing["queues"]),
			api.TextColumn("HandSize", queuing["handSize"]),
			api.TextColumn("QueueLengthLimit", queuing["queueLengthLimit"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(p *flowv1.PriorityLevelConfiguration, now time.Time) []any {
			var shares, queues, hand, length any = api.CellNone, api.CellNone, api.CellNone, api.CellNone
			if l := p.Spec.Limited; l != nil {
				if l.NominalConcurrencyShares != nil {
					shares = int64(*l.NominalConcurrencyShares)
				}
				if q := l.LimitResponse.Queuing; q != nil {
					queues, hand, length = int64(q.Queues), int64(q.HandSize), int64(q.QueueLengthLimit)
				}
			}
			return []any{p.Name, string(p.Spec.Type), shares, queues, hand, length, api.Age(p.CreationTimestamp, now)}
		}),
	}, func(p *flowv1.PriorityLevelConfiguration) *flowv1.PriorityLevelConfigurationSpec { return &p.Spec },
		func(p *flowv1.PriorityLevelConfiguration) *flowv1.PriorityLevelConfigurationStatus { return &p.Status })
}

func defaultLevel(s *flowv1.PriorityLevelConfigurationSpec) {
	if e := s.Exempt; e != nil {
		api.SetDefault(&e.NominalConcurrencyShares, 0)
		api.SetDefault(&e.LendablePercent, 0)
	}
	l := s.Limited
	if l == nil {
		return
	}
	api.SetDefault(&l.NominalConcurrencyShares, defaultShares)
	api.SetDefault(&l.LendablePercent, 0)
	if q := l.LimitResponse.Queuing; q != nil {
		for _, f := range []struct {
			at    *int32
			value int32
		}{{&q.Queues, defaultQueues}, {&q.HandSize, defaultHandSize}, {&q.QueueLengthLimit, defaultLength}} {
			if *f.at == 0 {
				*f.at = f.value
			}
		}
	}
}

func validateLevel(p *flowv1.PriorityLevelConfiguration) field.ErrorList {
	var errs field.ErrorList
	s, at := &p.Spec, field.NewPath("spec")
	if (p.Name == exempt) != (s.Type == flowv1.PriorityLevelEnablementExempt) {
		errs = append(errs, field.Invalid(at.Child("type"), s.Type, "type must be 'Exempt' if and only if `name` is 'exempt'"))
	}
	switch s.Type {
	case flowv1.PriorityLevelEnablementExempt:
		if s.Limited != nil {
			errs = append(errs, field.Forbidden(at.Child("limited"), "must be nil if the type is not Limited"))
		}
	case flowv1.PriorityLevelEnablementLimited:
		if s.Exempt != nil {
			errs = append(errs, field.Forbidden(at.Child("exempt"), "must be nil if the type is Limited"))
		}
		if s.Limited == nil {
			errs = append(errs, field.Required(at.Child("limited"), "must not be empty when type is Limited"))
		} else {
			errs = append(errs, validateLimited(s.Limited, at.Child("limited"))...)
		}
	default:
		errs = append(errs, field.NotSupported(at.Child("type"), s.Type, []flowv1.PriorityLevelEnablement{
			flowv1.PriorityLevelEnablementExempt, flowv1.PriorityLevelEnablementLimited,
		}))
	}
	return errs
}

func validateLimited(l *flowv1.LimitedPriorityLevelConfiguration, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := l.NominalConcurrencyShares; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(at.Child("nominalConcurrencyShares"), *n, "must be a non-negative integer"))
	}
	errs = append(errs, validateResponse(&l.LimitResponse, at.Child("limitResponse"))...)
	if n := l.LendablePercent; n != nil && (*n < 0 || *n > 100) {
		errs = append(errs, field.Invalid(at.Child("lendablePercent"), *n, "must be between 0 and 100, inclusive"))
	}
	if n := l.BorrowingLimitPercent; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(at.Child("borrowingLimitPercent"), *n, "if specified, must be a non-negative integer"))
	}
	return errs
}

func validateResponse(r *flowv1.LimitResponse, at *field.Path) field.ErrorList {
	q := r.Queuing
	switch {
	case r.Type == flowv1.LimitResponseTypeReject && q != nil:
		return field.ErrorList{field.Forbidden(at.Child("queuing"), "must be nil if limited.limitResponse.type is not Limited")}
	case r.Type == flowv1.LimitResponseTypeReject:
		return nil
	case r.Type != flowv1.LimitResponseTypeQueue:
		return field.ErrorList{field.NotSupported(at.Child("type"), r.Type, []flowv1.LimitResponseType{flowv1.LimitResponseTypeQueue, flowv1.LimitResponseTypeReject})}
	case q == nil:
		return field.ErrorList{field.Required(at.Child("queuing"), "must not be empty if limited.limitResponse.type is Limited")}
	}
	var errs field.ErrorList
	at = at.Child("queuing")
	for _, f := range []struct {
		name string
		is   int32
	}{{"queueLengthLimit", q.QueueLengthLimit}, {"queues", q.Queues}, {"handSize", q.HandSize}} {
		if f.is <= 0 {
			errs = append(errs, field.Invalid(at.Child(f.name), f.is, "must be positive"))
		}
	}
	if q.Queues > maxQueues {
		errs = append(errs, field.Invalid(at.Child("queues"), q.Queues, fmt.Sprintf("must not be greater than %d", maxQueues)))
	}
	if q.HandSize > q.Queues {
		errs = append(errs, field.Invalid(at.Child("handSize"), q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues)))
	}
	return errs
}
