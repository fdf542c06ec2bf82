package owner

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

func TestClaim(t *testing.T) {
	deleted := &metav1.Time{}
	pod := func(name, app string, controller types.UID) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, Labels: map[string]string{"app": app}}}
		if controller != "" {
			yes := true
			p.OwnerReferences = []metav1.OwnerReference{{UID: controller, Controller: &yes}}
		}
		return p
	}
	orphan := pod("deleted-orphan", "web", "")
	orphan.DeletionTimestamp = deleted
	far := pod("elsewhere", "web", "")
	far.Namespace = "b"
	all := []*corev1.Pod{pod("mine", "web", "me"), pod("stray", "db", "me"), pod("orphan", "web", ""), pod("other-orphan", "db", ""), pod("others", "web", "you"), orphan, far}
	selector := labels.SelectorFromSet(labels.Set{"app": "web"})
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "a", UID: "me"}}
	show := func(c Claim[*corev1.Pod]) string {
		var parts []string
		for _, list := range [][]*corev1.Pod{c.Mine, c.Adopt, c.Release} {
			var names []string
			for _, p := range list {
				names = append(names, p.Name)
			}
			parts = append(parts, strings.Join(names, " "))
		}
		return strings.Join(parts, "|")
	}
	if got := show(Of(rs, selector, all)); got != "mine|orphan|stray" {
		t.Error(got)
	}
	rs.DeletionTimestamp = deleted
	if got := show(Of(rs, selector, all)); got != "mine||" {
		t.Errorf("one that is being deleted claims %s", got)
	}
}

func TestDrop(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{UID: "a"}, {UID: "b"}}}}
	if Drop(p, "c") || !Drop(p, "a") || len(p.OwnerReferences) != 1 || p.OwnerReferences[0].UID != "b" {
		t.Error(p.OwnerReferences)
	}
}
