package openapi

import "github.com/wherry-project/wherry/internal/api"

// tree3 is the v3 document of the kinds of one group and version.
func tree3(kinds []*api.Kind) node {
	s := newShaper(false)
	r := newRouter(s, kinds)
	paths := node{}
	for _, at := range r.routes {
		item := node{}
		if len(at.params) > 0 {
			item["parameters"] = params3(at.params)
		}
		for method, op := range at.ops {
			item[method] = s.op3(op)
		}
		paths[at.path] = item
	}
	return node{
		"openapi":    "3.0.0",
		"info":       info(),
		"paths":      paths,
		"components": node{"schemas": s.out},
	}
}

func info() node { return node{"title": "Kubernetes", "version": "unversioned"} }

func params3(all []param) []any {
	out := make([]any, len(all))
	for i, p := range all {
		n := node{"name": p.name, "in": p.in, "schema": node{"type": p.typ, "uniqueItems": true}}
		if p.text != "" {
			n["description"] = p.text
		}
		if p.in == "path" {
			n["required"] = true
		}
		out[i] = n
	}
	return out
}

func (s *shaper) op3(o *operation) node {
	n := node{
		"operationId": o.id, "description": o.text, "parameters": params3(o.params),
		extAction: o.action, extGVK: gvkNode(o.gvk),
	}
	if o.in != "" {
		content := node{}
		media := []string{"*/*"}
		if o.patch {
			media = patchMedia()
		}
		for _, m := range media {
			content[m] = node{"schema": node{"$ref": s.ref(o.in)}}
		}
		n["requestBody"] = node{"content": content, "required": o.action == "post" || o.action == "put" || o.patch}
	}
	answer := node{"description": "OK"}
	if o.out != "" {
		content := node{}
		for _, m := range []string{mediaJSON, mediaYAML, mediaProtobuf} {
			content[m] = node{"schema": node{"$ref": s.ref(o.out)}}
		}
		answer["content"] = content
	}
	responses := node{"200": answer, "401": node{"description": "Unauthorized"}}
	if o.created {
		made := node{"description": "Created"}
		if c, ok := answer["content"]; ok {
			made["content"] = c
		}
		responses["201"] = made
	}
	n["responses"] = responses
	return n
}

// tree2 is the v2 document of all kinds.
func tree2(kinds []*api.Kind) node {
	s := newShaper(true)
	r := newRouter(s, kinds)
	paths := node{}
	for _, at := range r.routes {
		item := node{}
		if len(at.params) > 0 {
			item["parameters"] = params2(at.params)
		}
		for method, op := range at.ops {
			item[method] = s.op2(op)
		}
		paths[at.path] = item
	}
	return node{"swagger": "2.0", "info": info(), "paths": paths, "definitions": s.out}
}

func params2(all []param) []any {
	out := make([]any, len(all))
	for i, p := range all {
		n := node{"name": p.name, "in": p.in, "type": p.typ, "uniqueItems": true}
		if p.text != "" {
			n["description"] = p.text
		}
		if p.in == "path" {
			n["required"] = true
		}
		out[i] = n
	}
	return out
}

func (s *shaper) op2(o *operation) node {
	n := node{
		"operationId": o.id, "description": o.text,
		"schemes":  []string{"https"},
		"consumes": []string{"*/*"}, "produces": []string{mediaJSON, mediaYAML, mediaProtobuf},
		extAction: o.action, extGVK: gvkNode(o.gvk),
	}
	params := params2(o.params)
	if o.patch {
		n["consumes"] = patchMedia()
	}
	if o.in != "" {
		params = append(params, node{
			"name": "body", "in": "body", "required": o.action == "post" || o.action == "put" || o.patch,
			"schema": node{"$ref": s.ref(o.in)},
		})
	}
	n["parameters"] = params
	answer := node{"description": "OK"}
	if o.out != "" {
		answer["schema"] = node{"$ref": s.ref(o.out)}
	}
	responses := node{"200": answer, "401": node{"description": "Unauthorized"}}
	if o.created {
		made := node{"description": "Created"}
		if c, ok := answer["schema"]; ok {
			made["schema"] = c
		}
		responses["201"] = made
	}
	n["responses"] = responses
	return n
}
