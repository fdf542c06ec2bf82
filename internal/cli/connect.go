package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"k8s.io/client-go/rest"

	"github.com/wherry-project/wherry/internal/apierr"
)

const grpcPort = "7443"

// connect makes a gRPC connection to the server that the kubeconfig names, as
// the user it names. Where that name has several addresses, one that answers
// is found.
func (c *command) connect(address string) (*grpc.ClientConn, error) {
	config, err := c.flags.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	if address == "" {
		if address, err = grpcAddress(config.Host); err != nil {
			return nil, err
		}
	}
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, fmt.Errorf("read the user's certificate from the kubeconfig: %w", err)
	}
	if tlsConfig == nil {
		return nil, errors.New("there is no kubeconfig, or it names a server without TLS: give one with --kubeconfig or $KUBECONFIG, or run this where " + AdminKubeconfig + " is")
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)),
		grpc.WithChainUnaryInterceptor(apierr.ClientUnary),
		grpc.WithChainStreamInterceptor(apierr.ClientStream),
	}
	if config.BearerToken != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(config.BearerToken)))
	}
	return grpc.NewClient("dns:///"+address, options...)
}

// grpcAddress is the gRPC port of the host that a kubeconfig's server names.
func grpcAddress(server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return "", fmt.Errorf("the kubeconfig's server %q is not an https address", server)
	}
	return net.JoinHostPort(u.Hostname(), grpcPort), nil
}

type bearer string

// GetRequestMetadata carries the token.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity keeps the token off plain connections.
func (b bearer) RequireTransportSecurity() bool { return true }
