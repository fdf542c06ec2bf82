package bootstrap

import (
	"fmt"

	"sigs.k8s.io/yaml"
)

// kubeconfig is the part of a kubeconfig file that is written.
type kubeconfig struct {
	APIVersion     string               `json:"apiVersion"`
	Kind           string               `json:"kind"`
	CurrentContext string               `json:"current-context"`
	Clusters       []named[clusterPart] `json:"clusters"`
	Users          []named[userPart]    `json:"users"`
	Contexts       []named[contextPart] `json:"contexts"`
}

// named is an entry of one of its lists; only one of the parts is set.
type named[T any] struct {
	Name    string `json:"name"`
	Cluster *T     `json:"cluster,omitempty"`
	User    *T     `json:"user,omitempty"`
	Context *T     `json:"context,omitempty"`
}

type clusterPart struct {
	Server string `json:"server"`
	CA     []byte `json:"certificate-authority-data"`
}

type userPart struct {
	Certificate []byte `json:"client-certificate-data"`
	Key         []byte `json:"client-key-data"`
}

type contextPart struct {
	Cluster string `json:"cluster"`
	User    string `json:"user"`
}

// Kubeconfig gives the file with which a user reaches a cluster; ca, cert and
// key are PEM.
func Kubeconfig(server, user string, ca, cert, key []byte) ([]byte, error) {
	const cluster = "wherry"
	context := user + "@" + cluster
	b, err := yaml.Marshal(kubeconfig{
		APIVersion: "v1", Kind: "Config", CurrentContext: context,
		Clusters: []named[clusterPart]{{Name: cluster, Cluster: &clusterPart{Server: server, CA: ca}}},
		Users:    []named[userPart]{{Name: user, User: &userPart{Certificate: cert, Key: key}}},
		Contexts: []named[contextPart]{{Name: context, Context: &contextPart{Cluster: cluster, User: user}}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode the kubeconfig: %w", err)
	}
	return b, nil
}
