// Package bootstrap makes the first objects of a cluster: the namespaces,
// the services of the API and of DNS, and the roles that users know. They are written once, by one command,
// together with the records of the cluster itself.
package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/alloc"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/store"
)

// namespaces are those that every cluster has.
var namespaces = [...]string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}

// Config says what the first objects are made of.
type Config struct {
	Kinds *api.Kinds
	Alloc *alloc.Allocator
	// DNS is the address of the cluster's DNS, APIPort where every member
	// serves HTTPS.
	DNS     netip.Addr
	APIPort int32
	Now     time.Time
}

// Write makes the first objects, and whatever else a new cluster begins with,
// by one command. It refuses where anything was ever written.
func Write(ctx context.Context, s store.Store, cfg Config, also ...store.Change) error {
	snap, err := s.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return err
	}
	if snap.Revision() != 0 {
		return taken()
	}
	changes, err := objects(cfg, snap)
	if err != nil {
		return err
	}
	_, err = s.Commit(ctx, store.Command{Changes: append(changes, also...)})
	var lost *store.CompareError
	if errors.As(err, &lost) {
		return taken()
	}
	return err
}

func taken() error {
	return apierr.New(apierr.ErrConflict, "there is a cluster here already; nothing was changed")
}

// objects gives the changes that make the first objects.
func objects(cfg Config, snap *store.Snapshot) ([]store.Change, error) {
	var all []api.Object
	for _, name := range namespaces {
		all = append(all, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	all = append(all, apiService(cfg), dnsService(cfg))
	policy, err := policy()
	if err != nil {
		return nil, err
	}
	all = append(append(all, policy...), fixtures(cfg)...)
	var out []store.Change
	for _, obj := range all {
		changes, err := create(cfg, snap, obj)
		if err != nil {
			return nil, err
		}
		out = append(out, changes...)
	}
	return out, nil
}

// policy is the roles and bindings that every cluster has.
func policy() ([]api.Object, error) {
	p := authz.Defaults()
	if err := p.Aggregate(); err != nil {
		return nil, fmt.Errorf("make the default roles: %w", err)
	}
	var all []api.Object
	for _, r := range p.ClusterRoles {
		all = append(all, r)
	}
	for _, b := range p.ClusterRoleBindings {
		all = append(all, b)
	}
	for _, r := range p.Roles {
		all = append(all, r)
	}
	for _, b := range p.RoleBindings {
		all = append(all, b)
	}
	return all, nil
}

// create does to an object what the API does on create.
func create(cfg Config, snap *store.Snapshot, obj api.Object) ([]store.Change, error) {
	k, ok := cfg.Kinds.Of(obj)
	if !ok {
		return nil, fmt.Errorf("%T is not a served kind", obj)
	}
	obj.SetUID(uuid.NewUUID())
	obj.SetCreationTimestamp(metav1.Time{Time: cfg.Now.Truncate(time.Second)})
	if k.SpecOf != nil {
		obj.SetGeneration(1)
	}
	if k.OnCreate != nil {
		k.OnCreate(obj)
	}
	if k.Default != nil {
		k.Default(obj)
	}
	errs := api.ValidateMeta(k, obj)
	if k.Validate != nil {
		errs = append(errs, k.Validate(obj)...)
	}
	var changes []store.Change
	if svc, ok := obj.(*corev1.Service); ok {
		var more field.ErrorList
		changes, more = cfg.Alloc.Service(snap, svc, nil)
		errs = append(errs, more...)
	}
	if len(errs) > 0 {
		return nil, apierr.Invalid(k.GVK().GroupKind().String(), obj.GetName(), errs)
	}
	r, err := k.Record(obj)
	if err != nil {
		return nil, err
	}
	return append(changes, store.Change{Op: store.Put, If: store.Cond{Absent: true}, Key: r.Key, Record: r}), nil
}

// apiService is how pods reach the API. Its endpoints are the members, and are
// written by the apiendpoints controller.
func apiService(cfg Config) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault, Name: "kubernetes",
			Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"},
		},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: cfg.Alloc.First().String(),
			Ports: []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt32(cfg.APIPort)}},
		},
	}
}

// dnsService shows the cluster's DNS. Every node answers on its address by
// itself, so that it has no endpoints and is not translated.
func dnsService(cfg Config) *corev1.Service {
	port := func(name string, p corev1.Protocol) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Protocol: p, Port: 53, TargetPort: intstr.FromInt32(53)}
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceSystem, Name: "kube-dns",
			Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true"},
		},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: cfg.DNS.String(),
			Ports: []corev1.ServicePort{port("dns", corev1.ProtocolUDP), port("dns-tcp", corev1.ProtocolTCP)},
		},
	}
}
