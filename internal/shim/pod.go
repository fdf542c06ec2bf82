package shim

import (
	"encoding/json"
	"path/filepath"
	"time"
)

// Pod is what a shim is told about its pod, in the file PodFile of the pod's
// directory. It is there before the shim starts.
type Pod struct {
	Format    int       `json:"format"`
	ID        string    `json:"id"`
	StartedAt time.Time `json:"startedAt"`
	// Dir is the pod's directory for what must outlive a boot, RunDir that
	// for the rest.
	Dir    string `json:"dir"`
	RunDir string `json:"runDir"`
	Podrun string `json:"podrun"`
	// Hostname is set in the shim's own UTS namespace; empty: it has none.
	Hostname string            `json:"hostname,omitempty"`
	NetNS    string            `json:"netns,omitempty"`
	Sysctls  map[string]string `json:"sysctls,omitempty"`
	ShmSize  int64             `json:"shmSize"`
	SharePID bool              `json:"sharePID,omitempty"`
	// Cgroup is the pod's cgroup.
	Cgroup  string  `json:"cgroup"`
	Cgroups Cgroups `json:"cgroups"`
	// Config is noded's: a runtime.SandboxConfig.
	Config json.RawMessage `json:"config"`
}

// ReadPod returns what is known of the pod in dir.
func ReadPod(dir string) (Pod, error) {
	var p Pod
	if err := readFile(PodFile(dir), &p); err != nil {
		return Pod{}, err
	}
	return p, checkFormat(PodFile(dir), p.Format)
}

// PodFile is the name of the file that holds the Pod.
func PodFile(dir string) string { return filepath.Join(dir, "pod.json") }

// ContainerDir is the directory of a container in a pod's directory.
func ContainerDir(podDir, id string) string { return filepath.Join(podDir, "containers", id) }

// ProcessFile is where, in a pod's RunDir, the shim writes which Process it is.
func ProcessFile(runDir string) string { return filepath.Join(runDir, "shim.json") }

// ShmDir is where, in a pod's RunDir, its /dev/shm is mounted.
func ShmDir(runDir string) string { return filepath.Join(runDir, "shm") }

// StateRoot is where, in a pod's RunDir, libcontainer keeps its state.
func StateRoot(runDir string) string { return filepath.Join(runDir, "ct") }
