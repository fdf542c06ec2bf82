//go:build cgo && seccomp

package libct

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/shim"
)

// libcontainer builds the system call filter anew in every init and every exec,
// which takes longer than all the rest. Here the filter is built once per profile
// and kept as the kernel takes it, and libcontainer gets a configuration that
// filters nothing but has the ready filter as the name of an unknown system call.
// When it comes to that name, at the very place where it would load its own
// filter, it says so to its log, and a log hook of ours loads the ready one. Since
// that hangs on a message, podrun looks at the waiting init and lets its program
// start only if the kernel counts both filters (checkSeccomp).
const filterPrefix = "wherry-filter:"

// setSeccomp decides on the container's filter.
func setSeccomp(config *configs.Config, cache string, cfg runtime.ContainerConfig, spec *specs.Spec) error {
	if cfg.Privileged || cfg.Seccomp == runtime.SeccompUnconfined {
		return nil
	}
	full := func() (*configs.Seccomp, error) { return loadProfile(cfg.Seccomp, spec) }
	if !countsFilters() || cache == "" {
		var err error
		config.Seccomp, err = full()
		return err
	}
	filter, err := cachedFilter(cache, cfg.Seccomp, spec.Process.Capabilities.Bounding, full)
	if err != nil {
		return err
	}
	config.Seccomp = &configs.Seccomp{
		DefaultAction: configs.Allow,
		Flags:         filterFlags(),
		Syscalls:      []*configs.Syscall{{Name: filterPrefix + base64.RawStdEncoding.EncodeToString(filter), Action: configs.Errno}},
	}
	return nil
}

// loadProfile returns the profile that a container names, as it is for its
// capabilities, this kernel and this architecture.
func loadProfile(name string, spec *specs.Spec) (*configs.Seccomp, error) {
	var profile *specs.LinuxSeccomp
	var err error
	if name == "" || name == runtime.SeccompDefault {
		profile, err = seccomp.GetDefaultProfile(spec)
	} else {
		var b []byte
		if b, err = os.ReadFile(name); err != nil {
			return nil, shim.Errorf(shim.KindInvalid, "seccomp profile: %v", err)
		}
		profile, err = seccomp.LoadProfile(string(b), spec)
	}
	if err != nil {
		return nil, shim.Errorf(shim.KindInvalid, "seccomp profile %s: %v", name, err)
	}
	out, err := specconv.SetupSeccomp(profile)
	if err != nil {
		return nil, shim.Errorf(shim.KindInvalid, "seccomp profile %s: %v", name, err)
	}
	return out, nil
}

// filterFlags are the flags with which libcontainer loads filters that name none.
func filterFlags() []specs.LinuxSeccompFlag {
	return []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagSpecAllow}
}

// countsFilters reports whether the kernel tells how many filters a process has.
func countsFilters() bool {
	_, ok := filtersOf("self")
	return ok
}

func filtersOf(pid string) (int, bool) {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Seccomp_filters:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(v))
			return n, err == nil
		}
	}
	return 0, false
}

// checkSeccomp makes sure that an init, which waits to execute its program, has
// the filter that it was meant to have.
func checkSeccomp(p *libcontainer.Process, config *configs.Seccomp) error {
	if config == nil || len(config.Syscalls) != 1 || !strings.HasPrefix(config.Syscalls[0].Name, filterPrefix) {
		return nil
	}
	pid, err := p.Pid()
	if err != nil {
		return err
	}
	// Filters belong to threads. The one that will execute the program need not
	// be the first one, since Init runs in main and not in an init function.
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return fmt.Errorf("the container's init ended before it could execute its program: %w", err)
	}
	own, _ := filtersOf("self")
	for _, t := range threads {
		if n, _ := filtersOf(strconv.Itoa(pid) + "/task/" + t.Name()); n == own+2 {
			return nil
		}
	}
	return errors.New("the container's system call filter was not loaded: podrun does not fit the libcontainer that it was built with")
}

// seccompInInit prepares a process that will become an init.
func seccompInInit() {
	logrus.SetLevel(logrus.DebugLevel)
	logrus.AddHook(filterHook{})
}

// filterHook loads the filter that libcontainer complains about.
type filterHook struct{}

func (filterHook) Levels() []logrus.Level { return []logrus.Level{logrus.DebugLevel} }

// Fire panics if the filter cannot be loaded: libcontainer turns that into the
// error of the container's start, while an error from here it would ignore.
func (filterHook) Fire(e *logrus.Entry) error {
	_, rest, ok := strings.Cut(e.Message, `"`+filterPrefix)
	if !ok {
		return nil
	}
	e.Message = "loading the ready system call filter"
	text, _, _ := strings.Cut(rest, `"`)
	filter, err := base64.RawStdEncoding.DecodeString(text)
	if err == nil {
		err = loadFilter(filter)
	}
	if err != nil {
		panic(fmt.Errorf("load the system call filter: %w", err))
	}
	return nil
}

// loadFilter gives the calling thread, and the program it will execute, a filter.
func loadFilter(filter []byte) error {
	const size = int(unsafe.Sizeof(unix.SockFilter{}))
	if len(filter) == 0 || len(filter)%size != 0 {
		return fmt.Errorf("a filter of %d bytes", len(filter))
	}
	code := make([]unix.SockFilter, len(filter)/size)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&code[0])), len(filter)), filter)
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return errno
	}
	return nil
}
