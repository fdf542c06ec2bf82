package openapi

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wherry-project/wherry/internal/api"
)

// The extensions that clients know.
const (
	extGVK      = "x-kubernetes-group-version-kind"
	extAction   = "x-kubernetes-action"
	extListType = "x-kubernetes-list-type"
	extListKeys = "x-kubernetes-list-map-keys"
	extMapType  = "x-kubernetes-map-type"
	extStrategy = "x-kubernetes-patch-strategy"
	extMergeKey = "x-kubernetes-patch-merge-key"
)

// modeler is a type with a name in OpenAPI.
type modeler interface{ OpenAPIModelName() string }

// documented is a type that carries its documentation.
type documented interface{ SwaggerDoc() map[string]string }

// plain is a type that is not an object in JSON.
type plain interface {
	OpenAPISchemaType() []string
	OpenAPISchemaFormat() string
}

// oneOf is a plain type that is written in several ways.
type oneOf interface{ OpenAPIV3OneOfTypes() []string }

// shaper makes the schemas of one document.
type shaper struct {
	v2   bool
	gvks map[string][]schema.GroupVersionKind // of models
	out  node
}

func newShaper(v2 bool) *shaper {
	return &shaper{v2: v2, gvks: map[string][]schema.GroupVersionKind{}, out: node{}}
}

func modelName(v any) string {
	if m, ok := v.(modeler); ok {
		return m.OpenAPIModelName()
	}
	return ""
}

// kind adds the schemas of a kind and of its list, and returns their names.
func (s *shaper) kind(k *api.Kind) (model, list string) {
	model = modelName(k.New())
	list = model + "List"
	if !slices.Contains(s.gvks[model], k.GVK()) {
		s.gvks[model] = append(s.gvks[model], k.GVK())
	}
	s.model(reflect.TypeOf(k.New()).Elem())
	s.list(k, model, list)
	return model, list
}

// list makes the schema of a kind's list, which always looks the same.
func (s *shaper) list(k *api.Kind, model, list string) {
	meta := reflect.TypeFor[metav1.ListMeta]()
	s.model(meta)
	types := metav1.TypeMeta{}.SwaggerDoc()
	gvk := k.GVK()
	gvk.Kind += "List"
	s.out[list] = node{
		"description": k.Kind + "List is a list of objects of kind " + k.Kind + ".",
		"type":        "object",
		"required":    []string{"items"},
		"properties": node{
			"apiVersion": node{"type": "string", "description": types["apiVersion"]},
			"kind":       node{"type": "string", "description": types["kind"]},
			"metadata":   s.described(node{"$ref": s.ref(metaName(meta))}, "Standard list metadata."),
			"items":      node{"type": "array", "items": node{"$ref": s.ref(model)}, "description": "The objects of the list."},
		},
		extGVK: gvkNodes([]schema.GroupVersionKind{gvk}),
	}
}

// body adds the schema of a type that is no kind, and returns its name.
func (s *shaper) body(v any, gvks ...schema.GroupVersionKind) string {
	t := reflect.TypeOf(v)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := metaName(t)
	for _, g := range gvks {
		if !slices.Contains(s.gvks[name], g) {
			s.gvks[name] = append(s.gvks[name], g)
		}
	}
	s.model(t)
	return name
}

func metaName(t reflect.Type) string { return modelName(reflect.New(t).Interface()) }

func (s *shaper) ref(model string) string {
	if s.v2 {
		return "#/definitions/" + model
	}
	return "#/components/schemas/" + model
}

// described puts a description beside a reference, which may not have one of
// its own.
func (s *shaper) described(n node, text string) node {
	if ref, ok := n["$ref"]; ok && !s.v2 {
		n = node{"allOf": []any{node{"$ref": ref}}}
	}
	if text != "" {
		n["description"] = text
	}
	return n
}

// model adds the schema of a named type and of all that it refers to.
func (s *shaper) model(t reflect.Type) {
	name := metaName(t)
	if _, ok := s.out[name]; ok {
		if gvks := s.gvks[name]; len(gvks) > 0 {
			s.out[name].(node)[extGVK] = gvkNodes(gvks)
		}
		return
	}
	n := node{}
	s.out[name] = n // before the fields: types refer to themselves
	docs := docsOf(t)
	if docs[""] != "" {
		n["description"] = docs[""]
	}
	if gvks := s.gvks[name]; len(gvks) > 0 {
		n[extGVK] = gvkNodes(gvks)
	}
	if p, ok := reflect.New(t).Interface().(plain); ok {
		s.plain(n, p)
		return
	}
	n["type"] = "object"
	if listTypes[name]["."].atomicMap {
		n[extMapType] = "atomic"
	}
	if t.Kind() != reflect.Struct || opaque(t) {
		return
	}
	properties, required := node{}, []string{}
	s.fields(t, name, properties, &required)
	if len(properties) > 0 {
		n["properties"] = properties
	}
	if len(required) > 0 {
		slices.Sort(required)
		n["required"] = required
	}
}

// opaque types carry JSON that nobody here looks into.
func opaque(t reflect.Type) bool {
	switch metaName(t) {
	case "io.k8s.apimachinery.pkg.runtime.RawExtension", "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1":
		return true
	}
	return false
}

func (s *shaper) plain(n node, p plain) {
	if format := p.OpenAPISchemaFormat(); format != "" {
		n["format"] = format
	}
	many, ok := p.(oneOf)
	if !ok || s.v2 {
		if types := p.OpenAPISchemaType(); len(types) > 0 { // others are of any type
			n["type"] = types[0]
		}
		return
	}
	var all []any
	for _, t := range many.OpenAPIV3OneOfTypes() {
		all = append(all, node{"type": t})
	}
	n["oneOf"] = all
}

func docsOf(t reflect.Type) map[string]string {
	texts := map[string]string(nil)
	if d, ok := reflect.New(t).Interface().(documented); ok {
		texts = d.SwaggerDoc()
	}
	own := ownTexts(metaName(t))
	if len(own) == 0 {
		return texts
	}
	out := maps.Clone(texts)
	if out == nil {
		return own
	}
	for name, text := range own {
		if out[name] == "" {
			out[name] = text
		}
	}
	return out
}

// fields adds the properties of a struct; those of embedded structs are its
// own.
func (s *shaper) fields(t reflect.Type, model string, properties node, required *[]string) {
	docs := docsOf(t)
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() || name == "-":
			continue
		case name == "" && f.Anonymous:
			s.fields(f.Type, model, properties, required)
			continue
		}
		p := s.described(s.typ(f.Type), docs[name])
		s.extend(p, f, listTypes[model][name])
		properties[name] = p
		if !strings.Contains(options, "omitempty") && !optional[model+"."+name] {
			*required = append(*required, name)
		}
	}
}

// extend says how lists and maps are merged.
func (s *shaper) extend(p node, f reflect.StructField, l listType) {
	if v := f.Tag.Get("patchStrategy"); v != "" {
		p[extStrategy] = v
	}
	if v := f.Tag.Get("patchMergeKey"); v != "" {
		p[extMergeKey] = v
	}
	if l.atomicMap {
		p[extMapType] = "atomic"
	}
	if l.list != "" {
		p[extListType] = l.list
	}
	if len(l.keys) > 0 {
		p[extListKeys] = l.keys
	}
}

// typ is the schema of a field's type.
func (s *shaper) typ(t reflect.Type) node {
	if t.Kind() == reflect.Pointer {
		return s.typ(t.Elem())
	}
	if name := metaName(t); name != "" {
		s.model(t)
		return node{"$ref": s.ref(name)}
	}
	switch t.Kind() {
	case reflect.Bool:
		return node{"type": "boolean"}
	case reflect.Int32, reflect.Uint32, reflect.Int16, reflect.Uint16, reflect.Int8, reflect.Uint8:
		return node{"type": "integer", "format": "int32"}
	case reflect.Int64, reflect.Uint64, reflect.Int:
		return node{"type": "integer", "format": "int64"}
	case reflect.Float32, reflect.Float64:
		return node{"type": "number", "format": "double"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return node{"type": "string", "format": "byte"}
		}
		return node{"type": "array", "items": s.typ(t.Elem())}
	case reflect.Map:
		return node{"type": "object", "additionalProperties": s.typ(t.Elem())}
	case reflect.String:
		return node{"type": "string"}
	}
	return node{"type": "object"}
}

func gvkNodes(gvks []schema.GroupVersionKind) []any {
	out := make([]any, len(gvks))
	for i, g := range gvks {
		out[i] = gvkNode(g)
	}
	return out
}

func gvkNode(g schema.GroupVersionKind) node {
	return node{"group": g.Group, "version": g.Version, "kind": g.Kind}
}
