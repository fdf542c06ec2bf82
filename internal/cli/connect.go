package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"

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
		grpc.WithDisableServiceConfig(), // it would be asked of DNS at every start
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

// explain turns gRPC's word for a server that cannot be reached into the error
// that an HTTPS request would have met, so that it is told as kubectl tells it.
func explain(err error) error {
	if !errors.Is(err, apierr.ErrUnavailable) || !strings.Contains(err.Error(), "connection error: ") {
		return err
	}
	what := err.Error()
	if _, quoted, ok := strings.Cut(what, "desc = "); ok {
		if text, err := strconv.Unquote(quoted); err == nil {
			what = text
		}
	}
	server := "of the kubeconfig"
	if m := dialed.FindStringSubmatch(what); m != nil {
		server = m[1]
	}
	return &url.Error{Op: "dial", URL: "https://" + server, Err: errors.New(what)}
}

var dialed = regexp.MustCompile(`dial tcp (\S+:\d+): `)

type bearer string

// GetRequestMetadata carries the token.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity keeps the token off plain connections.
func (b bearer) RequireTransportSecurity() bool { return true }
