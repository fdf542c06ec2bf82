package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// giveKubeconfig copies the admin's kubeconfig from the first control to the
// client, with the one server name of all controls in it.
func (t *Testbed) giveKubeconfig(from string) error {
	b, err := t.ReadFile(from, adminKubeconfig)
	if err != nil {
		return fmt.Errorf("read the admin's kubeconfig on %s: %w", from, err)
	}
	c, err := clientcmd.Load(b)
	if err != nil {
		return fmt.Errorf("read the admin's kubeconfig: %w", err)
	}
	for _, cluster := range c.Clusters {
		cluster.Server = "https://" + net.JoinHostPort(ServerName, httpsPort)
	}
	if b, err = clientcmd.Write(*c); err != nil {
		return err
	}
	return t.WriteFile(Client, kubeconfig, b, 0o600)
}

// Kubeconfig returns the admin's kubeconfig, as on the client.
func (t *Testbed) Kubeconfig() ([]byte, error) { return t.ReadFile(Client, kubeconfig) }

// RESTConfig is for a Kubernetes client in this process that speaks from the
// given host, as the admin. server is an address to speak to, or "" for
// ServerName.
func (t *Testbed) RESTConfig(host, server string) (*rest.Config, error) {
	b, err := t.Kubeconfig()
	if err != nil {
		return nil, err
	}
	c, err := clientcmd.RESTConfigFromKubeConfig(b)
	if err != nil {
		return nil, err
	}
	if server != "" {
		c.Host = "https://" + net.JoinHostPort(server, httpsPort)
	}
	c.QPS = -1 // no limit of the client's own
	c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return t.Dial(ctx, host, network, address)
	}
	return c, nil
}

// AwaitNodes waits until the Kubernetes API shows the nodes as Ready.
func (t *Testbed) AwaitNodes(ctx context.Context, names ...string) error {
	s, err := t.readState()
	if err != nil {
		return err
	}
	t.progress("wait until " + strings.Join(names, ", ") + " are Ready")
	c, err := t.RESTConfig(Client, "")
	if err != nil {
		return err
	}
	kube, err := kubernetes.NewForConfig(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.ReadyTimeout)
	defer cancel()
	w := nodeWait{left: slices.Clone(names), said: map[string]string{}}
	for !w.done() {
		err := w.watch(ctx, kube)
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("nodes %s are not Ready after %v: %v", strings.Join(w.left, ", "), s.ReadyTimeout, w.said), err)
		}
		if err != nil { // the API may be between two leaders
			w.said["the API"] = err.Error()
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// nodeWait follows nodes until none is left that is not Ready.
type nodeWait struct {
	left []string
	said map[string]string // what the Ready condition of each said last
}

func (w *nodeWait) done() bool { return len(w.left) == 0 }

// watch returns when all are Ready, or when the watch ends.
func (w *nodeWait) watch(ctx context.Context, kube kubernetes.Interface) error {
	list, err := kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range list.Items {
		w.see(&list.Items[i])
	}
	if w.done() {
		return nil
	}
	events, err := kube.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return err
	}
	defer events.Stop()
	for e := range events.ResultChan() {
		if n, ok := e.Object.(*corev1.Node); ok {
			w.see(n)
		}
		if w.done() {
			return nil
		}
	}
	return ctx.Err()
}

func (w *nodeWait) see(n *corev1.Node) {
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		w.said[n.Name] = c.Reason + ": " + c.Message
		if c.Status == corev1.ConditionTrue {
			w.left = slices.DeleteFunc(w.left, func(name string) bool { return name == n.Name })
		}
	}
}
