package gateway

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Check is one condition of health.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

// health answers /healthz, /livez and /readyz, and /NAME below them.
func (c *call) health(parts []string) error {
	checks := append([]Check{{Name: "ping", Run: func(context.Context) error { return nil }}}, c.g.cfg.Live...)
	if parts[0] == "readyz" {
		checks = append(checks, c.g.cfg.Ready...)
	}
	if len(parts) > 1 {
		return c.healthOf(checks, strings.Join(parts[1:], "/"))
	}
	q := c.r.URL.Query()
	skip := map[string]bool{}
	for _, name := range q["exclude"] {
		skip[name] = true
	}
	var text strings.Builder
	var failed []string
	for _, check := range checks {
		if skip[check.Name] {
			fmt.Fprintf(&text, "[+]%s excluded: ok\n", check.Name)
			delete(skip, check.Name)
		} else if err := check.Run(c.r.Context()); err != nil {
			failed = append(failed, check.Name)
			c.g.cfg.Log.Warn("health check failed", "check", check.Name, "err", err)
			fmt.Fprintf(&text, "[-]%s failed: reason withheld\n", check.Name)
		} else {
			fmt.Fprintf(&text, "[+]%s ok\n", check.Name)
		}
	}
	if len(skip) > 0 {
		var names []string
		for name := range skip {
			names = append(names, strconv.Quote(name))
		}
		slices.Sort(names)
		fmt.Fprintf(&text, "warn: some health checks cannot be excluded: no matches for %s\n", strings.Join(names, ", "))
	}
	if len(failed) > 0 {
		fmt.Fprintf(&text, "%s check failed\n", parts[0])
		return c.text(http.StatusInternalServerError, text.String())
	}
	if _, verbose := q["verbose"]; !verbose {
		return c.text(http.StatusOK, "ok")
	}
	fmt.Fprintf(&text, "%s check passed\n", parts[0])
	return c.text(http.StatusOK, text.String())
}

// healthOf answers for one check.
func (c *call) healthOf(checks []Check, name string) error {
	for _, check := range checks {
		if check.Name != name {
			continue
		}
		if err := check.Run(c.r.Context()); err != nil {
			c.g.cfg.Log.Warn("health check failed", "check", name, "err", err)
			return c.text(http.StatusInternalServerError, fmt.Sprintf("internal server error: %s check failed\n", name))
		}
		return c.text(http.StatusOK, "ok")
	}
	return errNoPage
}

func (c *call) text(status int, text string) error {
	c.w.Header().Set("X-Content-Type-Options", "nosniff")
	return c.answer(status, "text/plain; charset=utf-8", func(w *body) error {
		_, err := w.Write([]byte(text))
		return err
	})
}
