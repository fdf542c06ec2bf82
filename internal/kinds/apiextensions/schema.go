package apiextensions

import (
	"maps"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxSchemaDepth bounds how deep a schema is followed.
const maxSchemaDepth = 64

// validateSchema demands that a schema is structural: each value has a type, or
// says that it may have any.
func validateSchema(s *apiextensionsv1.JSONSchemaProps, at *field.Path) field.ErrorList {
	return schemaAt(s, at, 0)
}

func schemaAt(s *apiextensionsv1.JSONSchemaProps, at *field.Path, depth int) field.ErrorList {
	if depth > maxSchemaDepth {
		return field.ErrorList{field.Forbidden(at, "the schema is nested too deeply")}
	}
	errs := validateNode(s, at)
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		errs = append(errs, schemaAt(&p, at.Child("properties").Key(name), depth+1)...)
	}
	if a := s.AdditionalProperties; a != nil && a.Schema != nil {
		errs = append(errs, schemaAt(a.Schema, at.Child("additionalProperties"), depth+1)...)
	}
	if s.Items != nil && s.Items.Schema != nil {
		errs = append(errs, schemaAt(s.Items.Schema, at.Child("items"), depth+1)...)
	}
	return errs
}

// validateNode checks one schema without those below it.
func validateNode(s *apiextensionsv1.JSONSchemaProps, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	types := []string{"array", "boolean", "integer", "number", "object", "string"}
	free := s.XPreserveUnknownFields != nil && *s.XPreserveUnknownFields
	switch {
	case s.Type == "" && !s.XIntOrString && !free:
		errs = append(errs, field.Required(at.Child("type"), "must not be empty for specified object fields"))
	case s.Type != "" && !slices.Contains(types, s.Type):
		errs = append(errs, field.NotSupported(at.Child("type"), s.Type, types))
	case s.Type == "array" && s.Items == nil:
		errs = append(errs, field.Required(at.Child("items"), "must be specified"))
	}
	if s.Ref != nil {
		errs = append(errs, field.Forbidden(at.Child("$ref"), "$ref is not supported"))
	}
	if s.UniqueItems {
		errs = append(errs, field.Forbidden(at.Child("uniqueItems"), "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"))
	}
	if s.AdditionalProperties != nil && len(s.Properties) > 0 {
		errs = append(errs, field.Forbidden(at.Child("additionalProperties"), "additionalProperties and properties are mutual exclusive"))
	}
	lists := []string{"atomic", "map", "set"}
	if l := s.XListType; l != nil && !slices.Contains(lists, *l) {
		errs = append(errs, field.NotSupported(at.Child("x-kubernetes-list-type"), *l, lists))
	}
	if l := s.XListType; l != nil && *l == "map" && len(s.XListMapKeys) == 0 {
		errs = append(errs, field.Required(at.Child("x-kubernetes-list-map-keys"), "must not be empty if x-kubernetes-list-type is map"))
	}
	kinds := []string{"atomic", "granular"}
	if m := s.XMapType; m != nil && !slices.Contains(kinds, *m) {
		errs = append(errs, field.NotSupported(at.Child("x-kubernetes-map-type"), *m, kinds))
	}
	return errs
}
