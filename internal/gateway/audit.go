package gateway

import (
	"bytes"
	"encoding/json"
	"net"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/audit"
	"github.com/wherry-project/wherry/internal/render"
)

// maxAgent bounds a client's name for itself in the audit log.
const maxAgent = 1024

// record begins the audit log's entry of a request, once its user is known or
// was refused.
func (c *call) record(began time.Time) {
	if c.g.cfg.Audit == nil {
		return
	}
	in := audit.Call{
		ID: c.w.Header().Get("Audit-Id"), URI: c.r.URL.RequestURI(), Verb: strings.ToLower(c.r.Method), User: c.user, Received: began, Path: c.r.URL.Path,
	}
	if c.path.resource {
		in.Target = &c.path.Target
		if c.path.verb != "" && !c.path.longRunning() || c.path.verb == "watch" {
			in.Verb = c.path.verb
		} else if in.Verb == "post" {
			in.Verb = "create"
		}
	}
	if host, _, err := net.SplitHostPort(c.r.RemoteAddr); err == nil {
		in.SourceIPs = []string{host}
	}
	in.UserAgent = strings.ToValidUTF8(c.r.UserAgent()[:min(len(c.r.UserAgent()), maxAgent)], "")
	c.entry = c.g.cfg.Audit.Begin(in)
	if c.entry != nil && c.path.longRunning() {
		c.w.started = c.entry.Started
	}
}

// recorded ends the entry.
func (c *call) recorded() {
	if c.entry == nil {
		return
	}
	st := metav1.Status{Code: int32(c.w.status)} //nolint:gosec // an HTTP status
	if c.refused != nil {
		st = *c.refused
		c.entry.Response(&st)
	}
	c.entry.Decided(int(st.Code))
	c.entry.Complete(st)
}

// keepValue keeps the object that is answered.
func (c *call) keepValue(v api.Value) {
	if !c.entry.Wants(audit.RequestResponse) {
		return
	}
	if v.Object != nil {
		c.entry.Response(v.Object)
	} else if obj, err := c.g.cfg.API.Codec().Decode(v.Record); err == nil {
		c.entry.Response(obj)
	}
}

// keepPage keeps the list that is answered.
func (c *call) keepPage(p *api.Page) {
	if !c.entry.Wants(audit.RequestResponse) {
		return
	}
	var b bytes.Buffer
	if c.g.render.Page(&b, render.Form{Media: api.MediaJSON, As: render.Whole}, p) == nil {
		c.entry.Response(json.RawMessage(b.Bytes()))
	}
}

// keepPatch keeps a patch, which is JSON or YAML.
func (c *call) keepPatch(b []byte) {
	if !c.entry.Wants(audit.Request) {
		return
	}
	if j, err := yaml.YAMLToJSON(b); err == nil {
		c.entry.Request(json.RawMessage(j))
	}
}
