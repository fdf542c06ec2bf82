package apiserver

import (
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	listvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// Every front end hands its options through here, so that all refuse the same.

func invalidOptions(kind string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierr.Invalid(kind+".meta.k8s.io", "", errs)
}

func checkList(o api.ListOptions) error {
	err := invalidOptions("ListOptions", listvalidation.ValidateListOptions(&internalversion.ListOptions{
		ResourceVersion: o.ResourceVersion, ResourceVersionMatch: o.ResourceVersionMatch, Continue: o.Continue,
	}, true))
	switch {
	case err != nil:
		return err
	case o.Limit < 0:
		return apierr.BadRequest("limit must not be negative")
	case o.Continue != "" && o.ResourceVersion != "" && o.ResourceVersion != "0":
		return apierr.BadRequest("specifying resource version is not allowed when using continue")
	}
	return nil
}

func checkWatch(o api.WatchOptions) error {
	return invalidOptions("ListOptions", listvalidation.ValidateListOptions(&internalversion.ListOptions{
		Watch: true, ResourceVersion: o.ResourceVersion, ResourceVersionMatch: o.ResourceVersionMatch, SendInitialEvents: o.SendInitialEvents,
	}, true))
}

func checkCreate(o api.WriteOptions) error {
	return invalidOptions("CreateOptions", metavalidation.ValidateCreateOptions(&metav1.CreateOptions{
		FieldManager: o.FieldManager, FieldValidation: o.FieldValidation,
	}))
}

func checkUpdate(o api.WriteOptions) error {
	return invalidOptions("UpdateOptions", metavalidation.ValidateUpdateOptions(&metav1.UpdateOptions{
		FieldManager: o.FieldManager, FieldValidation: o.FieldValidation,
	}))
}

func checkPatch(o api.WriteOptions, pt types.PatchType) error {
	opts := metav1.PatchOptions{FieldManager: o.FieldManager, FieldValidation: o.FieldValidation}
	if o.Force {
		opts.Force = &o.Force
	}
	return invalidOptions("PatchOptions", metavalidation.ValidatePatchOptions(&opts, pt))
}

func checkDelete(o metav1.DeleteOptions) error {
	return invalidOptions("DeleteOptions", metavalidation.ValidateDeleteOptions(&o))
}
