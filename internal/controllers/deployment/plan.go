package deployment

import (
	"fmt"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/wherry-project/wherry/internal/podstate"
)

// state is what a plan is made from. It is shared and not modified.
type state struct {
	deployment *appsv1.Deployment
	// sets are the ReplicaSets that the deployment controls.
	sets []*appsv1.ReplicaSet
	// pods gives the pods of a ReplicaSet; only Recreate asks.
	pods func(rs *appsv1.ReplicaSet) ([]*corev1.Pod, error)
	now  time.Time
}

// scaling is a change of a ReplicaSet's size, for Events.
type scaling struct {
	set      string
	from, to int32
}

// actions are what brings a deployment one step on.
type actions struct {
	create *appsv1.ReplicaSet
	update []*appsv1.ReplicaSet
	remove []*appsv1.ReplicaSet
	scaled []scaling
	// annotations of the deployment, if they must change.
	annotations map[string]string
	status      appsv1.DeploymentStatus
	again       time.Duration
}

// planner makes a plan: it works on copies, which all later steps see.
type planner struct {
	state
	d    *appsv1.Deployment
	all  []*appsv1.ReplicaSet // copies, oldest first
	old  []*appsv1.ReplicaSet
	new  *appsv1.ReplicaSet // nil if there is none yet
	made bool               // new is to be created
	do   actions
}

// plan computes what to do now. It is a pure function of the state.
func plan(s state) (actions, error) {
	p := &planner{state: s, d: s.deployment.DeepCopy()}
	for _, rs := range s.sets {
		p.all = append(p.all, rs.DeepCopy())
	}
	slices.SortFunc(p.all, byAge)
	for _, rs := range p.all {
		if p.new == nil && sameTemplate(&rs.Spec.Template, &p.d.Spec.Template) {
			p.new = rs
		} else {
			p.old = append(p.old, rs)
		}
	}
	if err := p.step(); err != nil {
		return actions{}, err
	}
	p.collect()
	return p.do, nil
}

// step does what the deployment's situation asks for.
func (p *planner) step() error {
	if p.d.DeletionTimestamp != nil {
		p.status(false)
		return nil
	}
	p.notePause()
	switch {
	case p.d.Spec.Paused:
		p.keepRevision()
		p.scale()
		p.cleanUp()
		p.status(false)
		return nil
	case p.resized() && (rolling(p.d) || p.only() != nil):
		p.keepRevision()
		p.scale()
		p.status(false)
		return nil
	case rolling(p.d):
		if err := p.ensureNew(); err != nil {
			return err
		}
		p.roll()
	default:
		if err := p.recreate(); err != nil {
			return err
		}
	}
	if p.complete(&p.d.Status) {
		p.cleanUp()
	}
	p.status(true)
	return nil
}

// resized reports whether the deployment was scaled since its ReplicaSets were.
func (p *planner) resized() bool {
	for _, rs := range active(p.all) {
		if n, ok := annotated(rs, desiredKey); ok && n != number(p.d.Spec.Replicas) {
			return true
		}
	}
	return false
}

func active(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	var out []*appsv1.ReplicaSet
	for _, rs := range sets {
		if number(rs.Spec.Replicas) > 0 {
			out = append(out, rs)
		}
	}
	return out
}

// newest is the revision that the current template has to have.
func (p *planner) newest() int64 {
	n := int64(0)
	for _, rs := range p.old {
		n = max(n, revision(rs))
	}
	return n + 1
}

// keepRevision brings the annotations of an existing new ReplicaSet up to date.
func (p *planner) keepRevision() {
	if p.new == nil {
		return
	}
	annotate(p.new, p.d, p.newest())
	p.new.Spec.MinReadySeconds = p.d.Spec.MinReadySeconds
	p.tellRevision()
	if progressing(&p.d.Status) == nil && tracksProgress(p.d) {
		p.progress(corev1.ConditionTrue, "FoundNewReplicaSet", fmt.Sprintf("Found new replica set %q", p.new.Name))
	}
}

// ensureNew makes the ReplicaSet of the current template if there is none.
func (p *planner) ensureNew() error {
	if p.new != nil {
		p.keepRevision()
		return nil
	}
	rs, err := fresh(p.d, p.newest())
	if err != nil {
		return err
	}
	p.new, p.made = rs, true
	p.all = append(p.all, rs)
	p.tellRevision()
	if tracksProgress(p.d) {
		p.progress(corev1.ConditionTrue, "NewReplicaSetCreated", fmt.Sprintf("Created new replica set %q", rs.Name))
	}
	return nil
}

// tellRevision lets the deployment carry the new ReplicaSet's revision.
func (p *planner) tellRevision() {
	want := p.new.Annotations[revisionKey]
	if p.d.Annotations[revisionKey] == want {
		return
	}
	p.do.annotations = maps.Clone(p.d.Annotations)
	if p.do.annotations == nil {
		p.do.annotations = map[string]string{}
	}
	p.do.annotations[revisionKey] = want
}

// resize gives a ReplicaSet another size.
func (p *planner) resize(rs *appsv1.ReplicaSet, to int32) {
	from := number(rs.Spec.Replicas)
	rs.Spec.Replicas = &to
	annotateSize(rs, p.d)
	if from != to {
		p.do.scaled = append(p.do.scaled, scaling{rs.Name, from, to})
	}
}

// sizes sums what the ReplicaSets are told to have.
func sizes(sets []*appsv1.ReplicaSet) int32 {
	n := int32(0)
	for _, rs := range sets {
		n += number(rs.Spec.Replicas)
	}
	return n
}

// settled reports whether the ReplicaSet controller has seen the size that a
// ReplicaSet has now: only then does its status speak of it.
func settled(rs *appsv1.ReplicaSet) bool { return rs.Status.ObservedGeneration >= rs.Generation }

// population is how many pods a ReplicaSet has, or will have made.
func population(rs *appsv1.ReplicaSet) int32 {
	return max(number(rs.Spec.Replicas), rs.Status.Replicas)
}

// lasting is how many available pods a ReplicaSet will keep. Of one that has
// not been seen to obey nothing is known: it may just be deleting pods that a
// newer size would keep.
func lasting(rs *appsv1.ReplicaSet) int32 {
	if !settled(rs) {
		return 0
	}
	return min(number(rs.Spec.Replicas), rs.Status.AvailableReplicas)
}

// room is how many more pods one ReplicaSet may have beside the others. Pods
// that a ReplicaSet was told to give up count until they are gone, and while
// one has not been seen to obey nothing grows: so the bound holds at any time.
func (p *planner) room(grows *appsv1.ReplicaSet) int32 {
	surge, _ := limits(p.d)
	total := int32(0)
	for _, rs := range p.all {
		if !settled(rs) {
			return 0
		}
		total += population(rs)
	}
	most := number(p.d.Spec.Replicas) + surge
	return max(0, min(most-total, number(p.d.Spec.Replicas)-number(grows.Spec.Replicas)))
}

// roll does the next step of a rolling update: the new ReplicaSet grows as far
// as the surge allows, and the old ones shrink as far as availability does.
func (p *planner) roll() {
	size, want := number(p.new.Spec.Replicas), number(p.d.Spec.Replicas)
	switch room := p.room(p.new); {
	case size > want:
		p.resize(p.new, want)
	case room > 0 || p.made: // it is made with its annotations even if empty
		p.resize(p.new, size+room)
	}
	p.shrinkOld()
}

// shrinkOld scales the old ReplicaSets down: first pods that are not available,
// which nobody misses, then available ones down to the least allowed.
func (p *planner) shrinkOld() {
	old := active(p.old)
	if len(old) == 0 {
		return
	}
	_, unavailable := limits(p.d)
	least := number(p.d.Spec.Replicas) - unavailable
	missing := number(p.new.Spec.Replicas) - lasting(p.new)
	budget := sizes(p.all) - least - missing
	if budget <= 0 {
		return
	}
	for _, rs := range old {
		if n := min(budget, number(rs.Spec.Replicas)-lasting(rs)); n > 0 && settled(rs) {
			p.resize(rs, number(rs.Spec.Replicas)-n)
			budget -= n
		}
	}
	available := int32(0)
	for _, rs := range p.all {
		available += lasting(rs)
	}
	budget = min(budget, available-least)
	for _, rs := range old {
		if n := min(budget, number(rs.Spec.Replicas)); n > 0 {
			p.resize(rs, number(rs.Spec.Replicas)-n)
			budget -= n
		}
	}
}

// recreate empties the old ReplicaSets, waits until none of their pods runs,
// and fills the new one.
func (p *planner) recreate() error {
	p.keepRevision()
	if old := active(p.old); len(old) > 0 {
		for _, rs := range old {
			p.resize(rs, 0)
		}
		return nil
	}
	for _, rs := range p.old {
		if !settled(rs) {
			return nil
		}
		pods, err := p.pods(rs)
		if err != nil {
			return err
		}
		for _, pod := range pods {
			if !podstate.Done(pod) {
				return nil
			}
		}
	}
	if err := p.ensureNew(); err != nil {
		return err
	}
	if p.made || number(p.new.Spec.Replicas) != number(p.d.Spec.Replicas) {
		p.resize(p.new, number(p.d.Spec.Replicas))
	}
	return nil
}

// scale follows a change of the deployment's size without a rollout.
func (p *planner) scale() {
	want := number(p.d.Spec.Replicas)
	if only := p.only(); only != nil {
		p.follow(only, want)
		return
	}
	if p.saturated() {
		for _, rs := range active(p.old) {
			p.resize(rs, 0)
		}
		return
	}
	if !rolling(p.d) {
		return
	}
	now := active(p.all)
	most := int32(0)
	if want > 0 {
		surge, _ := limits(p.d)
		most = want + surge
	}
	more := most - sizes(now)
	if more > 0 && !p.quiet() {
		return // their next status brings us back
	}
	shares := proportions(p.d, now, more)
	for _, rs := range now {
		p.resize(rs, shares[rs.Name])
	}
}

// follow gives the only active ReplicaSet the deployment's size, or as much of
// it as there is room for while others still have pods.
func (p *planner) follow(only *appsv1.ReplicaSet, want int32) {
	size := number(only.Spec.Replicas)
	if want <= size {
		p.resize(only, want)
		return
	}
	if room := p.room(only); room > 0 {
		p.resize(only, size+room)
	}
}

// quiet reports whether every ReplicaSet has given up what it was told to.
func (p *planner) quiet() bool {
	for _, rs := range p.all {
		if !settled(rs) || population(rs) > number(rs.Spec.Replicas) {
			return false
		}
	}
	return true
}

// only gives the ReplicaSet that simply has the deployment's size: the only
// active one, or when none is the new or else the newest.
func (p *planner) only() *appsv1.ReplicaSet {
	switch now := active(p.all); {
	case len(now) == 1:
		return now[0]
	case len(now) > 1:
		return nil
	case p.new != nil:
		return p.new
	case len(p.old) > 0:
		return p.old[len(p.old)-1]
	}
	return nil
}

// saturated reports whether the new ReplicaSet has all that is wanted.
func (p *planner) saturated() bool {
	if p.new == nil {
		return false
	}
	want := number(p.d.Spec.Replicas)
	desired, ok := annotated(p.new, desiredKey)
	return ok && desired == want && number(p.new.Spec.Replicas) == want && p.new.Status.AvailableReplicas == want
}

// cleanUp removes old ReplicaSets beyond the history that is kept.
func (p *planner) cleanUp() {
	if p.d.Spec.RevisionHistoryLimit == nil {
		return
	}
	var alive []*appsv1.ReplicaSet
	for _, rs := range p.old {
		if rs.DeletionTimestamp == nil {
			alive = append(alive, rs)
		}
	}
	extra := len(alive) - int(*p.d.Spec.RevisionHistoryLimit)
	if extra <= 0 {
		return
	}
	slices.SortStableFunc(alive, func(a, b *appsv1.ReplicaSet) int { return int(revision(a) - revision(b)) })
	for _, rs := range alive[:extra] {
		if rs.Status.Replicas == 0 && number(rs.Spec.Replicas) == 0 && settled(rs) {
			p.do.remove = append(p.do.remove, rs)
		}
	}
}

// collect finds what came to differ from what there is.
func (p *planner) collect() {
	for _, rs := range p.all {
		if p.made && rs == p.new {
			p.do.create = rs
			continue
		}
		for _, was := range p.sets {
			if was.UID == rs.UID && !equality.Semantic.DeepEqual(was, rs) {
				p.do.update = append(p.do.update, rs)
			}
		}
	}
}
