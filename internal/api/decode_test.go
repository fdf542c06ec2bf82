package api_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

func podKind() schema.GroupVersionKind { return corev1.SchemeGroupVersion.WithKind("Pod") }

func TestDecodeGivesBackWhatWasEncoded(t *testing.T) {
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"a": "<b>"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	for media, encode := range map[string]func() ([]byte, error){
		api.MediaJSON:     func() ([]byte, error) { return api.EncodeJSON(pod) },
		api.MediaYAML:     func() ([]byte, error) { return api.EncodeYAML(pod) },
		api.MediaProtobuf: func() ([]byte, error) { return api.EncodeProtobuf(pod) },
	} {
		b, err := encode()
		if err != nil {
			t.Fatal(err)
		}
		var got corev1.Pod
		warnings, err := api.Decode(media, b, podKind(), &got, api.ValidateStrict)
		if err != nil || len(warnings) > 0 || got.Name != "p" || got.Labels["a"] != "<b>" || got.Spec.Containers[0].Image != "i" || got.Kind != "Pod" {
			t.Errorf("%s: %+v, %q, %v", media, got, warnings, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	tests := []struct{ name, media, body, validation, text string }{
		{"nothing", api.MediaJSON, "", "", "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"},
		{"no JSON", api.MediaJSON, "{", "", "the object provided is unrecognized"},
		{"no object", api.MediaJSON, "[]", "", "the object provided is unrecognized"},
		{"no YAML", api.MediaYAML, "a: [", "", "the object provided is unrecognized"},
		{"no protobuf", api.MediaProtobuf, "x", "", "does not appear to be a protobuf message"},
		{"cut protobuf", api.MediaProtobuf, "k8s\x00\x0a\xff", "", "the object provided is unrecognized"},
		{"another version", api.MediaJSON, `{"apiVersion":"v2","kind":"Pod"}`, "", "the API version in the data (v2) does not match the expected API version (v1)"},
		{"another kind", api.MediaJSON, `{"apiVersion":"v1","kind":"Node"}`, "", `Node in version "v1" cannot be handled as a Pod`},
		{"wrong type", api.MediaJSON, `{"spec":{"containers":{}}}`, "", `Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal object into Go struct field PodSpec.spec.containers`},
		{"bad quantity", api.MediaJSON, `{"spec":{"containers":[{"resources":{"limits":{"cpu":"NaN"}}}]}}`, "", "quantities must match the regular expression"},
		{"unknown", api.MediaJSON, `{"spec":{"foo":1}}`, api.ValidateStrict, `strict decoding error: unknown field "spec.foo"`},
		{"repeated", api.MediaJSON, `{"spec":{"nodeName":"a","nodeName":"b"}}`, api.ValidateStrict, `strict decoding error: duplicate field "spec.nodeName"`},
		{"repeated YAML", api.MediaYAML, "spec:\n  nodeName: a\n  nodeName: b\n", api.ValidateStrict, `key "nodeName" already set in map`},
		{"other case", api.MediaJSON, `{"Spec":{}}`, api.ValidateStrict, `unknown field "Spec"`},
		{"deep", api.MediaJSON, strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20000), "", "exceeded max depth"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := api.Decode(tt.media, []byte(tt.body), podKind(), &corev1.Pod{}, tt.validation)
			if !errors.Is(err, apierr.ErrBadRequest) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v, want %q", err, tt.text)
			}
		})
	}
	if _, err := api.Decode("text/plain", nil, podKind(), &corev1.Pod{}, ""); !errors.Is(err, apierr.ErrUnsupportedMediaType) {
		t.Errorf("text: %v", err)
	}
}

func TestDecodeWarns(t *testing.T) {
	for media, want := range map[string]string{api.MediaJSON: `unknown field "spec.foo"`, api.MediaYAML: `unknown field "spec.foo"`} {
		w, err := api.Decode(media, []byte(`{"spec":{"foo":1}}`), podKind(), &corev1.Pod{}, api.ValidateWarn)
		if err != nil || !slices.Equal(w, []string{want}) {
			t.Errorf("%s: %q, %v", media, w, err)
		}
		if w, err := api.Decode(media, []byte(`{"spec":{"foo":1}}`), podKind(), &corev1.Pod{}, api.ValidateIgnore); err != nil || w != nil {
			t.Errorf("%s: %q, %v", media, w, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	all := []string{api.MediaJSON, api.MediaYAML, api.MediaProtobuf}
	f.Add(0, []byte(`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"resources":{"limits":{"cpu":"1e3"}}}]}}`))
	f.Add(1, []byte("a: &a [x]\nb: [*a, *a]\nspec: {nodeName: 1}\n"))
	f.Add(2, api.WrapProtobuf(podKind(), []byte{10, 2, 10, 0}))
	f.Fuzz(func(t *testing.T, n int, body []byte) {
		var pod corev1.Pod
		if _, err := api.Decode(all[uint(n)%3], body, podKind(), &pod, api.ValidateWarn); err != nil {
			return
		}
		if _, err := api.EncodeProtobuf(&pod); err != nil {
			t.Fatal(err)
		}
	})
}
