package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/testimage"
	"github.com/wherry-project/wherry/internal/testkit"
)

// clear ends what still runs on the machine.
func (c *cluster) clear() {
	rt := c.m.Open()
	defer rt.Close()
	list, err := rt.List(context.Background())
	if err != nil {
		c.t.Error(err)
	}
	for _, sb := range list {
		if err := rt.RemoveSandbox(context.Background(), sb.ID); err != nil {
			c.t.Error(err)
		}
	}
}

func (c *cluster) create(o api.Object) api.Object {
	c.t.Helper()
	out, err := c.api.As(masters).Create(c.t.Context(), o)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// pod makes a pod that is bound to the node.
func (c *cluster) pod(name string, args ...string) *corev1.Pod {
	c.t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name}}
	p.Spec.Containers = []corev1.Container{{Name: "a", Image: "example.test/tool:1", Command: args}}
	return c.bound(p)
}

func (c *cluster) bound(p *corev1.Pod) *corev1.Pod {
	c.t.Helper()
	made := c.create(p).(*corev1.Pod)
	if err := c.api.As(masters).Bind(c.t.Context(), made, "n1"); err != nil {
		c.t.Fatal(err)
	}
	return made
}

func (c *cluster) get(name string) (*corev1.Pod, error) {
	snap, err := c.store.Snapshot(c.t.Context(), store.At{Level: store.Any})
	if err != nil {
		return nil, err
	}
	return store.Get[*corev1.Pod](snap, api.Key{Resource: "pods", Namespace: "demo", Name: name})
}

func (c *cluster) eventually(what func() error) {
	c.t.Helper()
	testkit.Eventually(c.t, within, what)
}

// is waits for a pod's phase and readiness.
func (c *cluster) is(name string, phase corev1.PodPhase, ready bool) *corev1.Pod {
	c.t.Helper()
	var p *corev1.Pod
	c.eventually(func() (err error) {
		if p, err = c.get(name); err != nil {
			return err
		}
		is := false
		for _, one := range p.Status.Conditions {
			is = is || one.Type == corev1.PodReady && one.Status == corev1.ConditionTrue
		}
		if p.Status.Phase != phase || is != ready {
			return fmt.Errorf("pod %s is %s, ready %v: %+v", name, p.Status.Phase, is, p.Status.ContainerStatuses)
		}
		return nil
	})
	return p
}

func (c *cluster) remove(name string) {
	c.t.Helper()
	if err := c.api.As(masters).Delete(c.t.Context(), api.Key{Resource: "pods", Namespace: "demo", Name: name}, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) gone(name string) {
	c.t.Helper()
	c.eventually(func() error {
		if p, err := c.get(name); !errors.Is(err, apierr.ErrNotFound) {
			return fmt.Errorf("pod %s: %v, %w", name, p, err)
		}
		return nil
	})
}

// load imports the test's image through a member.
func (c *cluster) load() {
	c.t.Helper()
	img, err := testimage.Build(testimage.Spec{Layers: []testimage.Layer{{{Name: "etc/motd", Body: []byte("hello")}}}})
	if err != nil {
		c.t.Fatal(err)
	}
	var tar bytes.Buffer
	if err := testimage.WriteDocker(&tar, map[string]*testimage.Image{"example.test/tool:1": img}); err != nil {
		c.t.Fatal(err)
	}
	stream, err := wherryv1.NewImagesClient(c.client(0)).ImportImages(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for b := tar.Bytes(); len(b) > 0; {
		n := min(len(b), 1000)
		if err := stream.Send(&wherryv1.ImportImagesRequest{Data: b[:n]}); err != nil {
			break // the answer says why
		}
		b = b[n:]
	}
	got, err := stream.CloseAndRecv()
	if err != nil {
		c.t.Fatal(err)
	}
	if len(got.GetImages()) != 1 || got.GetImages()[0].GetNode() != "n1" || got.GetImages()[0].GetTags()[0] != "example.test/tool:1" {
		c.t.Errorf("imported %v", got)
	}
}

func (c *cluster) client(n int) *grpc.ClientConn {
	c.t.Helper()
	conn, err := grpc.NewClient(c.controls[n].addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(apierr.ClientUnary), grpc.WithStreamInterceptor(apierr.ClientStream))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	return conn
}
