package podworker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/dns"
	"github.com/wherry-project/wherry/internal/runtime"
)

const (
	maxMessage     = 4096
	maxLogMessage  = 2048
	maxLogLines    = 80
	maxLogTail     = 64 << 10 // of a log that is looked at for its last lines
	maxHostname    = 63
	maxFQDN        = 64
	terminationDir = "termination"
	// statusFile keeps the last status; it begins with its format.
	statusFile   = "status"
	statusFormat = 1
)

// keepStatus keeps a status for a successor; durable says that it must outlive
// a power cut.
func (w *Worker) keepStatus(st *corev1.PodStatus, durable bool) (err error) {
	b, err := st.Marshal()
	if err != nil {
		return fmt.Errorf("keep the pod's status: %w", err)
	}
	if err := os.MkdirAll(w.dir(), 0o755); err != nil { //nolint:gosec // its etc is the pod's
		return fmt.Errorf("keep the pod's status: %w", err)
	}
	name := filepath.Join(w.dir(), statusFile)
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep the pod's status: %w", err)
	}
	_, err = f.Write(append([]byte{statusFormat}, b...))
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(name+".new", name)
	}
	if err == nil && durable {
		err = syncDir(w.dir())
	}
	if err != nil {
		return fmt.Errorf("keep the pod's status: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lastStatus is what keepStatus kept, nil if nothing was.
func (w *Worker) lastStatus() (*corev1.PodStatus, error) {
	b, err := os.ReadFile(filepath.Join(w.dir(), statusFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read the pod's status: %w", err)
	}
	if len(b) == 0 || b[0] != statusFormat {
		return nil, fmt.Errorf("read the pod's status: format %v is not known, only %d", b[:min(len(b), 1)], statusFormat)
	}
	st := &corev1.PodStatus{}
	if err := st.Unmarshal(b[1:]); err != nil {
		return nil, fmt.Errorf("read the pod's status: %w", err)
	}
	return st, nil
}

// sweep removes the pod's folder and logs: nobody has its object any more.
func (w *Worker) sweep() error {
	logs := []string{w.logDir()}
	if w.pod.Name == "" { // found without its name
		var err error
		if logs, err = filepath.Glob(filepath.Join(w.node.LogDir, "*_"+string(w.pod.UID))); err != nil {
			return fmt.Errorf("find the pod's logs: %w", err)
		}
	}
	err := os.RemoveAll(w.dir())
	for _, l := range logs {
		err = errors.Join(err, os.RemoveAll(l))
	}
	if err != nil {
		return fmt.Errorf("remove the pod's files: %w", err)
	}
	w.state.swept = true
	return nil
}

// writeFiles makes the files that all containers of the pod get.
func (w *Worker) writeFiles() error {
	dir := filepath.Join(w.dir(), "etc")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the pod's users read it
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
	host, err := w.hostname()
	if err != nil {
		return err
	}
	files := map[string]string{"resolv.conf": resolv, "hosts": w.node.Cluster.Hosts(w.pod, addresses), "hostname": host + "\n"}
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
		if filepath.Clean(m.MountPath) == target {
			return true
		}
	}
	return false
}

// Hostname is the short name of a pod that is not in the host's network.
func Hostname(pod *corev1.Pod) string {
	if h := pod.Spec.HostnameOverride; h != nil && *h != "" {
		return *h
	}
	if h := pod.Spec.Hostname; h != "" {
		return h
	}
	return strings.TrimRight(pod.Name[:min(len(pod.Name), maxHostname)], "-.")
}

// hostname is the kernel's name of the host in the pod.
func (w *Worker) hostname() (string, error) {
	if w.pod.Spec.HostNetwork {
		return w.node.Name, nil
	}
	host := Hostname(w.pod)
	if full := w.pod.Spec.SetHostnameAsFQDN; full == nil || !*full || w.pod.Spec.Subdomain == "" {
		return host, nil
	}
	fqdn := dns.FQDN(host, w.pod.Spec.Subdomain, w.pod.Namespace, w.node.Cluster.Domain())
	if len(fqdn) > maxFQDN {
		return "", fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)", fqdn, maxFQDN, len(fqdn))
	}
	return fqdn, nil
}

// terminationMount is the file in which a container leaves its last words.
func (w *Worker) terminationMount(spec *corev1.Container, id string) (runtime.Mount, error) {
	file := w.terminationFile(id)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // the pod's users write in it
		return runtime.Mount{}, fmt.Errorf("make the folder of termination messages: %w", err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666) //nolint:gosec // as above
	if err == nil {
		err = errors.Join(f.Chmod(0o666), f.Close()) // any user of the image writes it
	}
	if err != nil {
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
	if r.ID == "" {
		return ""
	}
	if b := readPart(w.terminationFile(r.ID), maxMessage, false); len(b) > 0 {
		return strings.ToValidUTF8(string(b), "\ufffd")
	}
	if spec.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError || r.ExitCode == 0 {
		return ""
	}
	return lastWords(readPart(r.LogPath, maxLogTail, true))
}

// readPart reads the beginning or the end of a file; of one that cannot be read
// nothing.
func readPart(name string, limit int64, fromEnd bool) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && fromEnd && st.Size() > limit {
		_, err = f.Seek(-limit, io.SeekEnd)
	}
	if err != nil {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil
	}
	return b
}

// lastWords are the end of a log in CRI form, without the form.
func lastWords(log []byte) string {
	lines := bytes.Split(bytes.TrimRight(log, "\n"), []byte{'\n'})
	lines = lines[max(0, len(lines)-maxLogLines):]
	var b strings.Builder
	for _, l := range lines {
		parts := bytes.SplitN(l, []byte{' '}, 4) // time, stream, F or P, text
		if len(parts) < 3 {
			continue
		}
		if len(parts) == 4 {
			b.Write(parts[3])
		}
		if parts[2][0] == 'F' {
			b.WriteByte('\n')
		}
	}
	text := b.String()
	return strings.ToValidUTF8(text[max(0, len(text)-maxLogMessage):], "\ufffd")
}
