package api

import (
	"encoding/json"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/apierr"
)

// Validations of WriteOptions.FieldValidation; empty means warn.
const (
	ValidateIgnore = metav1.FieldValidationIgnore
	ValidateWarn   = metav1.FieldValidationWarn
	ValidateStrict = metav1.FieldValidationStrict
)

// NewBody gives an empty object for a body of the kind named: one of the table,
// or the body of a subresource (Scale, Binding, Eviction, TokenRequest).
func (t *Kinds) NewBody(gvk schema.GroupVersionKind) (Object, bool) {
	if k, ok := t.byGVK[gvk]; ok {
		return k.New(), true
	}
	switch gvk.GroupVersion().String() + "/" + gvk.Kind {
	case "autoscaling/v1/Scale":
		return &autoscalingv1.Scale{}, true
	case "v1/Binding":
		return &corev1.Binding{}, true
	case "policy/v1/Eviction":
		return &policyv1.Eviction{}, true
	case "authentication.k8s.io/v1/TokenRequest":
		return &authenticationv1.TokenRequest{}, true
	}
	return nil, false
}

// Body names the kind of a subresource's body. Where the subresource names no
// version, group and version are the parent's.
func (k *Kind) Body(s Subresource) schema.GroupVersionKind {
	gvk := schema.GroupVersionKind{Group: s.Group, Version: s.Version, Kind: s.Kind}
	if gvk.Version == "" {
		gvk.Group, gvk.Version = k.Group, k.Version
	}
	if gvk.Kind == "" {
		gvk.Kind = k.Kind
	}
	return gvk
}

// DecodeJSON, DecodeYAML and DecodeProtobuf decode a request's body into into.
// The body must be of kind want, or name no kind. With ValidateStrict unknown
// and repeated fields are an error, with ValidateWarn they are returned as
// warnings. Errors are of kind apierr BadRequest, in Kubernetes' words.

// DecodeJSON decodes a body of JSON; see above.
func DecodeJSON(body []byte, want schema.GroupVersionKind, into runtime.Object, validation string) ([]string, error) {
	return decodeText(body, nil, want, into, validation)
}

// DecodeYAML decodes a body of YAML; see above.
func DecodeYAML(body []byte, want schema.GroupVersionKind, into runtime.Object, validation string) ([]string, error) {
	asJSON, err := yaml.YAMLToJSON(body)
	if err != nil {
		return nil, cannotDecode(body, schema.GroupVersionKind{}, want, err)
	}
	return decodeText(asJSON, body, want, into, validation)
}

// DecodeProtobuf decodes a Kubernetes protobuf document; see above. Fields that
// are not known are dropped, since protobuf has no names for them.
func DecodeProtobuf(body []byte, want schema.GroupVersionKind, into runtime.Object) error {
	m, ok := into.(message)
	if !ok {
		return apierr.UnsupportedMediaType("%s has no protobuf form", want.Kind)
	}
	got, raw, err := unwrapProtobuf(body)
	if err != nil {
		return cannotDecode(body, got, want, err)
	}
	if err := SameKind(got, want); err != nil {
		return err
	}
	if err := m.Unmarshal(raw); err != nil {
		return cannotDecode(body, named(got, want), want, err)
	}
	into.GetObjectKind().SetGroupVersionKind(named(got, want))
	return nil
}

// Decode decodes a body by its media type, which is one of the constants above.
func Decode(mediaType string, body []byte, want schema.GroupVersionKind, into runtime.Object, validation string) ([]string, error) {
	switch mediaType {
	case MediaJSON:
		return DecodeJSON(body, want, into, validation)
	case MediaYAML:
		return DecodeYAML(body, want, into, validation)
	case MediaProtobuf:
		return nil, DecodeProtobuf(body, want, into)
	}
	return nil, apierr.UnsupportedMediaType("the body of the request was in an unknown format - accepted media types include: %s, %s, %s", MediaJSON, MediaYAML, MediaProtobuf)
}

// decodeText decodes JSON; original is the YAML that it came from, if any.
func decodeText(body, original []byte, want schema.GroupVersionKind, into runtime.Object, validation string) ([]string, error) {
	var meta metav1.TypeMeta
	if err := json.Unmarshal(body, &meta); err != nil {
		return nil, cannotDecode(body, schema.GroupVersionKind{}, want, fmt.Errorf("couldn't get version/kind; json parse error: %w", err))
	}
	got := schema.FromAPIVersionAndKind(meta.APIVersion, meta.Kind)
	if err := SameKind(got, want); err != nil {
		return nil, err
	}
	warnings, err := Unmarshal(body, original, into, validation)
	if err != nil {
		if strict := (*StrictError)(nil); asStrict(err, &strict) {
			return nil, apierr.BadRequest("%w", err)
		}
		return nil, cannotDecode(body, named(got, want), want, err)
	}
	into.GetObjectKind().SetGroupVersionKind(named(got, want))
	return warnings, nil
}

// Unmarshal decodes JSON into into as Kubernetes does: names of fields are
// case-sensitive and whole numbers stay whole. Original is the YAML that the
// JSON came from, or nil. What validation says of unknown and repeated fields
// becomes warnings, or a *StrictError.
func Unmarshal(body, original []byte, into any, validation string) (warnings []string, err error) {
	if validation == ValidateIgnore {
		return nil, kjson.UnmarshalCaseSensitivePreserveInts(body, into)
	}
	var strict []error
	if original != nil {
		if _, err := yaml.YAMLToJSONStrict(original); err != nil {
			strict = append(strict, err)
		}
	}
	more, err := kjson.UnmarshalStrict(body, into)
	if err != nil {
		return nil, err
	}
	return Strictness(append(strict, more...), validation)
}

// Strictness says what validation makes of the unknown and repeated fields that
// decoding met: warnings, a *StrictError, or nothing.
func Strictness(found []error, validation string) (warnings []string, err error) {
	if len(found) == 0 || validation == ValidateIgnore {
		return nil, nil
	}
	if validation == ValidateStrict {
		return nil, &StrictError{runtime.NewStrictDecodingError(found)}
	}
	for _, e := range found {
		warnings = append(warnings, e.Error())
	}
	return warnings, nil
}

// StrictError tells of unknown and repeated fields in a body that had to be
// free of them.
type StrictError struct{ err error }

// Error gives Kubernetes' text, "strict decoding error: unknown field …".
func (e *StrictError) Error() string { return e.err.Error() }

// Unwrap gives the error that runtime.IsStrictDecodingError knows.
func (e *StrictError) Unwrap() error { return e.err }

func asStrict(err error, into **StrictError) bool {
	e, ok := err.(*StrictError)
	if ok {
		*into = e
	}
	return ok
}

// named completes what a body says of its kind.
func named(got, want schema.GroupVersionKind) schema.GroupVersionKind {
	if got.Kind == "" {
		got.Kind = want.Kind
	}
	if got.Version == "" {
		got.Group, got.Version = want.Group, want.Version
	}
	return got
}

// SameKind checks what a body says of its kind, where it says anything. Options
// are of every group.
func SameKind(got, want schema.GroupVersionKind) error {
	got = named(got, want)
	switch {
	case got == want, got.Kind == want.Kind && want.Kind == "DeleteOptions":
		return nil
	case got.GroupVersion() != want.GroupVersion():
		return apierr.BadRequest("the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), want.GroupVersion())
	}
	return apierr.BadRequest("%s in version %q cannot be handled as a %s: no conversion from %s to %s",
		got.Kind, got.Version, want.Kind, got.Kind, want.Kind)
}

// cannotDecode is Kubernetes' text for a body that is not what it should be.
func cannotDecode(body []byte, got, want schema.GroupVersionKind, why error) error {
	if got.Kind != "" {
		return apierr.BadRequest("%s in version %q cannot be handled as a %s: %w", got.Kind, got.Version, want.Kind, why)
	}
	return apierr.BadRequest("the object provided is unrecognized (must be of type %s): %w (%s)", want.Kind, why, summary(body))
}

// summary shows the beginning of a body.
func summary(body []byte) string {
	const most = 30
	switch {
	case len(body) == 0:
		return "<empty>"
	case body[0] == '{' && len(body) > most:
		return string(body[:most]) + " ..."
	case body[0] == '{':
		return string(body)
	case len(body) > most:
		return fmt.Sprintf("%x ...", body[:most])
	}
	return fmt.Sprintf("%x", body)
}
