package podworker

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/runtime"
)

const (
	maxMessage     = 4096
	maxLogMessage  = 2048
	maxLogLines    = 80
	terminationDir = "termination"
)

// writeFiles makes the files that all containers of the pod get.
func (w *Worker) writeFiles() error {
	dir := filepath.Join(w.dir(), "etc")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the pod's folder: %w", err)
	}
	resolv, warnings := w.node.Cluster.ResolvConf(w.pod)
	for _, m := range warnings {
		w.event(corev1.EventTypeWarning, "DNSConfigForming", m)
	}
	var addresses []netip.Addr
	if w.state.address.IsValid() {
		addresses = append(addresses, w.state.address)
	}
	files := map[string]string{
		"resolv.conf": resolv,
		"hosts":       w.node.Cluster.Hosts(w.pod, addresses),
		"hostname":    w.hostname() + "\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil { //nolint:gosec // every program in the pod reads them
			return fmt.Errorf("write the pod's %s: %w", name, err)
		}
	}
	return nil
}

// fileMounts are the mounts of those files, unless the container has its own.
func (w *Worker) fileMounts(spec *corev1.Container) []runtime.Mount {
	var out []runtime.Mount
	for _, name := range []string{"resolv.conf", "hosts", "hostname"} {
		target := "/etc/" + name
		if !mounts(spec, target) {
			out = append(out, runtime.Mount{Source: filepath.Join(w.dir(), "etc", name), Target: target})
		}
	}
	return out
}

func mounts(spec *corev1.Container, target string) bool {
	for _, m := range spec.VolumeMounts {
		if m.MountPath == target {
			return true
		}
	}
	return false
}

func (w *Worker) hostname() string {
	if w.pod.Spec.HostNetwork {
		return w.node.Name
	}
	if h := w.pod.Spec.Hostname; h != "" {
		return h
	}
	return strings.TrimRight(w.pod.Name[:min(len(w.pod.Name), 63)], "-.")
}

// terminationMount is the file in which a container leaves its last words.
func (w *Worker) terminationMount(spec *corev1.Container, id string) (runtime.Mount, error) {
	file := w.terminationFile(id)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return runtime.Mount{}, fmt.Errorf("make the folder of termination messages: %w", err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return runtime.Mount{}, fmt.Errorf("make the termination message: %w", err)
	}
	if err := f.Chmod(0o666); err != nil { // any user of the image writes it
		f.Close()
		return runtime.Mount{}, fmt.Errorf("make the termination message: %w", err)
	}
	if err := f.Close(); err != nil {
		return runtime.Mount{}, fmt.Errorf("make the termination message: %w", err)
	}
	return runtime.Mount{Source: file, Target: spec.TerminationMessagePath}, nil
}

func (w *Worker) terminationFile(id string) string {
	return filepath.Join(w.dir(), terminationDir, id)
}

// terminationMessage reads a run's last words: its file, or for those who want
// it the end of the log of a run that failed.
func (w *Worker) terminationMessage(spec *corev1.Container, r *run) string {
	b, err := os.ReadFile(w.terminationFile(r.ID))
	if err == nil && len(b) > 0 {
		return string(b[:min(len(b), maxMessage)])
	}
	if spec.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError || r.ExitCode == 0 {
		return ""
	}
	log, err := os.ReadFile(r.LogPath)
	if err != nil {
		return ""
	}
	return lastWords(string(log))
}

// lastWords are the end of a log in CRI form, without the form.
func lastWords(log string) string {
	lines := strings.Split(strings.TrimRight(log, "\n"), "\n")
	lines = lines[max(0, len(lines)-maxLogLines):]
	var b strings.Builder
	for _, l := range lines {
		parts := strings.SplitN(l, " ", 4) // time, stream, F or P, text
		if len(parts) == 4 {
			b.WriteString(parts[3])
			if parts[2] == "F" {
				b.WriteByte('\n')
			}
		}
	}
	text := b.String()
	return text[max(0, len(text)-maxLogMessage):]
}
