// Package discovery makes the documents by which Kubernetes clients learn what
// a cluster serves, both the aggregated form and the older ones, out of the
// table of kinds.
package discovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"slices"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds"
)

// Documents gives discovery documents. They are made when asked for and belong
// to the caller.
type Documents struct {
	groups []group
}

// group is an API group with its versions, the preferred one first.
type group struct {
	name     string
	versions []version
}

type version struct {
	name  string
	kinds []*api.Kind
}

// New sorts the kinds: groups and versions by their weight, resources by name.
func New(all *api.Kinds) *Documents {
	d := &Documents{}
	for _, k := range all.All() {
		d.add(k)
	}
	slices.SortFunc(d.groups, func(a, b group) int {
		return cmp.Or(cmp.Compare(kinds.Priority(b.name), kinds.Priority(a.name)), cmp.Compare(a.name, b.name))
	})
	for _, g := range d.groups {
		slices.SortFunc(g.versions, func(a, b version) int {
			return cmp.Compare(kinds.VersionPriority(g.name, b.name), kinds.VersionPriority(g.name, a.name))
		})
		for _, v := range g.versions {
			slices.SortFunc(v.kinds, func(a, b *api.Kind) int { return cmp.Compare(a.Resource, b.Resource) })
		}
	}
	return d
}

func (d *Documents) add(k *api.Kind) {
	g := d.group(k.Group)
	if g == nil {
		d.groups = append(d.groups, group{name: k.Group})
		g = &d.groups[len(d.groups)-1]
	}
	for i := range g.versions {
		if g.versions[i].name == k.Version {
			g.versions[i].kinds = append(g.versions[i].kinds, k)
			return
		}
	}
	g.versions = append(g.versions, version{k.Version, []*api.Kind{k}})
}

func (d *Documents) group(name string) *group {
	for i := range d.groups {
		if d.groups[i].name == name {
			return &d.groups[i]
		}
	}
	return nil
}

// Versions answers GET /api.
func (d *Documents) Versions() *metav1.APIVersions {
	out := &metav1.APIVersions{
		TypeMeta:                   metav1.TypeMeta{Kind: "APIVersions"},
		Versions:                   []string{},
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{},
	}
	if g := d.group(""); g != nil {
		for _, v := range g.versions {
			out.Versions = append(out.Versions, v.name)
		}
	}
	return out
}

// Groups answers GET /apis.
func (d *Documents) Groups() *metav1.APIGroupList {
	out := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
	for _, g := range d.groups {
		if g.name != "" {
			out.Groups = append(out.Groups, g.document())
		}
	}
	return out
}

// Group answers GET /apis/NAME.
func (d *Documents) Group(name string) (*metav1.APIGroup, bool) {
	g := d.group(name)
	if g == nil || name == "" {
		return nil, false
	}
	out := g.document()
	out.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
	return &out, true
}

func (g group) document() metav1.APIGroup {
	out := metav1.APIGroup{Name: g.name}
	for _, v := range g.versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: g.name + "/" + v.name, Version: v.name})
	}
	out.PreferredVersion = out.Versions[0]
	return out
}

// Resources answers GET /api/V and /apis/GROUP/V.
func (d *Documents) Resources(groupName, versionName string) (*metav1.APIResourceList, bool) {
	g := d.group(groupName)
	if g == nil {
		return nil, false
	}
	for _, v := range g.versions {
		if v.name != versionName {
			continue
		}
		out := &metav1.APIResourceList{
			TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
			GroupVersion: v.kinds[0].APIVersion(),
		}
		for _, k := range v.kinds {
			out.APIResources = append(out.APIResources, resources(k)...)
		}
		return out, true
	}
	return nil, false
}

// resources lists a kind and its subresources.
func resources(k *api.Kind) []metav1.APIResource {
	out := []metav1.APIResource{{
		Name: k.Resource, SingularName: k.Singular, Namespaced: k.Namespaced, Kind: k.Kind,
		Verbs: k.Verbs, ShortNames: k.ShortNames, Categories: k.Categories, StorageVersionHash: storageHash(k),
	}}
	for _, s := range subresources(k) {
		r := metav1.APIResource{Name: k.Resource + "/" + s.Name, Namespaced: k.Namespaced, Verbs: s.Verbs, Kind: k.Kind}
		if s.Kind != "" {
			r.Group, r.Version, r.Kind = s.Group, s.Version, s.Kind
		}
		out = append(out, r)
	}
	return out
}

// subresources are those of a kind by name.
func subresources(k *api.Kind) []api.Subresource {
	return slices.SortedFunc(slices.Values(k.Subresources), func(a, b api.Subresource) int { return cmp.Compare(a.Name, b.Name) })
}

// storageHash changes when the kind's stored form does.
func storageHash(k *api.Kind) string {
	k = k.Stored()
	sum := sha256.Sum256([]byte(k.Group + "/" + k.Version + "/" + k.Kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

// Aggregated answers GET /api (core) or /apis (all others) in the form that
// holds every resource.
func (d *Documents) Aggregated(core bool) *apidiscoveryv2.APIGroupDiscoveryList {
	out := &apidiscoveryv2.APIGroupDiscoveryList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"},
		Items:    []apidiscoveryv2.APIGroupDiscovery{},
	}
	for _, g := range d.groups {
		if (g.name == "") != core {
			continue
		}
		item := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g.name}}
		for _, v := range g.versions {
			item.Versions = append(item.Versions, v.document())
		}
		out.Items = append(out.Items, item)
	}
	return out
}

func (v version) document() apidiscoveryv2.APIVersionDiscovery {
	out := apidiscoveryv2.APIVersionDiscovery{Version: v.name, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
	for _, k := range v.kinds {
		r := apidiscoveryv2.APIResourceDiscovery{
			Resource: k.Resource, ResponseKind: kindOf(k.Group, k.Version, k.Kind), Scope: apidiscoveryv2.ScopeCluster,
			SingularResource: k.Singular, Verbs: k.Verbs, ShortNames: k.ShortNames, Categories: k.Categories,
		}
		if k.Namespaced {
			r.Scope = apidiscoveryv2.ScopeNamespace
		}
		for _, s := range subresources(k) {
			gvk := k.Body(s)
			r.Subresources = append(r.Subresources, apidiscoveryv2.APISubresourceDiscovery{
				Subresource: s.Name, Verbs: s.Verbs, ResponseKind: kindOf(gvk.Group, gvk.Version, gvk.Kind),
			})
		}
		out.Resources = append(out.Resources, r)
	}
	return out
}

func kindOf(group, version, kind string) *metav1.GroupVersionKind {
	return &metav1.GroupVersionKind{Group: group, Version: version, Kind: kind}
}
