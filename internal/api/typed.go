package api

import "k8s.io/apimachinery/pkg/util/validation/field"

// The functions below turn rules written for one Go type into the rules of a
// Kind, which are written for every Object. Handing a rule an object of another
// kind is an error of the program and panics.

// On makes a Default or OnCreate.
func On[T Object](f func(obj T)) func(Object) {
	return func(obj Object) { f(obj.(T)) }
}

// OnPair makes an OnUpdate or OnStatus.
func OnPair[T Object](f func(obj, old T)) func(obj, old Object) {
	return func(obj, old Object) { f(obj.(T), old.(T)) }
}

// Check makes a Validate.
func Check[T Object](f func(obj T) field.ErrorList) func(Object) field.ErrorList {
	return func(obj Object) field.ErrorList { return f(obj.(T)) }
}

// CheckPair makes a ValidateUpdate or ValidateStatus.
func CheckPair[T Object](f func(obj, old T) field.ErrorList) func(obj, old Object) field.ErrorList {
	return func(obj, old Object) field.ErrorList { return f(obj.(T), old.(T)) }
}

// Of makes a SpecOf, or a Fields.
func Of[T Object, R any](f func(obj T) R) func(Object) R {
	return func(obj Object) R { return f(obj.(T)) }
}

// Warn makes a Kind.Warn of a function of the kind's type; old is nil for a new
// object.
func Warn[T Object](f func(obj, old T) []string) func(obj, old Object) []string {
	return func(obj, old Object) []string {
		was, _ := old.(T)
		return f(obj.(T), was)
	}
}
