package apiextensions

import (
	"fmt"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const maxSelectable = 8

// invalid makes an error of each message.
func invalid(at *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(at, value, m))
	}
	return errs
}

func validateDefinition(d *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	var errs field.ErrorList
	s, at := &d.Spec, field.NewPath("spec")
	if want := s.Names.Plural + "." + s.Group; d.Name != want {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), d.Name, "must be spec.names.plural+\".\"+spec.group"))
	}
	switch {
	case s.Group == "":
		errs = append(errs, field.Required(at.Child("group"), ""))
	case len(utilvalidation.IsDNS1123Subdomain(s.Group)) > 0:
		errs = append(errs, field.Invalid(at.Child("group"), s.Group, strings.Join(utilvalidation.IsDNS1123Subdomain(s.Group), ",")))
	case !strings.Contains(s.Group, "."):
		errs = append(errs, field.Invalid(at.Child("group"), s.Group, "should be a domain with at least one dot"))
	}
	scopes := []apiextensionsv1.ResourceScope{apiextensionsv1.ClusterScoped, apiextensionsv1.NamespaceScoped}
	if s.Scope == "" {
		errs = append(errs, field.Required(at.Child("scope"), ""))
	} else if !slices.Contains(scopes, s.Scope) {
		errs = append(errs, field.NotSupported(at.Child("scope"), s.Scope, scopes))
	}
	if s.PreserveUnknownFields {
		errs = append(errs, field.Invalid(at.Child("preserveUnknownFields"), true, "must be false in order to use defaults in the schema"))
	}
	errs = append(errs, validateVersions(s, at.Child("versions"))...)
	errs = append(errs, validateNames(&s.Names, at.Child("names"))...)
	return append(errs, validateConversion(s.Conversion, at.Child("conversion"))...)
}

func validateVersions(s *apiextensionsv1.CustomResourceDefinitionSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	stored := 0
	seen := map[string]bool{}
	unique := true
	for i := range s.Versions {
		v, one := &s.Versions[i], at.Index(i)
		if v.Storage {
			stored++
		}
		unique = unique && !seen[v.Name]
		seen[v.Name] = true
		if bad := utilvalidation.IsDNS1035Label(v.Name); len(bad) > 0 {
			errs = append(errs, field.Invalid(one.Child("name"), v.Name, strings.Join(bad, ",")))
		}
		errs = append(errs, validateVersion(v, one)...)
	}
	if !unique {
		errs = append(errs, field.Invalid(at, s.Versions, "must contain unique version names"))
	}
	if stored != 1 {
		errs = append(errs, field.Invalid(at, s.Versions, "must have exactly one version marked as storage version"))
	}
	return errs
}

func validateVersion(v *apiextensionsv1.CustomResourceDefinitionVersion, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	schema := at.Child("schema", "openAPIV3Schema")
	if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
		errs = append(errs, field.Required(schema, "schemas are required"))
	} else {
		root := v.Schema.OpenAPIV3Schema
		if root.Type != "" && root.Type != "object" {
			errs = append(errs, field.Invalid(schema.Child("type"), root.Type, "must be object at the root"))
		}
		errs = append(errs, validateSchema(root, schema)...)
	}
	if v.DeprecationWarning != nil && !v.Deprecated {
		errs = append(errs, field.Invalid(at.Child("deprecationWarning"), *v.DeprecationWarning, "can only be set for deprecated versions"))
	}
	types := []string{"boolean", "date", "integer", "number", "string"}
	for i, c := range v.AdditionalPrinterColumns {
		one := at.Child("additionalPrinterColumns").Index(i)
		if c.Name == "" {
			errs = append(errs, field.Required(one.Child("name"), ""))
		}
		if c.Type == "" {
			errs = append(errs, field.Required(one.Child("type"), "must be one of "+strings.Join(types, ",")))
		} else if !slices.Contains(types, c.Type) {
			errs = append(errs, field.Invalid(one.Child("type"), c.Type, "must be one of "+strings.Join(types, ",")))
		}
		errs = append(errs, validateJSONPath(c.JSONPath, one.Child("jsonPath"))...)
	}
	if len(v.SelectableFields) > maxSelectable {
		errs = append(errs, field.TooMany(at.Child("selectableFields"), len(v.SelectableFields), maxSelectable))
	}
	for i, f := range v.SelectableFields {
		errs = append(errs, validateJSONPath(f.JSONPath, at.Child("selectableFields").Index(i).Child("jsonPath"))...)
	}
	return append(errs, validateSubresources(v.Subresources, at.Child("subresources"))...)
}

func validateJSONPath(p string, at *field.Path) field.ErrorList {
	if p == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	if !strings.HasPrefix(p, ".") {
		return field.ErrorList{field.Invalid(at, p, "must be a simple json path starting with .")}
	}
	return nil
}

func validateSubresources(s *apiextensionsv1.CustomResourceSubresources, at *field.Path) field.ErrorList {
	if s == nil || s.Scale == nil {
		return nil
	}
	var errs field.ErrorList
	for _, f := range []struct{ name, path, under string }{
		{"specReplicasPath", s.Scale.SpecReplicasPath, ".spec."},
		{"statusReplicasPath", s.Scale.StatusReplicasPath, ".status."},
	} {
		one := at.Child("scale", f.name)
		if f.path == "" {
			errs = append(errs, field.Required(one, ""))
		} else if !strings.HasPrefix(f.path, f.under) {
			errs = append(errs, field.Invalid(one, f.path, fmt.Sprintf("should be a json path under %s", strings.TrimSuffix(f.under, "."))))
		}
	}
	return errs
}

func validateNames(n *apiextensionsv1.CustomResourceDefinitionNames, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	label := func(name, value string, lower bool) {
		tested := value
		if !lower {
			tested = strings.ToLower(value)
		}
		if bad := utilvalidation.IsDNS1035Label(tested); len(bad) > 0 {
			text := strings.Join(bad, ",")
			if !lower {
				text = "may have mixed case, but should otherwise match: " + text
			}
			errs = append(errs, field.Invalid(at.Child(name), value, text))
		}
	}
	if n.Plural == "" {
		errs = append(errs, field.Required(at.Child("plural"), ""))
	} else {
		label("plural", n.Plural, true)
	}
	if n.Kind == "" {
		errs = append(errs, field.Required(at.Child("kind"), ""))
	} else {
		label("kind", n.Kind, false)
		label("singular", n.Singular, true)
		label("listKind", n.ListKind, false)
		if n.Kind == n.ListKind {
			errs = append(errs, field.Invalid(at.Child("listKind"), n.ListKind, "kind and listKind may not be the same"))
		}
	}
	for i, s := range n.ShortNames {
		errs = append(errs, invalid(at.Child("shortNames").Index(i), s, utilvalidation.IsDNS1035Label(s))...)
	}
	for i, c := range n.Categories {
		errs = append(errs, invalid(at.Child("categories").Index(i), c, utilvalidation.IsDNS1035Label(c))...)
	}
	return errs
}

func validateConversion(c *apiextensionsv1.CustomResourceConversion, at *field.Path) field.ErrorList {
	if c == nil {
		return nil
	}
	strategies := []apiextensionsv1.ConversionStrategyType{apiextensionsv1.NoneConverter, apiextensionsv1.WebhookConverter}
	switch {
	case c.Strategy == "":
		return field.ErrorList{field.Required(at.Child("strategy"), "")}
	case !slices.Contains(strategies, c.Strategy):
		return field.ErrorList{field.NotSupported(at.Child("strategy"), c.Strategy, strategies)}
	case c.Strategy == apiextensionsv1.NoneConverter && c.Webhook != nil:
		return field.ErrorList{field.Forbidden(at.Child("webhook"), "should not be set when strategy is not set to Webhook")}
	case c.Strategy == apiextensionsv1.WebhookConverter && (c.Webhook == nil || c.Webhook.ClientConfig == nil):
		return field.ErrorList{field.Required(at.Child("webhookClientConfig"), "required when strategy is set to Webhook")}
	case c.Strategy == apiextensionsv1.WebhookConverter && len(c.Webhook.ConversionReviewVersions) == 0:
		return field.ErrorList{field.Required(at.Child("conversionReviewVersions"), "")}
	}
	return nil
}

// validateDefinitionUpdate keeps what custom resources are found by.
func validateDefinitionUpdate(d, old *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	at := field.NewPath("spec")
	errs := validation.ValidateImmutableField(d.Spec.Group, old.Spec.Group, at.Child("group"))
	errs = append(errs, validation.ValidateImmutableField(d.Spec.Names.Plural, old.Spec.Names.Plural, at.Child("names", "plural"))...)
	for _, c := range old.Status.Conditions {
		if c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue {
			errs = append(errs, validation.ValidateImmutableField(d.Spec.Scope, old.Spec.Scope, at.Child("scope"))...)
			errs = append(errs, validation.ValidateImmutableField(d.Spec.Names.Kind, old.Spec.Names.Kind, at.Child("names", "kind"))...)
		}
	}
	for i, stored := range old.Status.StoredVersions {
		if !slices.ContainsFunc(d.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Name == stored }) {
			errs = append(errs, field.Invalid(field.NewPath("status", "storedVersions").Index(i), stored, "must appear in spec.versions"))
		}
	}
	return errs
}
