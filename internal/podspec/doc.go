// Package podspec knows the rules of pod specs and pod templates: defaults,
// validation, quality of service, effective requests, and what tables print of
// them. Pods and every kind with a template share it.
package podspec
