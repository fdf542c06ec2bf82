package openapi

// listType tells how server-side apply merges a list or map.
type listType struct {
	list      string // atomic, set or map
	keys      []string
	atomicMap bool
}

// listTypes are by model and field; the field "." is the model itself.
var listTypes = map[string]map[string]listType{}
