package openapi

// encodeV2 writes a v2 document as an openapi.v2.Document.
func encodeV2(n node) []byte {
	var w wire
	w.text(1, n["swagger"])
	w.sub(2, n["info"], func(n node) []byte {
		var w wire
		w.text(1, n["title"])
		w.text(2, n["version"])
		return w
	})
	w.sub(8, n["paths"], func(n node) []byte {
		var w wire
		w.entries(2, n, pathItem2)
		return w
	})
	w.sub(9, n["definitions"], map1(schema2))
	return w
}

func pathItem2(n node) []byte {
	var w wire
	w.sub(2, n["get"], operation2)
	w.sub(3, n["put"], operation2)
	w.sub(4, n["post"], operation2)
	w.sub(5, n["delete"], operation2)
	w.sub(8, n["patch"], operation2)
	w.each(9, n["parameters"], wrapped(1, parameter2))
	w.extensions(10, n)
	return w
}

func operation2(n node) []byte {
	var w wire
	w.text(3, n["description"])
	w.text(5, n["operationId"])
	w.texts(6, n["produces"])
	w.texts(7, n["consumes"])
	w.each(8, n["parameters"], wrapped(1, parameter2))
	w.sub(9, n["responses"], func(n node) []byte {
		var w wire
		w.entries(1, n, wrapped(1, func(n node) []byte {
			var w wire
			w.text(1, n["description"])
			w.sub(2, n["schema"], wrapped(1, schema2))
			return w
		}))
		return w
	})
	w.texts(10, n["schemes"])
	w.extensions(13, n)
	return w
}

// parameter2 writes a parameter, whose message depends on where it lies.
func parameter2(n node) []byte {
	var p, w wire
	if n["in"] == "body" {
		p.text(2, n["name"])
		p.text(3, n["in"])
		p.flag(4, n["required"])
		p.sub(5, n["schema"], schema2)
		w.message(1, p)
		return w
	}
	p.flag(1, n["required"])
	p.text(2, n["in"])
	p.text(3, n["description"])
	p.text(4, n["name"])
	var other wire
	if n["in"] == "path" {
		p.text(5, n["type"])
		p.flag(19, n["uniqueItems"])
		other.message(4, p)
	} else {
		p.text(6, n["type"])
		p.flag(20, n["uniqueItems"])
		other.message(3, p)
	}
	w.message(2, other)
	return w
}

func schema2(n node) []byte {
	var w wire
	w.text(1, n["$ref"])
	w.text(2, n["format"])
	w.text(4, n["description"])
	w.texts(19, n["required"])
	w.sub(21, n["additionalProperties"], wrapped(1, schema2))
	if t, ok := n["type"]; ok {
		var item wire
		item.text(1, t)
		w.message(22, item)
	}
	w.sub(23, n["items"], wrapped(1, schema2))
	w.sub(25, n["properties"], map1(schema2))
	w.extensions(31, n)
	return w
}
