package apiserver

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// componentWait bounds how long the parts are waited for.
const componentWait = 3 * time.Second

// components serves componentstatuses: the parts of the control plane by the
// names that Kubernetes gives them. All run in controld, controllers and
// scheduler on the leader: they are well if the leader confirms with a majority
// that it is the leader.
func (s *Server) components() Virtual {
	names := []string{"controller-manager", "etcd-0", "scheduler"}
	return Virtual{
		Get: func(ctx context.Context, _ api.User, t api.Target) (api.Object, error) {
			for _, name := range names {
				if name == t.Name {
					return s.component(ctx, name), nil
				}
			}
			return nil, apierr.NotFound("componentstatuses", t.Name)
		},
		List: func(ctx context.Context, _ api.User, _ api.Target, _ api.Selection) ([]api.Object, error) {
			out := make([]api.Object, len(names))
			first := s.component(ctx, names[0])
			for i, name := range names {
				c := first.DeepCopy()
				c.Name = name
				out[i] = c
			}
			return out, nil
		},
	}
}

func (s *Server) component(ctx context.Context, name string) *corev1.ComponentStatus {
	ctx, cancel := context.WithTimeout(ctx, componentWait)
	defer cancel()
	c := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
	if _, err := s.store.Snapshot(ctx, store.At{Level: store.Linearizable}); err != nil {
		c.Status, c.Message, c.Error = corev1.ConditionFalse, "", err.Error()
	}
	return &corev1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: name}, Conditions: []corev1.ComponentCondition{c}}
}
