package openapi

// encodeV3 writes a v3 document as an openapi.v3.Document.
func encodeV3(n node) []byte {
	var w wire
	w.text(1, n["openapi"])
	w.sub(2, n["info"], func(n node) []byte {
		var w wire
		w.text(1, n["title"])
		w.text(6, n["version"])
		return w
	})
	w.sub(4, n["paths"], map1(pathItem3))
	w.sub(5, n["components"], func(n node) []byte {
		var w wire
		w.sub(1, n["schemas"], map1(schemaOrRef3))
		return w
	})
	return w
}

func pathItem3(n node) []byte {
	var w wire
	w.sub(4, n["get"], operation3)
	w.sub(5, n["put"], operation3)
	w.sub(6, n["post"], operation3)
	w.sub(7, n["delete"], operation3)
	w.sub(10, n["patch"], operation3)
	w.each(13, n["parameters"], wrapped(1, parameter3))
	w.extensions(14, n)
	return w
}

func operation3(n node) []byte {
	var w wire
	w.text(3, n["description"])
	w.text(5, n["operationId"])
	w.each(6, n["parameters"], wrapped(1, parameter3))
	w.sub(7, n["requestBody"], wrapped(1, func(n node) []byte {
		var w wire
		w.sub(2, n["content"], content3)
		w.flag(3, n["required"])
		return w
	}))
	w.sub(8, n["responses"], func(n node) []byte {
		var w wire
		w.entries(2, n, wrapped(1, func(n node) []byte {
			var w wire
			w.text(1, n["description"])
			w.sub(3, n["content"], content3)
			return w
		}))
		return w
	})
	w.extensions(13, n)
	return w
}

func parameter3(n node) []byte {
	var w wire
	w.text(1, n["name"])
	w.text(2, n["in"])
	w.text(3, n["description"])
	w.flag(4, n["required"])
	w.sub(10, n["schema"], schemaOrRef3)
	return w
}

func content3(n node) []byte {
	return map1(func(n node) []byte {
		var w wire
		w.sub(1, n["schema"], schemaOrRef3)
		return w
	})(n)
}

func schemaOrRef3(n node) []byte {
	var w wire
	if ref, ok := n["$ref"]; ok {
		var r wire
		r.text(1, ref)
		w.message(2, r)
		return w
	}
	w.message(1, schema3(n))
	return w
}

func schema3(n node) []byte {
	var w wire
	w.flag(20, n["uniqueItems"])
	w.texts(23, n["required"])
	w.text(25, n["type"])
	w.each(26, n["allOf"], schemaOrRef3)
	w.each(27, n["oneOf"], schemaOrRef3)
	w.sub(30, n["items"], wrapped(1, schemaOrRef3))
	w.sub(31, n["properties"], map1(schemaOrRef3))
	w.sub(32, n["additionalProperties"], wrapped(1, schemaOrRef3))
	w.text(34, n["description"])
	w.text(35, n["format"])
	w.extensions(36, n)
	return w
}
