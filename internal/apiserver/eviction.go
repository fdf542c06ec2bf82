package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/podstate"
	"github.com/wherry-project/wherry/internal/store"
)

const (
	budgets = "poddisruptionbudgets.policy"
	// maxDisrupted bounds the evictions that a budget has granted and its
	// controller has not seen through.
	maxDisrupted = 2000
	// evictTries bounds how often an eviction is judged again because the pod
	// changed meanwhile.
	evictTries = 20

	violates = "Cannot evict pod as it would violate the pod's disruption budget."
)

// evict deletes a pod unless a disruption budget forbids it.
func (s *Server) evict(ctx context.Context, u api.User, k *api.Kind, t api.Target, obj runtime.Object, o api.WriteOptions) (api.Value, error) {
	e, ok := obj.(*policyv1.Eviction)
	if !ok {
		return api.Value{}, errBody(obj, policyv1.SchemeGroupVersion.WithKind("Eviction"))
	}
	d, err := evictionOptions(e, t, o)
	if err != nil {
		return api.Value{}, err
	}
	for try := 0; ; try++ {
		err := s.evictNow(ctx, u, k, t, d)
		if !errors.Is(err, errPodChanged) {
			if err != nil {
				return api.Value{}, err
			}
			return api.Value{Object: created()}, nil
		}
		if try == evictTries {
			return api.Value{}, apierr.Timeout(fmt.Sprintf("couldn't evict pod %q, which changes all the time", t.Name), 10*time.Second)
		}
		if err := pause(ctx, try); err != nil {
			return api.Value{}, err
		}
	}
}

// errPodChanged says that a pod is not the one any more that was judged.
var errPodChanged = errors.New("the pod changed while it was judged")

// evictionOptions are how the pod is to be deleted.
func evictionOptions(e *policyv1.Eviction, t api.Target, o api.WriteOptions) (metav1.DeleteOptions, error) {
	var d metav1.DeleteOptions
	switch {
	case e.Name != t.Name:
		return d, apierr.BadRequest("name in URL does not match name in Eviction object")
	case e.Namespace != "" && e.Namespace != t.Namespace:
		return d, apierr.BadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	if e.DeleteOptions != nil {
		d = *e.DeleteOptions.DeepCopy()
	}
	if err := checkDelete(d); err != nil {
		return d, err
	}
	var asked []string
	if o.DryRun {
		asked = []string{metav1.DryRunAll}
	}
	if len(d.DryRun) == 0 {
		d.DryRun = asked
	} else if len(asked) > 0 && !slices.Equal(d.DryRun, asked) {
		return d, apierr.BadRequest("Non-matching dry-run options in request and content: %v and %v", asked, d.DryRun)
	}
	return d, nil
}

// evictNow judges the pod as it is now, and deletes it if it may go.
func (s *Server) evictNow(ctx context.Context, u api.User, k *api.Kind, t api.Target, d metav1.DeleteOptions) error {
	snap, err := s.store.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return err
	}
	r, ok := snap.Get(k.Key(t.Namespace, t.Name))
	if !ok {
		return apierr.NotFound(k.KeyResource(), t.Name)
	}
	pod, err := store.Decode[*corev1.Pod](snap, r)
	if err != nil {
		return err
	}
	if err := deletable(k, r, d); err != nil {
		return err
	}
	budget, same, err := s.judge(ctx, u, snap, pod, len(d.DryRun) > 0)
	if err != nil {
		return err
	}
	ours := same && (d.Preconditions == nil || d.Preconditions.ResourceVersion == nil)
	err = s.disrupt(ctx, u, k, t, r, d, same)
	if errors.Is(err, apierr.ErrConflict) && ours {
		if budget != "" {
			return unprocessed(budget)
		}
		return errPodChanged
	}
	return err
}

// judge says whether a pod may go, and counts it where a budget lets it. Same
// says that the answer holds only while the pod stays as it is.
func (s *Server) judge(ctx context.Context, u api.User, snap *store.Snapshot, pod *corev1.Pod, dryRun bool) (budget string, same bool, err error) {
	switch {
	case pod.DeletionTimestamp != nil, done(pod.Status.Phase):
		return "", false, nil
	case pod.Status.Phase == corev1.PodPending:
		return "", true, nil
	}
	pdb, err := budgetOf(snap, pod)
	if pdb == nil || err != nil {
		return "", false, err
	}
	if !podstate.Ready(pod) {
		st, policy := pdb.Status, pdb.Spec.UnhealthyPodEvictionPolicy
		always := policy != nil && *policy == policyv1.AlwaysAllow
		if always || st.CurrentHealthy >= st.DesiredHealthy && st.DesiredHealthy > 0 {
			return pdb.Name, true, nil
		}
	}
	return pdb.Name, false, s.spend(ctx, u, pdb, pod.Name, dryRun)
}

// budgetOf finds the disruption budget of a pod, if it has one.
func budgetOf(snap *store.Snapshot, pod *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	if len(pod.Labels) == 0 {
		return nil, nil
	}
	var found *policyv1.PodDisruptionBudget
	for r := range snap.Scan(budgets, pod.Namespace, api.Key{}) {
		pdb, err := store.Decode[*policyv1.PodDisruptionBudget](snap, r)
		if err != nil {
			return nil, err
		}
		sel, err := metav1.LabelSelectorAsSelector(pdb.Spec.Selector)
		if err != nil || !sel.Matches(labels.Set(pod.Labels)) {
			continue
		}
		if found != nil {
			return nil, apierr.FromStatus(metav1.Status{
				Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError,
				Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
			})
		}
		found = pdb
	}
	return found, nil
}

// spend takes one of the disruptions that a budget allows.
func (s *Server) spend(ctx context.Context, u api.User, pdb *policyv1.PodDisruptionBudget, pod string, dryRun bool) error {
	k, ok := s.Kinds().ByKey(budgets)
	if !ok {
		return apierr.Unavailable("%s are not served by this server", budgets)
	}
	w := write{
		target:  api.Target{Group: k.Group, Version: k.Version, Resource: k.Resource, Namespace: pdb.Namespace, Name: pdb.Name, Subresource: "status"},
		options: api.WriteOptions{DryRun: dryRun},
		change: func(old api.Object) (api.Object, []string, error) {
			now, ok := old.DeepCopyObject().(*policyv1.PodDisruptionBudget)
			if !ok {
				return nil, nil, fmt.Errorf("the budget %s is a %T", pdb.Name, old)
			}
			return now, nil, grant(now, pod, s.timestamp())
		},
	}
	_, err := s.modify(ctx, u, k, w)
	if errors.Is(err, apierr.ErrNotFound) {
		return nil // it is gone, and with it what it forbade
	}
	return err
}

// grant notes in a budget that a pod goes, or says why it may not.
func grant(pdb *policyv1.PodDisruptionBudget, pod string, now metav1.Time) error {
	st := &pdb.Status
	switch {
	case st.ObservedGeneration < pdb.Generation:
		return unprocessed(pdb.Name)
	case st.DisruptionsAllowed < 0:
		return apierr.Forbidden("poddisruptionbudgets.policy", pdb.Name, errors.New("pdb disruptions allowed is negative"))
	case len(st.DisruptedPods) > maxDisrupted:
		return apierr.Forbidden("poddisruptionbudgets.policy", pdb.Name, errors.New("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case st.DisruptionsAllowed == 0:
		return exhausted(pdb)
	}
	st.DisruptionsAllowed--
	if st.DisruptionsAllowed == 0 {
		meta.SetStatusCondition(&st.Conditions, metav1.Condition{
			Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason,
			ObservedGeneration: st.ObservedGeneration, LastTransitionTime: now,
		})
	}
	if st.DisruptedPods == nil {
		st.DisruptedPods = map[string]metav1.Time{}
	}
	st.DisruptedPods[pod] = now
	return nil
}

// exhausted says what a budget lacks.
func exhausted(pdb *policyv1.PodDisruptionBudget) error {
	st := pdb.Status
	text := fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", pdb.Name, st.DesiredHealthy, st.CurrentHealthy)
	if c := meta.FindStatusCondition(st.Conditions, policyv1.DisruptionAllowedCondition); c != nil && c.Status == metav1.ConditionFalse && c.Reason == policyv1.SyncFailedReason {
		text = fmt.Sprintf("The disruption budget %s does not allow evicting pods currently because it failed sync: %v", pdb.Name, c.Message)
	}
	return disruption(text, 0)
}

// unprocessed says that a budget's status is not that of its spec yet.
func unprocessed(name string) error {
	return disruption(fmt.Sprintf("The disruption budget %s is still being processed by the server.", name), 10*time.Second)
}

func disruption(cause string, after time.Duration) error {
	st := apierr.StatusOf(apierr.TooManyRequests(violates, after))
	st.Details.Causes = append(st.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: cause})
	return apierr.FromStatus(st)
}

// disrupt notes in a pod why it goes, and deletes it.
func (s *Server) disrupt(ctx context.Context, u api.User, k *api.Kind, t api.Target, r *api.Record, d metav1.DeleteOptions, same bool) error {
	if same && d.Preconditions == nil {
		d.Preconditions = &metav1.Preconditions{}
	}
	if same {
		rv := r.ResourceVersion()
		d.Preconditions.ResourceVersion = cmp.Or(d.Preconditions.ResourceVersion, &rv)
	}
	if len(d.DryRun) > 0 {
		_, err := s.delete(ctx, u, k, t, d)
		return err
	}
	t.Subresource = "status"
	v, err := s.modify(ctx, u, k, write{target: t, change: func(old api.Object) (api.Object, []string, error) {
		pod := old.DeepCopyObject().(*corev1.Pod)
		if d.Preconditions != nil {
			if rv := d.Preconditions.ResourceVersion; rv != nil {
				pod.ResourceVersion = *rv
			}
		}
		uid := types.UID(r.UID)
		if d.Preconditions != nil && d.Preconditions.UID != nil {
			uid = *d.Preconditions.UID
		}
		pod.UID = uid
		podstate.SetCondition(pod, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
			ObservedGeneration: pod.Generation, LastTransitionTime: s.timestamp(),
		})
		return pod, nil, nil
	}})
	if err != nil {
		return err
	}
	if d.Preconditions != nil && d.Preconditions.ResourceVersion != nil {
		rv := v.Record.ResourceVersion()
		d.Preconditions.ResourceVersion = &rv
	}
	t.Subresource = ""
	_, err = s.delete(ctx, u, k, t, d)
	return err
}
