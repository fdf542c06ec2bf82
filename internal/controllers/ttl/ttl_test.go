package ttl

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestLast(t *testing.T) {
	at := func(m int) metav1.Time { return metav1.Time{Time: time.Date(2030, 1, 1, 0, m, 0, 0, time.UTC)} }
	e := &corev1.Event{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(1)}}
	for i, change := range []func(){
		func() {},
		func() { e.LastTimestamp = at(2) },
		func() { e.EventTime = metav1.MicroTime(at(3)) },
		func() { e.Series = &corev1.EventSeries{LastObservedTime: metav1.MicroTime(at(4))} },
	} {
		change()
		if got := last(e); !got.Equal(at(i + 1).Time) {
			t.Errorf("%d: %v", i, got)
		}
	}
}
