// Package openapi makes the OpenAPI documents, v3 for each group and version
// and v2 for all, out of the kinds and the documentation of their Go types.
package openapi

import (
	"errors"

	"github.com/wherry-project/wherry/internal/api"
)

// Documents gives the OpenAPI documents. It may be used by many goroutines.
type Documents struct {
	kinds *api.Kinds
}

// New prepares the documents of kinds; each is built when it is first asked
// for.
func New(kinds *api.Kinds) (*Documents, error) {
	return &Documents{kinds: kinds}, nil
}

// Index gives the hash of each v3 document by its path, such as "api/v1" and
// "apis/apps/v1".
func (d *Documents) Index() (map[string]string, error) {
	return nil, errors.New("OpenAPI documents are not built yet")
}

// V3 gives the v3 document of a path of Index as JSON.
func (d *Documents) V3(path string) ([]byte, error) {
	return nil, errors.New("OpenAPI documents are not built yet")
}

// V3Proto gives the v3 document of a path of Index as gnostic protobuf.
func (d *Documents) V3Proto(path string) ([]byte, error) {
	return nil, errors.New("OpenAPI documents are not built yet")
}

// V2 gives the v2 document as JSON, and its hash.
func (d *Documents) V2() (doc []byte, hash string, err error) {
	return nil, "", errors.New("OpenAPI documents are not built yet")
}

// V2Proto gives the v2 document as gnostic protobuf, and its hash.
func (d *Documents) V2Proto() (doc []byte, hash string, err error) {
	return nil, "", errors.New("OpenAPI documents are not built yet")
}
