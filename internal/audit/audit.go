// Package audit keeps a record of what was asked of the API, by whom and with
// what result: JSON lines in the form of Kubernetes' audit.k8s.io/v1 Events, in
// a file that is rotated. A policy says how much is kept of which requests.
package audit

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// File says where the log is, and how much of it is kept.
type File struct {
	Path string
	// MaxMiB is the size at which a new file is begun, MaxFiles and MaxDays
	// bound the old ones; 0 keeps all.
	MaxMiB, MaxFiles, MaxDays int
}

// Log writes events. It may be used by many goroutines; a nil Log keeps
// nothing.
type Log struct {
	policy *Policy
	out    io.WriteCloser
	log    *slog.Logger
	now    func() time.Time

	mu     sync.Mutex // guards what was told of failures
	failed time.Time
}

// Open makes a log in a file.
func Open(f File, p *Policy, log *slog.Logger) *Log {
	return New(&lumberjack.Logger{Filename: f.Path, MaxSize: f.MaxMiB, MaxBackups: f.MaxFiles, MaxAge: f.MaxDays}, p, log)
}

// New makes a log into out.
func New(out io.WriteCloser, p *Policy, log *slog.Logger) *Log {
	return &Log{policy: p, out: out, log: log, now: time.Now}
}

// Close closes the file.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	return l.out.Close()
}

// Call is a request as it came in. Target is nil for a path that is no
// resource.
type Call struct {
	ID        string
	URI       string
	Verb      string
	User      api.User
	Target    *api.Target
	Path      string
	SourceIPs []string
	UserAgent string
	Received  time.Time
}

// Entry is the record of one request. A nil Entry takes everything and keeps
// nothing. One goroutine at a time may use it.
type Entry struct {
	l     *Log
	d     decision
	event event
}

// event is an audit.k8s.io/v1 Event.
type event struct {
	Kind             string            `json:"kind"`
	APIVersion       string            `json:"apiVersion"`
	Level            Level             `json:"level"`
	AuditID          string            `json:"auditID"`
	Stage            string            `json:"stage"`
	RequestURI       string            `json:"requestURI"`
	Verb             string            `json:"verb"`
	User             userInfo          `json:"user"`
	ImpersonatedUser *userInfo         `json:"impersonatedUser,omitempty"`
	SourceIPs        []string          `json:"sourceIPs,omitempty"`
	UserAgent        string            `json:"userAgent,omitempty"`
	ObjectRef        *objectRef        `json:"objectRef,omitempty"`
	ResponseStatus   *metav1.Status    `json:"responseStatus,omitempty"`
	RequestObject    json.RawMessage   `json:"requestObject,omitempty"`
	ResponseObject   json.RawMessage   `json:"responseObject,omitempty"`
	Received         metav1.MicroTime  `json:"requestReceivedTimestamp"`
	StageAt          metav1.MicroTime  `json:"stageTimestamp"`
	Annotations      map[string]string `json:"annotations,omitempty"`
}

type userInfo struct {
	Username string              `json:"username,omitempty"`
	UID      string              `json:"uid,omitempty"`
	Groups   []string            `json:"groups,omitempty"`
	Extra    map[string][]string `json:"extra,omitempty"`
}

type objectRef struct {
	Resource    string `json:"resource,omitempty"`
	Namespace   string `json:"namespace,omitempty"`
	Name        string `json:"name,omitempty"`
	APIGroup    string `json:"apiGroup,omitempty"`
	APIVersion  string `json:"apiVersion,omitempty"`
	Subresource string `json:"subresource,omitempty"`
}

func infoOf(u api.User) userInfo {
	return userInfo{Username: u.Name, UID: u.UID, Groups: u.Groups, Extra: u.Extra}
}

// Begin records that a request came in, and gives where the rest of it goes;
// nil if the policy wants nothing of it.
func (l *Log) Begin(c Call) *Entry {
	if l == nil {
		return nil
	}
	real := c.User
	if c.User.By != nil {
		real = *c.User.By
	}
	d := l.policy.decide(real, c.Verb, c.Target, c.Path)
	if d.level == None {
		return nil
	}
	e := &Entry{l: l, d: d, event: event{
		Kind: "Event", APIVersion: Group, Level: d.level, AuditID: c.ID, RequestURI: c.URI, Verb: c.Verb,
		User: infoOf(real), SourceIPs: c.SourceIPs, UserAgent: c.UserAgent, Received: metav1.NewMicroTime(c.Received),
	}}
	if c.User.By != nil {
		as := infoOf(c.User)
		e.event.ImpersonatedUser = &as
	}
	if t := c.Target; t != nil {
		e.event.ObjectRef = &objectRef{t.Resource, t.Namespace, t.Name, t.Group, t.Version, t.Subresource}
	}
	e.write(RequestReceived)
	return e
}

// Wants reports whether the entry keeps what a level has.
func (e *Entry) Wants(l Level) bool { return e != nil && e.d.level.Least(l) }

// Request keeps the object that was sent, if the level wants it.
func (e *Entry) Request(obj any) {
	if e.Wants(Request) {
		e.event.RequestObject = e.encode(obj)
	}
}

// Response keeps the object that was answered, if the level wants it.
func (e *Entry) Response(obj any) {
	if e.Wants(RequestResponse) {
		e.event.ResponseObject = e.encode(obj)
	}
}

// maxObject bounds an object in an event.
const maxObject = 3 << 20

func (e *Entry) encode(obj any) json.RawMessage {
	b, raw := obj.(json.RawMessage)
	if !raw {
		var err error
		if b, err = json.Marshal(obj); err != nil {
			return nil
		}
	}
	if !json.Valid(b) || len(b) > maxObject {
		return nil
	}
	if e.d.dropManaged {
		b = withoutManaged(b)
	}
	return b
}

// withoutManaged drops metadata.managedFields, of a list's items too.
func withoutManaged(b []byte) []byte {
	var all map[string]any
	if json.Unmarshal(b, &all) != nil {
		return b
	}
	drop := func(v any) {
		if o, ok := v.(map[string]any); ok {
			if meta, ok := o["metadata"].(map[string]any); ok {
				delete(meta, "managedFields")
			}
		}
	}
	drop(all)
	if items, ok := all["items"].([]any); ok {
		for _, i := range items {
			drop(i)
		}
	}
	out, err := json.Marshal(all)
	if err != nil {
		return b
	}
	return out
}

// Annotate says something about how a request was judged.
func (e *Entry) Annotate(key, value string) {
	if e == nil {
		return
	}
	if e.event.Annotations == nil {
		e.event.Annotations = map[string]string{}
	}
	e.event.Annotations[key] = value
}

// decided is the annotation that says how authorization judged.
const decided = "authorization.k8s.io/decision"

// Decided says how authorization judged, which the code of the answer tells.
func (e *Entry) Decided(code int) {
	switch code {
	case http.StatusUnauthorized:
	case http.StatusForbidden:
		e.Annotate(decided, "forbid")
	default:
		e.Annotate(decided, "allow")
	}
}

// Started records that the answer of a long request has begun.
func (e *Entry) Started(code int) {
	if e != nil {
		e.event.ResponseStatus = &metav1.Status{Code: int32(code)} //nolint:gosec // an HTTP status
		e.write(ResponseStarted)
	}
}

// Complete records how a request ended. Of secrets and tokens it keeps no text
// at a level that keeps no objects: what was refused may stand in it.
func (e *Entry) Complete(st metav1.Status) {
	if e == nil {
		return
	}
	if e.secret() && !e.d.level.Least(Request) {
		st = withoutText(st)
	}
	e.event.ResponseStatus = &st
	e.write(ResponseComplete)
}

// secret reports whether the request is about what nobody else should read.
func (e *Entry) secret() bool {
	t := e.event.ObjectRef
	switch {
	case t == nil:
		return false
	case t.APIGroup == "":
		return t.Resource == "secrets" || t.Resource == "serviceaccounts" && t.Subresource == "token"
	}
	return t.APIGroup == "authentication.k8s.io" && t.Resource == "tokenreviews"
}

// withoutText drops what a status says in words.
func withoutText(st metav1.Status) metav1.Status {
	st.Message = ""
	if d := st.Details; d != nil {
		st.Details = &metav1.StatusDetails{Name: d.Name, Group: d.Group, Kind: d.Kind, UID: d.UID, RetryAfterSeconds: d.RetryAfterSeconds}
	}
	return st
}

// Panicked records that the request broke its handler.
func (e *Entry) Panicked(what string) {
	if e != nil {
		e.event.ResponseStatus = &metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError, Code: 500, Message: what}
		e.write(Panic)
	}
}

func (e *Entry) write(stage string) {
	if slices.Contains(e.d.omit, stage) {
		return
	}
	e.event.Stage, e.event.StageAt = stage, metav1.NewMicroTime(e.l.now())
	b, err := json.Marshal(&e.event)
	if err == nil {
		_, err = e.l.out.Write(append(b, '\n'))
	}
	if err != nil {
		e.l.lost(err)
	}
}

// lost tells of events that could not be written, now and then.
func (l *Log) lost(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.now(); now.Sub(l.failed) > time.Minute {
		l.failed = now
		l.log.Error("audit events are lost", "err", err)
	}
}
