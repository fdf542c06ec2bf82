// Package apiendpoints keeps the endpoints of default/kubernetes: the control
// plane members that answer.
package apiendpoints

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "apiendpoints"

// every is how often the members are asked.
const every = 5 * time.Second

const service = "kubernetes"

// New makes the controller. Controls gives where the members that answer now
// serve HTTPS.
func New(w reconcile.Writer, controls func(ctx context.Context) []netip.AddrPort) reconcile.Controller {
	return reconcile.Controller{
		Name: Name,
		Inputs: []reconcile.Input{{Resource: "services", Keys: func(e store.Event, _ *store.Snapshot) []reconcile.Key {
			if k := e.Key(); k.Namespace != metav1.NamespaceDefault || k.Name != service {
				return nil
			}
			return []reconcile.Key{{Namespace: metav1.NamespaceDefault, Name: service}}
		}}},
		Reconcile: func(ctx context.Context, s *store.Snapshot, key reconcile.Key) (time.Duration, error) {
			if _, ok := s.Get(api.Key{Resource: "services", Namespace: key.Namespace, Name: key.Name}); !ok {
				return 0, nil
			}
			asked, cancel := context.WithTimeout(ctx, every)
			list := controls(asked)
			cancel()
			if len(list) == 0 {
				return every, nil // this member answers itself: nobody could be asked
			}
			return every, write(ctx, w, s, slice(list))
		},
	}
}

// slice is the EndpointSlice that shows these members.
func slice(list []netip.AddrPort) *discoveryv1.EndpointSlice {
	list = slices.Clone(list)
	slices.SortFunc(list, netip.AddrPort.Compare)
	yes, name, tcp, port := true, "https", corev1.ProtocolTCP, int32(list[0].Port())
	out := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Protocol: &tcp, Port: &port}},
	}
	for _, a := range list {
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{Addresses: []string{a.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}})
	}
	return out
}

func write(ctx context.Context, w reconcile.Writer, s *store.Snapshot, want *discoveryv1.EndpointSlice) error {
	old, err := store.Get[*discoveryv1.EndpointSlice](s, api.Key{Resource: "endpointslices.discovery.k8s.io", Namespace: want.Namespace, Name: want.Name})
	if errors.Is(err, apierr.ErrNotFound) {
		_, err = w.Create(ctx, want)
		return err
	} else if err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(old.Endpoints, want.Endpoints) && equality.Semantic.DeepEqual(old.Ports, want.Ports) {
		return nil
	}
	next := old.DeepCopy()
	next.Endpoints, next.Ports = want.Endpoints, want.Ports
	_, err = w.Update(ctx, next)
	return err
}
