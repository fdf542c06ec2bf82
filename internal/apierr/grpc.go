package apierr

import (
	"context"
	"errors"
	"io"
	"maps"
	"strings"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	statusName = "k8s.io.apimachinery.pkg.apis.meta.v1.Status"
	domain     = "wherry"

	// Details travel in a trailer, and some clients take no more than 8 KiB of
	// headers; beyond this, what the Status says already is not said twice.
	repeatBelow = 2 << 10
)

// GRPCStatus makes e a gRPC status with its details, also where nobody
// translates: grpc's server calls it.
func (e *Error) GRPCStatus() *status.Status { return encode(e) }

// ToGRPC returns err as a gRPC status error: the code of its kind, its message,
// and as details the whole Status, an ErrorInfo, a BadRequest with the fields
// of a validation error, and a RetryInfo if the client is to come again. A gRPC
// status error and io.EOF stay as they are.
func ToGRPC(err error) error {
	var own interface{ GRPCStatus() *status.Status }
	var mine *Error
	if err == nil || err == io.EOF || errors.As(err, &own) && !errors.As(err, &mine) {
		return err
	}
	return encode(err).Err()
}

// FromGRPC returns the error that a gRPC call ended with, as the server's own
// error if it is one of ours, and otherwise as the kind its code stands for. An
// error that no call made, and io.EOF, stay as they are.
func FromGRPC(err error) error {
	var mine *Error
	if err == nil || err == io.EOF || errors.As(err, &mine) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok || st.Code() == codes.OK {
		return err
	}
	for _, d := range st.Proto().GetDetails() {
		if typeName(d) != statusName {
			continue
		}
		var s metav1.Status
		if s.Unmarshal(d.GetValue()) == nil && s.Status == metav1.StatusFailure {
			return &Error{status: s, cause: err}
		}
	}
	return stranger(st, err)
}

// encode returns err as a gRPC status with details.
func encode(err error) *status.Status {
	s := StatusOf(err)
	code := statusKind(s).Code()
	var mine *Error
	if errors.Is(err, context.Canceled) && !errors.As(err, &mine) {
		code = codes.Canceled
	}
	out := &spb.Status{Code: int32(code), Message: strings.ToValidUTF8(s.Message, "\uFFFD")}
	raw, merr := s.Marshal()
	if merr == nil {
		out.Details = append(out.Details, &anypb.Any{TypeUrl: "type.googleapis.com/" + statusName, Value: raw})
	}
	for _, d := range details(s, len(raw)) {
		if a, aerr := anypb.New(d); aerr == nil {
			out.Details = append(out.Details, a)
		}
	}
	return status.FromProto(out)
}

// details returns what the Status says in the words that gRPC clients know.
func details(s metav1.Status, size int) []proto.Message {
	info := &errdetails.ErrorInfo{Reason: shout(string(s.Reason)), Domain: domain}
	out := []proto.Message{info}
	d := s.Details
	if d == nil || size > repeatBelow {
		return out
	}
	info.Metadata = map[string]string{"group": d.Group, "kind": d.Kind, "name": d.Name, "uid": string(d.UID)}
	maps.DeleteFunc(info.Metadata, func(_, v string) bool { return v == "" })
	var bad errdetails.BadRequest
	for _, c := range d.Causes {
		if c.Field != "" {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: c.Field, Description: c.Message, Reason: shout(string(c.Type)),
			})
		}
	}
	if len(bad.GetFieldViolations()) > 0 {
		out = append(out, &bad)
	}
	if d.RetryAfterSeconds > 0 {
		out = append(out, &errdetails.RetryInfo{RetryDelay: &durationpb.Duration{Seconds: int64(d.RetryAfterSeconds)}})
	}
	return out
}

// stranger returns the error of a server, proxy or transport that does not
// speak Status.
func stranger(st *status.Status, err error) error {
	k := grpcKind(st.Code())
	e := &Error{cause: err, status: metav1.Status{
		Status: metav1.StatusFailure, Code: int32(k.HTTP()), Reason: metav1.StatusReason(k), Message: st.Message(),
	}}
	switch st.Code() {
	case codes.Canceled:
		e.cause = errors.Join(err, context.Canceled)
	case codes.DeadlineExceeded:
		e.cause = errors.Join(err, context.DeadlineExceeded)
	}
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			e.status.Details = &metav1.StatusDetails{RetryAfterSeconds: int32(seconds(r.GetRetryDelay().AsDuration()))}
		}
	}
	return e
}

func typeName(a *anypb.Any) string {
	url := a.GetTypeUrl()
	return url[strings.LastIndexByte(url, '/')+1:]
}

// shout turns NotFound into NOT_FOUND, the form that ErrorInfo asks for.
func shout(reason string) string {
	if reason == "" {
		return "UNKNOWN"
	}
	var b strings.Builder
	var before rune
	for _, r := range reason {
		if unicode.IsUpper(r) && unicode.IsLower(before) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
		before = r
	}
	return b.String()
}
