package patch

import (
	"reflect"

	"github.com/wherry-project/wherry/internal/api"
)

const (
	// mostWide is how many entries a map or list of an object may have for its
	// fields to be tracked: the library takes time that grows with the square.
	mostWide = 10_000
	// wideFrom is how large an object is that can have as many.
	wideFrom = 2 * mostWide
)

// tooWide reports whether an object has more entries in one map or list than can
// be tracked at a bounded cost.
func tooWide(obj api.Object) bool {
	return obj.Size() > wideFrom && wide(reflect.ValueOf(obj))
}

// wide looks into a value; objects have no cycles.
func wide(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return !v.IsNil() && wide(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && wide(v.Field(i)) {
				return true
			}
		}
	case reflect.Map:
		if v.Len() > mostWide {
			return true
		}
		for it := v.MapRange(); it.Next(); {
			if wide(it.Value()) {
				return true
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return false
		}
		if v.Len() > mostWide {
			return true
		}
		for i := range v.Len() {
			if wide(v.Index(i)) {
				return true
			}
		}
	}
	return false
}
