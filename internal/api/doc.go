// Package api is Wherry's model of stored objects: records (Kubernetes'
// protobuf bytes with a small index beside them), kinds and their rules, the
// codec with its bounded cache of decoded copies, and the shapes in which
// requests reach the API. Objects are k8s.io/api types.
package api
