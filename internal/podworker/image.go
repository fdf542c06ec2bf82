package podworker

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/images"
)

const errImagePull = "ErrImagePull"

// findImage takes an image that is here, or pulls it beside the worker.
func (w *Worker) findImage(ctx context.Context, c *container) error {
	spec := w.spec(c.name)
	ref := spec.Image
	if spec.ImagePullPolicy != corev1.PullAlways {
		if img, ok := w.node.Images.Lookup(ref); ok {
			c.image, c.pullFail = &img, nil
			w.event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", ref))
			return nil
		}
	}
	if spec.ImagePullPolicy == corev1.PullNever {
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", ref)
		c.pullFail = worse(c.pullFail, "ErrImageNeverPull", message, firstBackOff, lastBackOff)
		w.event(corev1.EventTypeWarning, "ErrImageNeverPull", message)
		w.event(corev1.EventTypeWarning, "Failed", "Error: ErrImageNeverPull")
		return nil
	}
	auths := w.pullSecrets(ref)
	c.pulling = true
	w.event(corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", ref))
	began := time.Now()
	w.background(ctx, func(ctx context.Context) func(*Worker) {
		img, err := w.node.Images.Pull(ctx, ref, auths...)
		return func(w *Worker) { w.pulled(c, ref, time.Since(began), img, err) }
	})
	return nil
}

func (w *Worker) pulled(c *container, ref string, took time.Duration, img images.Image, err error) {
	c.pulling = false
	if ref != w.spec(c.name).Image {
		return // another one is wanted by now
	}
	if err == nil {
		c.image, c.pullFail = &img, nil
		took = took.Round(time.Millisecond)
		w.event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %s (%s including waiting). Image size: %d bytes.", ref, took, took, img.Size))
		return
	}
	reason := errImagePull
	if errors.Is(err, images.ErrInvalidName) {
		reason = "InvalidImageName"
	}
	c.pullFail = worse(c.pullFail, reason, err.Error(), firstBackOff, lastBackOff)
	w.event(corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", ref, err))
	w.event(corev1.EventTypeWarning, "Failed", "Error: "+reason)
}

// pullSecrets are the logins for an image's registry that the pod's
// imagePullSecrets hold; those for others stay here.
func (w *Worker) pullSecrets(image string) []images.Auth {
	var out []images.Auth
	for _, ref := range w.pod.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue // its author was warned
		}
		s, ok := w.node.Cluster.Secret(w.pod.Namespace, ref.Name)
		if !ok {
			w.event(corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret", fmt.Sprintf("Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", ref.Name))
			continue
		}
		config, ok := s.Data[corev1.DockerConfigJsonKey]
		if !ok {
			config = s.Data[corev1.DockerConfigKey]
		}
		auths, err := images.Credentials(config, image)
		if err != nil {
			w.event(corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret", fmt.Sprintf("Image pull secret %s: %v", ref.Name, err))
			continue
		}
		out = append(out, auths...)
	}
	return out
}
