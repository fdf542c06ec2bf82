package openapi

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Packages whose types do not carry their documentation.
const (
	extensions   = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
	registration = "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1."
	measurements = "io.k8s.metrics.pkg.apis.metrics.v1beta1."
)

// ownTexts describes the fields of types that do not carry their documentation;
// the field "" is the type itself.
func ownTexts(model string) map[string]string {
	meta := "Standard object's metadata."
	conditions := map[string]string{
		"":                   "The state of one aspect of the object.",
		"type":               "The aspect that the condition is about.",
		"status":             "Whether the condition holds: True, False or Unknown.",
		"reason":             "Why the condition is so, as one word in CamelCase.",
		"message":            "Why the condition is so, for people to read.",
		"lastTransitionTime": metav1.Condition{}.SwaggerDoc()["lastTransitionTime"],
		"observedGeneration": metav1.Condition{}.SwaggerDoc()["observedGeneration"],
	}
	switch model {
	case "io.k8s.api.certificates.v1.CertificateSigningRequest":
		return map[string]string{"metadata": meta}
	case extensions + "CustomResourceDefinition":
		return map[string]string{
			"":         "CustomResourceDefinition defines a kind of objects that users add to the API. Its name is the plural name of the kind, a dot and the group.",
			"metadata": meta, "spec": "How the kind is named, which versions it has, and what its objects look like.",
			"status": "What the server has made of the definition.",
		}
	case extensions + "CustomResourceDefinitionCondition", registration + "APIServiceCondition":
		return conditions
	case registration + "APIService":
		return map[string]string{
			"":         "APIService is a group and version of the API and who serves it. Its name is the version, a dot and the group.",
			"metadata": meta, "spec": "Which group and version it is, and where it is served.", "status": "Whether the group can be used.",
		}
	case registration + "APIServiceSpec":
		return map[string]string{
			"group":                 "The API group.",
			"version":               "The version of the group.",
			"service":               "The service that serves the group, behind the port given. Without it this server does so itself.",
			"insecureSkipTLSVerify": "Trusts whatever certificate the service shows. Give a caBundle instead.",
			"caBundle":              "Certificates in PEM by which the certificate of the service is checked; without them, those of the system.",
			"groupPriorityMinimum":  "How far ahead of other groups the group stands where a name is ambiguous. The highest of the group's versions counts; groups of equal weight stand by their names.",
			"versionPriority":       "How far ahead of the group's other versions this one stands. Of equal weights the more stable and newer version is first.",
		}
	case registration + "APIServiceStatus":
		return map[string]string{"conditions": "What is known of the service."}
	case registration + "ServiceReference", extensions + "ServiceReference":
		return map[string]string{
			"name": "The name of the service.", "namespace": "The namespace of the service.",
			"path": "The path of the URL under which requests are sent.", "port": "The port of the service, 443 if it is left out.",
		}
	case measurements + "NodeMetrics", measurements + "PodMetrics", measurements + "ContainerMetrics":
		return map[string]string{
			"metadata": meta, "timestamp": "The end of the time that was measured.", "window": "How long was measured.",
			"usage": "What was used: the processor on average, memory at the end.", "containers": "What each container used.", "name": "The name of the container.",
		}
	case extensions + "JSONSchemaProps":
		return schemaTexts()
	}
	return definitionTexts(model)
}

// definitionTexts describes the parts of a CustomResourceDefinition.
func definitionTexts(model string) map[string]string {
	switch model {
	case extensions + "CustomResourceDefinitionSpec":
		return map[string]string{
			"group":                 "The API group of the kind. Objects are found under /apis/GROUP/VERSION.",
			"names":                 "The names under which the kind is served.",
			"scope":                 "Whether objects are in a namespace: Namespaced or Cluster.",
			"versions":              "The versions of the kind. One of them is that in which objects are stored.",
			"conversion":            "How objects get from one version into another.",
			"preserveUnknownFields": "Must be false: fields that the schema does not name are dropped. Mark single places with x-kubernetes-preserve-unknown-fields instead.",
		}
	case extensions + "CustomResourceDefinitionNames":
		return map[string]string{
			"plural": "The plural name, in lower case, as in URLs.", "singular": "The singular name, in lower case; the kind in lower case if it is left out.",
			"shortNames": "Abbreviations that kubectl understands.", "kind": "The kind in CamelCase, as objects name it.",
			"listKind": "The kind of lists; the kind with List behind it if it is left out.", "categories": "Groups of kinds that the kind belongs to, such as all.",
		}
	case extensions + "CustomResourceDefinitionStatus":
		return map[string]string{
			"conditions": "Whether the names are accepted and objects can be made.", "acceptedNames": "The names under which the kind is served in fact.",
			"storedVersions":     "All versions in which objects were ever stored. A version may leave the definition only after it has left this list.",
			"observedGeneration": "The generation of the definition that the status was made for.",
		}
	case extensions + "CustomResourceDefinitionVersion":
		return map[string]string{
			"name": "The name of the version, such as v1 or v2beta1.", "served": "Whether objects can be read and written in this version.",
			"storage": "Whether objects are stored in this version. This is so for one version only.", "deprecated": "Whether clients are warned that they should use another version.",
			"deprecationWarning": "The text of that warning, instead of the usual one.", "schema": "What objects of this version look like.",
			"subresources":             "Which of the subresources status and scale objects have.",
			"additionalPrinterColumns": "The columns of tables besides the name; the age if it is left out.",
			"selectableFields":         "Fields by which objects can be selected, at most eight.",
		}
	case extensions + "CustomResourceColumnDefinition":
		return map[string]string{
			"name": "The heading of the column.", "type": "The type of the cells: integer, number, string, boolean or date.",
			"format": "How a cell of the type is meant, such as password.", "description": "What the column tells.",
			"priority": "0 is always shown, more is shown by wide output only.", "jsonPath": "The place in the object that the cell shows.",
		}
	case extensions + "SelectableField":
		return map[string]string{"jsonPath": "The field, as a simple path that begins with a dot. It must be a string, a boolean or an integer, and outside metadata."}
	case extensions + "CustomResourceConversion":
		return map[string]string{
			"strategy": "None changes the apiVersion alone, Webhook asks a server.", "webhook": "The server that converts, for the strategy Webhook.",
		}
	case extensions + "WebhookConversion":
		return map[string]string{
			"clientConfig": "Where the server is.", "conversionReviewVersions": "The versions of ConversionReview that the server understands, the preferred one first.",
		}
	case extensions + "WebhookClientConfig":
		return map[string]string{
			"url": "The address of the server, which begins with https://. Either this or service is given.", "service": "The service that is the server.",
			"caBundle": "Certificates in PEM by which the certificate of the server is checked; without them, those of the system.",
		}
	case extensions + "CustomResourceSubresources":
		return map[string]string{
			"status": "Objects have /status: their status is written there, and nothing else is.", "scale": "Objects have /scale, which kubectl scale and autoscalers use.",
		}
	case extensions + "CustomResourceSubresourceScale":
		return map[string]string{
			"specReplicasPath": "Where in the object the number wanted is, below .spec.", "statusReplicasPath": "Where in the object the number that is there is, below .status.",
			"labelSelectorPath": "Where in the object the selector of pods is, as text, below .spec or .status. Autoscalers need it.",
		}
	case extensions + "CustomResourceValidation":
		return map[string]string{"openAPIV3Schema": "The schema of objects."}
	case extensions + "ExternalDocumentation":
		return map[string]string{"description": "What is to be found there.", "url": "Where the documentation is."}
	case extensions + "ValidationRule":
		return map[string]string{
			"rule":    "An expression in CEL that must be true. self is the value that the schema describes, oldSelf that of before an update.",
			"message": "What is said when the rule is broken.", "messageExpression": "An expression in CEL that gives the message.",
			"reason":          "The reason that clients are told: FieldValueInvalid, FieldValueForbidden, FieldValueRequired or FieldValueDuplicate.",
			"fieldPath":       "The field that the error names, as a path from the value.",
			"optionalOldSelf": "Lets a rule with oldSelf also be asked when there was no old value; oldSelf is then optional.",
		}
	}
	return nil
}

// schemaTexts describes JSON schema.
func schemaTexts() map[string]string {
	return map[string]string{
		"":   "JSONSchemaProps is a JSON schema, as OpenAPI v3 knows it.",
		"id": "The name of the schema.", "$schema": "The version of JSON schema.", "$ref": "A reference to another schema. It may not be used.",
		"description": "What the value is for.", "type": "The type of the value: object, array, string, integer, number or boolean.",
		"format": "What a string or number stands for, such as date-time, byte or int64. Unknown formats are ignored.",
		"title":  "A short name of the value.", "default": "What the value is where it is left out.",
		"maximum": "The greatest number allowed.", "exclusiveMaximum": "Whether maximum itself is not allowed.",
		"minimum": "The least number allowed.", "exclusiveMinimum": "Whether minimum itself is not allowed.",
		"maxLength": "The greatest number of characters.", "minLength": "The least number of characters.", "pattern": "A regular expression that a string must match.",
		"maxItems": "The greatest number of items.", "minItems": "The least number of items.", "uniqueItems": "Whether no two items may be equal. It may not be set.",
		"multipleOf": "A number of which the value must be a multiple.", "enum": "All values that are allowed.",
		"maxProperties": "The greatest number of fields.", "minProperties": "The least number of fields.", "required": "The fields that must be there.",
		"items": "The schema of the items of an array.", "allOf": "Schemas of which all must hold.", "oneOf": "Schemas of which exactly one must hold.",
		"anyOf": "Schemas of which at least one must hold.", "not": "A schema that must not hold.", "properties": "The schemas of the fields of an object, by name.",
		"additionalProperties": "The schema of all fields of an object that has no properties, or whether there may be any.",
		"patternProperties":    "Schemas of fields by patterns of their names. It may not be used.", "dependencies": "What a field needs besides itself. It may not be used.",
		"additionalItems": "The schema of further items. It may not be used.", "definitions": "Schemas to refer to. It may not be used.",
		"externalDocs": "Where more is said of the value.", "example": "A value that is allowed.", "nullable": "Whether null is allowed.",
		"x-kubernetes-preserve-unknown-fields": "Keeps fields that the schema does not name, from here on downwards.",
		"x-kubernetes-embedded-resource":       "The value is an object with apiVersion, kind and metadata, which are checked.",
		"x-kubernetes-int-or-string":           "The value is an integer or a string. There is no type then.",
		"x-kubernetes-list-type":               "How lists are merged: atomic as one value, set by values, map by the keys of their items.",
		"x-kubernetes-list-map-keys":           "The fields by which items of a list of the type map are told apart.",
		"x-kubernetes-map-type":                "How objects are merged: granular field by field, atomic as one value.",
		"x-kubernetes-validations":             "Rules in CEL that the value must fulfil.",
	}
}
