package gateway

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/render"
)

const (
	// zipAbove is the size from which answers are compressed.
	zipAbove = 128 << 10
	// maxWarnings bounds the bytes of all warnings of an answer.
	maxWarnings = 4 << 10
)

// recorder remembers the status of an answer, and passes everything on.
type recorder struct {
	http.ResponseWriter
	status int
	// started is told when the answer begins; nil is nobody.
	started func(status int)
}

func (w *recorder) begin(status int) {
	if w.status != 0 {
		return
	}
	w.status = status
	if w.started != nil {
		w.started(status)
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(p []byte) (int, error) {
	w.begin(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack implements http.Hijacker.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.begin(http.StatusSwitchingProtocols)
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// body writes an answer: a short one at once with its length, a long one as it
// comes, compressed if the client likes.
type body struct {
	c      *call
	status int
	short  bytes.Buffer
	zip    *gzip.Writer
	begun  bool
}

// Write implements io.Writer.
func (b *body) Write(p []byte) (int, error) {
	if !b.begun {
		if b.short.Len()+len(p) <= zipAbove {
			return b.short.Write(p)
		}
		if err := b.begin(); err != nil {
			return 0, err
		}
	}
	if b.zip != nil {
		return b.zip.Write(p)
	}
	return b.c.w.Write(p)
}

// begin sends the header of a long answer and what there is of it.
func (b *body) begin() error {
	b.begun = true
	if acceptsZip(b.c.r) {
		h := b.c.w.Header()
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		b.zip = b.c.g.zippers.Get().(*gzip.Writer)
		b.zip.Reset(b.c.w)
	}
	b.c.w.WriteHeader(b.status)
	first := b.short.Bytes()
	b.short = bytes.Buffer{}
	_, err := b.Write(first)
	return err
}

// end sends what is left.
func (b *body) end() error {
	if !b.begun {
		b.c.w.Header().Set("Content-Length", strconv.Itoa(b.short.Len()))
		b.c.w.WriteHeader(b.status)
		_, err := b.c.w.Write(b.short.Bytes())
		return err
	}
	if b.zip == nil {
		return nil
	}
	err := b.zip.Close()
	b.zip.Reset(nil)
	b.c.g.zippers.Put(b.zip)
	return err
}

func acceptsZip(r *http.Request) bool {
	for _, line := range r.Header.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
			if strings.EqualFold(strings.TrimSpace(name), "gzip") && strings.ReplaceAll(params, " ", "") != "q=0" {
				return true
			}
		}
	}
	return false
}

// answer writes what write makes, of the content type. An error of write
// before anything was sent is returned; later the answer is cut off.
func (c *call) answer(status int, contentType string, write func(w *body) error) error {
	b := &body{c: c, status: status}
	c.w.Header().Set("Content-Type", contentType)
	c.warnings()
	err := write(b)
	if err == nil {
		err = b.end()
	}
	if err != nil && c.w.status != 0 {
		panic(http.ErrAbortHandler) // too late for a Status
	}
	return err
}

// object answers with an object that is not stored.
func (c *call) object(status int, obj runtime.Object) error {
	f, err := c.form()
	if err != nil {
		return err
	}
	f.As = render.Whole
	return c.answer(status, f.ContentType(), func(w *body) error { return render.Object(w, f, obj) })
}

// fail answers with the Status of an error.
func (c *call) fail(err error) {
	if c.w.status != 0 {
		return
	}
	if errors.Is(err, errNoPage) {
		_ = c.text(http.StatusNotFound, err.Error()+"\n") // as below
		return
	}
	st := apierr.StatusOf(err)
	c.refused = &st
	if st.Details != nil && st.Details.RetryAfterSeconds > 0 {
		c.w.Header().Set("Retry-After", strconv.Itoa(int(st.Details.RetryAfterSeconds)))
	}
	f, ferr := render.Negotiate(c.r.Header.Get("Accept"))
	if ferr != nil {
		f = render.Form{Media: api.MediaJSON}
	}
	// The client may have gone; then there is nobody to tell.
	_ = c.answer(int(st.Code), f.ContentType(), func(w *body) error { return render.Object(w, f, &st) })
}

// warnings puts the warnings into the header, and the client's users see them.
func (c *call) warnings() {
	used := 0
	for i, text := range c.warn {
		if slices.Contains(c.warn[:i], text) {
			continue
		}
		if used += len(text); used > maxWarnings {
			return
		}
		text = strings.Join(strings.Fields(text), " ") // a header has no lines
		if h, err := utilnet.NewWarningHeader(299, "-", text); err == nil {
			c.w.Header().Add("Warning", h)
		}
	}
}
