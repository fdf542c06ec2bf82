// Package descriptors lets gRPC clients ask what is served: server reflection
// that knows, beside the services of this program, Kubernetes' own messages,
// which travel inside google.protobuf.Any. A client such as grpcurl needs no
// .proto files.
package descriptors

import (
	_ "embed"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc/reflection"
	v1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	v1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// set is the descriptor set that `make generate` makes: the files of
// proto/wherry/v1 and of Kubernetes, with all they import.
//
//go:embed descriptors.binpb
var set []byte

// Register adds the reflection service to s, in the version of today and in the
// one before, which older clients ask for. The set is decoded when the first
// client asks for one of its messages, not before.
func Register(s reflection.GRPCServer) {
	opts := reflection.ServerOptions{Services: s, DescriptorResolver: newResolver()}
	v1.RegisterServerReflectionServer(s, reflection.NewServerV1(opts))
	v1alpha.RegisterServerReflectionServer(s, reflection.NewServer(opts))
}

// resolver finds descriptors in the program, and then in the set.
type resolver struct {
	files func() (*protoregistry.Files, error)
}

func newResolver() *resolver { return &resolver{files: sync.OnceValues(decode)} }

func decode() (*protoregistry.Files, error) {
	var fds descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(set, &fds); err != nil {
		return nil, fmt.Errorf("embedded descriptor set: %w", err)
	}
	files, err := protodesc.NewFiles(&fds)
	if err != nil {
		return nil, fmt.Errorf("embedded descriptor set: %w", err)
	}
	return files, nil
}

// FindFileByPath returns a file by its path, such as wherry/v1/pods.proto.
func (r *resolver) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	fd, err := protoregistry.GlobalFiles.FindFileByPath(path)
	if !errors.Is(err, protoregistry.NotFound) {
		return fd, err
	}
	files, err := r.files()
	if err != nil {
		return nil, err
	}
	return files.FindFileByPath(path)
}

// FindDescriptorByName returns a message, service, method … by its full name.
func (r *resolver) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if !errors.Is(err, protoregistry.NotFound) {
		return d, err
	}
	files, err := r.files()
	if err != nil {
		return nil, err
	}
	return files.FindDescriptorByName(name)
}
