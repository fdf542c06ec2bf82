package audit

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
)

// Level says how much of a request is kept.
type Level string

// The levels, each with what the one before it has.
const (
	None            Level = "None"
	Metadata        Level = "Metadata"
	Request         Level = "Request"
	RequestResponse Level = "RequestResponse"
)

func (l Level) rank() int {
	return slices.Index([]Level{None, Metadata, Request, RequestResponse}, l)
}

// Least reports whether a level is at least another.
func (l Level) Least(other Level) bool { return l.rank() >= other.rank() }

// The stages of a request.
const (
	RequestReceived  = "RequestReceived"
	ResponseStarted  = "ResponseStarted"
	ResponseComplete = "ResponseComplete"
	Panic            = "Panic"
)

// Group is the API group of policies and events.
const Group = "audit.k8s.io/v1"

// Policy says what is kept: the first rule that matches a request decides. A
// request that none matches is not kept.
type Policy struct {
	APIVersion        string         `json:"apiVersion"`
	Kind              string         `json:"kind"`
	Metadata          map[string]any `json:"metadata,omitempty"`
	Rules             []Rule         `json:"rules"`
	OmitStages        []string       `json:"omitStages,omitempty"`
	OmitManagedFields bool           `json:"omitManagedFields,omitempty"`
}

// Rule matches requests; what it leaves empty matches all.
type Rule struct {
	Level             Level       `json:"level"`
	Users             []string    `json:"users,omitempty"`
	UserGroups        []string    `json:"userGroups,omitempty"`
	Verbs             []string    `json:"verbs,omitempty"`
	Resources         []Resources `json:"resources,omitempty"`
	Namespaces        []string    `json:"namespaces,omitempty"`
	NonResourceURLs   []string    `json:"nonResourceURLs,omitempty"`
	OmitStages        []string    `json:"omitStages,omitempty"`
	OmitManagedFields *bool       `json:"omitManagedFields,omitempty"`
}

// Resources are resources of one group.
type Resources struct {
	Group         string   `json:"group,omitempty"`
	Resources     []string `json:"resources,omitempty"`
	ResourceNames []string `json:"resourceNames,omitempty"`
}

// AllMetadata is the policy of who gives none.
func AllMetadata() *Policy {
	return &Policy{Rules: []Rule{{Level: Metadata}}, OmitStages: []string{RequestReceived}}
}

// ReadPolicy reads a policy file.
func ReadPolicy(file string) (*Policy, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the audit policy: %w", err)
	}
	p := &Policy{}
	if err := yaml.UnmarshalStrict(b, p); err != nil {
		return nil, fmt.Errorf("audit policy %s: %w", file, err)
	}
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("audit policy %s: %w", file, err)
	}
	return p, nil
}

func (p *Policy) validate() error {
	if p.APIVersion != Group || p.Kind != "Policy" {
		return fmt.Errorf("apiVersion, kind: it is %s %s, want %s Policy", p.APIVersion, p.Kind, Group)
	}
	if len(p.Rules) == 0 {
		return errors.New("rules: there must be at least one")
	}
	if err := knownStages("omitStages", p.OmitStages); err != nil {
		return err
	}
	for i, r := range p.Rules {
		if err := r.validate(fmt.Sprintf("rules[%d]", i)); err != nil {
			return err
		}
	}
	return nil
}

func (r Rule) validate(at string) error {
	if r.Level.rank() < 0 {
		return fmt.Errorf("%s.level: %q is none of None, Metadata, Request, RequestResponse", at, r.Level)
	}
	if len(r.NonResourceURLs) > 0 && len(r.Resources)+len(r.Namespaces) > 0 {
		return fmt.Errorf("%s.nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs", at)
	}
	for j, url := range r.NonResourceURLs {
		if url != "*" && (!strings.HasPrefix(url, "/") || strings.Contains(strings.TrimSuffix(url, "*"), "*")) {
			return fmt.Errorf("%s.nonResourceURLs[%d]: %q must begin with a slash and may have a * at its end only", at, j, url)
		}
	}
	for j, g := range r.Resources {
		if len(g.ResourceNames) > 0 && len(g.Resources) == 0 {
			return fmt.Errorf("%s.resources[%d].resourceNames: using resourceNames requires at least one resource", at, j)
		}
		if strings.Contains(g.Group, "/") {
			return fmt.Errorf("%s.resources[%d].group: %q must be a group without version", at, j, g.Group)
		}
	}
	return knownStages(at+".omitStages", r.OmitStages)
}

func knownStages(at string, list []string) error {
	for _, s := range list {
		if !slices.Contains([]string{RequestReceived, ResponseStarted, ResponseComplete, Panic}, s) {
			return fmt.Errorf("%s: %q is none of RequestReceived, ResponseStarted, ResponseComplete, Panic", at, s)
		}
	}
	return nil
}

// decision is what a policy says of a request.
type decision struct {
	level       Level
	omit        []string
	dropManaged bool
}

func (p *Policy) decide(u api.User, verb string, t *api.Target, path string) decision {
	for _, r := range p.Rules {
		if !r.matches(u, verb, t, path) {
			continue
		}
		d := decision{level: r.Level, omit: append(slices.Clone(p.OmitStages), r.OmitStages...), dropManaged: p.OmitManagedFields}
		if r.OmitManagedFields != nil {
			d.dropManaged = *r.OmitManagedFields
		}
		return d
	}
	return decision{level: None}
}

func (r Rule) matches(u api.User, verb string, t *api.Target, path string) bool {
	if len(r.Users) > 0 && !slices.Contains(r.Users, u.Name) ||
		len(r.UserGroups) > 0 && !slices.ContainsFunc(r.UserGroups, u.Has) ||
		len(r.Verbs) > 0 && !slices.Contains(r.Verbs, verb) {
		return false
	}
	if len(r.Resources)+len(r.Namespaces) > 0 {
		return t != nil && r.matchesTarget(t)
	}
	if len(r.NonResourceURLs) > 0 {
		return t == nil && slices.ContainsFunc(r.NonResourceURLs, func(url string) bool {
			prefix, open := strings.CutSuffix(url, "*")
			return open && strings.HasPrefix(path, prefix) || url == path
		})
	}
	return true
}

func (r Rule) matchesTarget(t *api.Target) bool {
	if len(r.Namespaces) > 0 && !slices.Contains(r.Namespaces, t.Namespace) {
		return false
	}
	return len(r.Resources) == 0 || slices.ContainsFunc(r.Resources, func(g Resources) bool { return g.has(t) })
}

// has knows pods, pods/log, pods/*, */log and *.
func (g Resources) has(t *api.Target) bool {
	if g.Group != t.Group {
		return false
	}
	if len(g.ResourceNames) > 0 && !slices.Contains(g.ResourceNames, t.Name) {
		return false
	}
	whole := t.Resource
	if t.Subresource != "" {
		whole += "/" + t.Subresource
	}
	return len(g.Resources) == 0 || slices.ContainsFunc(g.Resources, func(name string) bool {
		return name == "*" || name == whole || t.Subresource != "" && (name == t.Resource+"/*" || name == "*/"+t.Subresource)
	})
}
