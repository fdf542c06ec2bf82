package descriptors

import (
	"context"
	"net"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// ask opens a reflection stream to a server of one service of ours.
func ask(t *testing.T) v1.ServerReflection_ServerReflectionInfoClient {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
	wherryv1.RegisterResourcesServer(srv, wherryv1.UnimplementedResourcesServer{})
	Register(srv)
	go func() { _ = srv.Serve(lis) }()
	t.Cleanup(srv.Stop)
	cc, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	s, err := v1.NewServerReflectionClient(cc).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReflection(t *testing.T) {
	s := ask(t)
	call := func(req *v1.ServerReflectionRequest) *v1.ServerReflectionResponse {
		if err := s.Send(req); err != nil {
			t.Fatal(err)
		}
		resp, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	var names []string
	for _, svc := range call(&v1.ServerReflectionRequest{MessageRequest: &v1.ServerReflectionRequest_ListServices{}}).GetListServicesResponse().GetService() {
		names = append(names, svc.GetName())
	}
	if !slices.Contains(names, "wherry.v1.Resources") || !slices.Contains(names, "grpc.reflection.v1.ServerReflection") {
		t.Errorf("services = %v", names)
	}
	for symbol, file := range map[string]string{
		"wherry.v1.Resources":           "wherry/v1/resources.proto",
		"k8s.io.api.core.v1.Pod":        "k8s.io/api/core/v1/generated.proto",
		"k8s.io.api.apps.v1.Deployment": "k8s.io/api/apps/v1/generated.proto",
		"k8s.io.kube_aggregator.pkg.apis.apiregistration.v1.APIService": "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/generated.proto",
		"k8s.io.apimachinery.pkg.runtime.Unknown":                       "k8s.io/apimachinery/pkg/runtime/generated.proto",
		"k8s.io.apimachinery.pkg.apis.meta.v1.Status":                   "k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto",
	} {
		resp := call(&v1.ServerReflectionRequest{MessageRequest: &v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol}})
		if !slices.Contains(files(t, resp), file) {
			t.Errorf("%s: %v, want %s", symbol, resp, file)
		}
	}
	resp := call(&v1.ServerReflectionRequest{MessageRequest: &v1.ServerReflectionRequest_FileByFilename{FileByFilename: "k8s.io/api/batch/v1/generated.proto"}})
	if len(files(t, resp)) == 0 {
		t.Errorf("file by name: %v", resp)
	}
	resp = call(&v1.ServerReflectionRequest{MessageRequest: &v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "no.such.Thing"}})
	if resp.GetErrorResponse() == nil {
		t.Errorf("unknown symbol: %v", resp)
	}
}

// files returns the paths of the files that a response holds.
func files(t *testing.T, resp *v1.ServerReflectionResponse) []string {
	t.Helper()
	var paths []string
	for _, raw := range resp.GetFileDescriptorResponse().GetFileDescriptorProto() {
		var fd descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(raw, &fd); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, fd.GetName())
	}
	return paths
}
