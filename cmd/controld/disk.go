package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/daemon"
	"github.com/wherry-project/wherry/internal/events"
	"github.com/wherry-project/wherry/internal/raftstore"
)

// diskNews is what the replica tells of its disk, on its way to an Event.
type diskNews chan raftstore.DiskNews

// maxDiskNews bounds the news that wait; more are in the log only.
const maxDiskNews = 16

func newDiskNews() diskNews { return make(diskNews, maxDiskNews) }

// tell is called by the replica and does not block.
func (n diskNews) tell(news raftstore.DiskNews) {
	select {
	case n <- news:
	default:
	}
}

// tellDisk makes Events of what the replica tells of its disk. They are stored
// when they can be: on a full disk later.
func (d *controld) tellDisk(ctx context.Context) error {
	e := events.New(d.api.As(d.self()), d.api.Kinds(), "controld", d.member.Name, d.log)
	about := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem}}
	tell := daemon.Ready("news", func(ctx context.Context) error {
		for {
			select {
			case news := <-d.disk:
				kind, reason := diskEvent(news)
				e.Event(about, kind, reason, "member "+d.member.Name+": "+news.Message)
			case <-ctx.Done():
				return nil
			}
		}
	})
	return daemon.Run(ctx, d.log, func() {}, daemon.Ready("events", e.Run), tell)
}

func diskEvent(news raftstore.DiskNews) (kind, reason string) {
	switch {
	case news.Full:
		return corev1.EventTypeWarning, "DiskFull"
	case news.Slow:
		return corev1.EventTypeWarning, "DiskSlow"
	}
	return corev1.EventTypeNormal, "DiskWell"
}
