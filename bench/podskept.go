package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// podsKept gives the bytes of controld's memory that each of many pods takes.
func (b *bench) podsKept(ctx context.Context) (per float64, err error) {
	bin, err := copyPrograms(b.bin, b.dir)
	if err != nil {
		return 0, err
	}
	d, err := b.newBed(ctx, 1, 1, bin)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.close(ctx)) }()
	clients, err := d.kubeClients(ctx, apiClients/10)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, clients.close()) }()
	ns := apiSpace + "-pods"
	if _, err := clients.full[0].CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	for { // until the namespace's account is there
		_, err := clients.full[0].CoreV1().ServiceAccounts(ns).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			break
		}
		if err := errors.Join(pause(ctx, 100*time.Millisecond), ctx.Err()); err != nil {
			return 0, err
		}
	}
	create := func(from, to int) error {
		return each(ctx, to-from, func(i int) error {
			_, err := clients.full[i%len(clients.full)].CoreV1().Pods(ns).Create(ctx, benchPod(from+i), metav1.CreateOptions{})
			return err
		})
	}
	measure := func() (int64, error) {
		if err := pause(ctx, settle); err != nil {
			return 0, err
		}
		r, err := d.resident(ctx)
		return r.controld, err
	}
	// The first ones fill what is bounded: caches, the ring of events.
	if err := create(0, apiObjects); err != nil {
		return 0, err
	}
	before, err := measure()
	if err != nil {
		return 0, err
	}
	if err := create(apiObjects, 2*apiObjects); err != nil {
		return 0, err
	}
	after, err := measure()
	return float64(after-before) / apiObjects, err
}

// benchPod is a pod as a Deployment's, which no node takes.
func benchPod(i int) *corev1.Pod {
	app := fmt.Sprintf("web-%03d", i%apiOwners)
	res := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s-5d59d67564-%05d", app, i), GenerateName: app + "-5d59d67564-", Labels: map[string]string{"app": app, "pod-template-hash": "5d59d67564"},
			Annotations: map[string]string{"example.com/about": fmt.Sprintf("%0400d", i)},
		},
		Spec: corev1.PodSpec{
			SchedulingGates: []corev1.PodSchedulingGate{{Name: "example.com/never"}},
			Containers: []corev1.Container{{
				Name: "web", Image: "registry.example.com/team/web:1.2.3", Resources: corev1.ResourceRequirements{Limits: res, Requests: res},
				Env: []corev1.EnvVar{{Name: "A", Value: "some value"}}, Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
			}},
		},
	}
}
