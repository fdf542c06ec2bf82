package apierr_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/apierr"
)

func TestInvalidTellsSoMany(t *testing.T) {
	var errs field.ErrorList
	for i := range 5000 {
		errs = append(errs, field.Required(field.NewPath("spec").Index(i), ""))
	}
	st := apierr.StatusOf(apierr.Invalid("Pod", "p", errs))
	if n := len(st.Details.Causes); n != 201 || !strings.Contains(st.Message, "and 4800 errors more") {
		t.Errorf("%d causes, %.100s … %s", n, st.Message, st.Message[len(st.Message)-100:])
	}
	if len(errs) != 5000 || errs[200].Field != "spec[200]" {
		t.Error("the list was changed")
	}
}
