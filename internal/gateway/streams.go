package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/upgrade"
)

// serveStream answers for a pod's log, exec, attach and portforward.
func (c *call) serveStream() error {
	t, verb := c.path.Target, "create"
	if t.Subresource == "log" {
		verb = "get"
	}
	switch {
	case t.Namespace == "":
		return errNotServed()
	case c.r.Method != http.MethodGet && (c.r.Method != http.MethodPost || verb == "get"):
		return apierr.MethodNotAllowed("pods/"+t.Subresource, c.r.Method)
	}
	if err := c.mayStream(verb); err != nil {
		return err
	}
	if c.g.cfg.Streams == nil {
		return apierr.Unavailable("this server has no connection to nodes, so it cannot serve pods/%s", t.Subresource)
	}
	switch t.Subresource {
	case "log":
		return c.log()
	case "portforward":
		if err := c.g.cfg.Streams.Ready(c.r.Context(), c.user, t.Namespace, t.Name, nil); err != nil {
			return err
		}
		return c.upgraded(upgrade.PortForward(c.w, c.r, func(ctx context.Context, port uint16) (net.Conn, error) {
			return c.g.cfg.Streams.Dial(ctx, c.user, t.Namespace, t.Name, port)
		}))
	}
	return c.exec()
}

// mayStream authorizes a stream.
func (c *call) mayStream(verb string) error {
	if c.g.cfg.Authorize != nil {
		return c.g.cfg.Authorize(c.user, c.path.Target, verb)
	}
	if c.user.Has(masters) {
		return nil
	}
	return apierr.Forbidden("pods", c.path.Name, errors.New("streams are for "+masters+" only"))
}

// upgraded drops an error that the client has been told.
func (c *call) upgraded(err error) error {
	if err != nil && (upgrade.Answered(err) || c.w.status != 0) {
		return nil
	}
	return err
}

// exec answers exec and attach.
func (c *call) exec() error {
	q := c.r.URL.Query()
	o := upgrade.Options{Stdin: isTrue(q, "stdin"), Stdout: isTrue(q, "stdout"), Stderr: isTrue(q, "stderr"), TTY: isTrue(q, "tty")}
	if !o.Stdin && !o.Stdout && !o.Stderr {
		return apierr.BadRequest("you must specify at least 1 of stdin, stdout, stderr")
	}
	t := c.path.Target
	command := q["command"]
	if t.Subresource == "attach" {
		command = nil
	} else if len(command) == 0 {
		return apierr.Invalid("PodExecOptions", t.Name, field.ErrorList{field.Required(field.NewPath("command"), "")})
	}
	in := q.Get("container")
	if err := c.g.cfg.Streams.Ready(c.r.Context(), c.user, t.Namespace, t.Name, &in); err != nil {
		return err
	}
	return c.upgraded(upgrade.Exec(c.w, c.r, o, func(ctx context.Context, s upgrade.Streams) (int, error) {
		return c.g.cfg.Streams.Exec(ctx, c.user, api.ExecRequest{
			Namespace: t.Namespace, Pod: t.Name, Container: in, Command: command, TTY: o.TTY,
			Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr, Resize: s.Resize,
		})
	}))
}

// log answers with a container's log.
func (c *call) log() error {
	t := c.path.Target
	o, err := logOptions(c.r.URL.Query(), t.Name)
	if err != nil {
		return err
	}
	r, err := c.g.cfg.Streams.Logs(c.r.Context(), c.user, t.Namespace, t.Name, o)
	if err != nil {
		return err
	}
	defer r.Close()
	if upgrade.Requested(c.r) {
		return c.upgraded(upgrade.Log(c.w, c.r, r))
	}
	c.w.Header().Set("Content-Type", "text/plain")
	c.w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(c.w)
	if err := rc.Flush(); err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			serr := c.send(func() error {
				if _, err := c.w.Write(buf[:n]); err != nil {
					return err
				}
				return rc.Flush()
			})
			if serr != nil {
				return nil // the client has gone
			}
		}
		if errors.Is(err, io.EOF) || c.r.Context().Err() != nil {
			return nil
		}
		if err != nil {
			panic(http.ErrAbortHandler) // the client must not take it for the end
		}
	}
}

// logOptions are the parameters of a log.
func logOptions(q url.Values, pod string) (*corev1.PodLogOptions, error) {
	o := &corev1.PodLogOptions{
		Container: q.Get("container"), Follow: isTrue(q, "follow"), Previous: isTrue(q, "previous"), Timestamps: isTrue(q, "timestamps"),
	}
	for name, into := range map[string]**int64{"tailLines": &o.TailLines, "limitBytes": &o.LimitBytes, "sinceSeconds": &o.SinceSeconds} {
		text := q.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, apierr.BadRequest("%w", err)
		}
		*into = &n
	}
	if text := q.Get("sinceTime"); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, apierr.BadRequest("%w", err)
		}
		o.SinceTime = &metav1.Time{Time: at}
	}
	var errs field.ErrorList
	if s := q.Get("stream"); s != "" && s != corev1.LogStreamAll {
		errs = append(errs, field.NotSupported(field.NewPath("stream"), s, []string{corev1.LogStreamAll}))
	}
	if len(errs) > 0 {
		return nil, apierr.Invalid("PodLogOptions", pod, errs)
	}
	return o, nil
}
