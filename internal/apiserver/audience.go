package apiserver

import (
	"errors"
	"fmt"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/store"
)

// podAudience keeps a node to audiences that a volume of the pod is for: with a
// token for any other it could pass for the pod where the pod itself does not
// go. RBAC may let nodes ask for more.
func (s *Server) podAudience(snap *store.Snapshot, u api.User, t api.Target, r *authenticationv1.TokenRequest, pod *corev1.Pod) error {
	want := ""
	switch len(r.Spec.Audiences) {
	case 0:
	case 1:
		want = r.Spec.Audiences[0]
	default:
		return errors.New("node may only request 0 or 1 audiences")
	}
	for _, v := range pod.Spec.Volumes {
		ok, err := volumeIsFor(snap, pod, v, want)
		if err != nil {
			return fmt.Errorf("error validating audience %q: %w", want, err)
		}
		if ok {
			return nil
		}
	}
	ask := api.Target{Version: "v1", Resource: want, Namespace: t.Namespace, Name: t.Name}
	if ok, _ := s.authz.Decide(authz.Attributes{User: u, Verb: "request-serviceaccounts-token-audience", Target: ask}); ok {
		return nil
	}
	return fmt.Errorf("audience %q not found in pod spec volume, %s is not authorized to request tokens for this audience", want, u.Name)
}

// volumeIsFor reports whether a volume needs a token for an audience: a
// projected one itself, others by their storage driver.
func volumeIsFor(snap *store.Snapshot, pod *corev1.Pod, v corev1.Volume, audience string) (bool, error) {
	switch {
	case v.Projected != nil:
		return slices.ContainsFunc(v.Projected.Sources, func(p corev1.VolumeProjection) bool {
			return p.ServiceAccountToken != nil && p.ServiceAccountToken.Audience == audience
		}), nil
	case v.CSI != nil:
		return driverAsks(snap, v.CSI.Driver, audience)
	case v.Ephemeral != nil:
		return claimIsFor(snap, pod.Namespace, pod.Name+"-"+v.Name, audience)
	case v.PersistentVolumeClaim != nil:
		return claimIsFor(snap, pod.Namespace, v.PersistentVolumeClaim.ClaimName, audience)
	}
	return false, nil
}

// claimIsFor follows a claim to its volume's driver; what is not there asks for
// nothing.
func claimIsFor(snap *store.Snapshot, namespace, name, audience string) (bool, error) {
	claim, err := store.Get[*corev1.PersistentVolumeClaim](snap, api.Key{Resource: "persistentvolumeclaims", Namespace: namespace, Name: name})
	if err != nil || claim.Spec.VolumeName == "" {
		return false, unlessGone(err)
	}
	volume, err := store.Get[*corev1.PersistentVolume](snap, api.Key{Resource: "persistentvolumes", Name: claim.Spec.VolumeName})
	if err != nil || volume.Spec.CSI == nil {
		return false, unlessGone(err)
	}
	return driverAsks(snap, volume.Spec.CSI.Driver, audience)
}

// driverAsks reports whether a storage driver is to get tokens for an audience.
func driverAsks(snap *store.Snapshot, driver, audience string) (bool, error) {
	d, err := store.Get[*storagev1.CSIDriver](snap, api.Key{Resource: "csidrivers.storage.k8s.io", Name: driver})
	if err != nil {
		return false, unlessGone(err)
	}
	return slices.ContainsFunc(d.Spec.TokenRequests, func(r storagev1.TokenRequest) bool { return r.Audience == audience }), nil
}

func unlessGone(err error) error {
	if errors.Is(err, apierr.ErrNotFound) {
		return nil
	}
	return err
}
