//go:build cgo && seccomp

package libct

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/shim"
)

// create makes a container and starts its program.
func create(l *shim.Launch) (_ *shim.Launched, err error) {
	var cfg runtime.ContainerConfig
	if err := json.Unmarshal(l.Config, &cfg); err != nil {
		return nil, err
	}
	rootfs, err := mountRoot(l.Dir, cfg)
	if err != nil {
		return nil, err
	}
	id, err := lookup(rootfs, cfg.User)
	if err != nil {
		return nil, err
	}
	out := &shim.Launched{UID: id.uid, GID: id.gid, Groups: id.groups}
	spec, err := newSpec(l, cfg, rootfs, &out.Warnings)
	if err != nil {
		return nil, err
	}
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: l.ID, Spec: spec})
	if err != nil {
		return nil, shim.Errorf(shim.KindInvalid, "%v", err)
	}
	if err := setSeccomp(config, l.Cache, cfg, spec); err != nil {
		return nil, err
	}
	setOOMScore(cfg.OOMScoreAdj, &out.Warnings)

	root := shim.StateRoot(l.RunDir)
	ct, err := libcontainer.Create(root, l.ID, config)
	if err != nil {
		return nil, startError(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(filepath.Join(root, l.ID)))
			err = startError(err)
		}
	}()
	p := &libcontainer.Process{
		Args: cfg.Args, Env: env(cfg.Env, cfg.TTY), Cwd: cwd(cfg.Cwd),
		UID: id.uid, GID: id.gid, AdditionalGroups: id.groups,
		Init: true,
	}
	setStreams(p, cfg.TTY, nil)
	if err := start(ct, p, config); err != nil {
		_ = ct.Destroy() // what is left the shim removes with the cgroup
		return nil, startError(err)
	}
	if out.PID, err = p.Pid(); err != nil {
		return nil, err
	}
	return out, nil
}

// start starts the program, and lets an init go on only under the system call
// filter that it was meant to have.
func start(ct *libcontainer.Container, p *libcontainer.Process, config *configs.Config) error {
	if err := ct.Start(p); err != nil {
		return err
	}
	if !p.Init {
		return nil
	}
	if err := checkSeccomp(p, config.Seccomp); err != nil {
		_ = p.Signal(unix.SIGKILL)
		state, _ := p.Wait()
		return fmt.Errorf("%w (%v)", err, state)
	}
	return ct.Exec()
}

// mountRoot puts the container's root file system together in a new mount
// namespace, on top of the image's layers.
func mountRoot(dir string, cfg runtime.ContainerConfig) (string, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return "", fmt.Errorf("make a mount namespace: %w", err)
	}
	rootfs := filepath.Join(dir, "rootfs")
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{rootfs, upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	// The writable layer's own directory is what the program sees as /.
	var top unix.Stat_t
	if err := unix.Stat(cfg.Layers[0], &top); err != nil {
		return "", fmt.Errorf("image layer: %w", &os.PathError{Op: "stat", Path: cfg.Layers[0], Err: err})
	}
	if err := unix.Chown(upper, int(top.Uid), int(top.Gid)); err != nil {
		return "", err
	}
	if err := unix.Chmod(upper, top.Mode&0o7777); err != nil {
		return "", err
	}
	if err := isolate(rootfs, cfg.Mounts); err != nil {
		return "", err
	}
	if err := mountOverlay(rootfs, upper, work, cfg.Layers); err != nil {
		return "", err
	}
	return rootfs, nil
}

// isolate keeps what is mounted here from the host. Later mounts of the host are
// seen here, for containers that want to see them; only if one wants its own to
// be seen on the host, the host's are left joined, but for the mount in which
// the root file system is put together.
func isolate(rootfs string, mounts []runtime.Mount) error {
	for _, m := range mounts {
		if m.Propagation == runtime.PropagationBoth {
			// A mount of the directory on itself, to have one to set apart,
			// would be seen on the host: that one is unshared first.
			top, err := mountOf(rootfs)
			if err != nil {
				return err
			}
			if err := unix.Mount("", top, "", unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("set mount %s apart: %w", top, err)
			}
			return nil
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("set mounts apart: %w", err)
	}
	return nil
}

// mountOf returns the mount point in which path lies.
func mountOf(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	var here, up unix.Statx_t
	for ; path != "/"; path = filepath.Dir(path) {
		if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &here); err != nil {
			return "", err
		}
		if err := unix.Statx(unix.AT_FDCWD, filepath.Dir(path), 0, unix.STATX_MNT_ID, &up); err != nil {
			return "", err
		}
		if here.Mnt_id != up.Mnt_id {
			return path, nil
		}
	}
	return path, nil
}

// mountOverlay mounts the layers, topmost first, under a writable one. Nobody
// needs the writable layer after a power failure, so it is not synced.
func mountOverlay(target, upper, work string, layers []string) error {
	for _, l := range layers {
		if _, err := os.Stat(l); err != nil {
			return fmt.Errorf("image layer: %w", err)
		}
	}
	// Options have to fit a page: what the layers' paths have in common is said
	// once, as working directory, and if that is not enough, links stand for them.
	base := commonDir(layers)
	names := make([]string, len(layers))
	for i, l := range layers {
		names[i] = escape(strings.TrimPrefix(strings.TrimPrefix(l, base), "/"))
	}
	writable := ",upperdir=" + escape(upper) + ",workdir=" + escape(work)
	if size := len(strings.Join(names, ":")) + len(writable) + len("volatile,lowerdir="); size >= os.Getpagesize() {
		base = filepath.Join(filepath.Dir(target), "layers")
		if err := os.Mkdir(base, 0o700); err != nil {
			return err
		}
		for i, l := range layers {
			names[i] = strconv.FormatInt(int64(i), 36)
			if err := os.Symlink(l, filepath.Join(base, names[i])); err != nil {
				return err
			}
		}
	}
	if err := unix.Chdir(base); err != nil {
		return fmt.Errorf("image layers in %s: %w", base, err)
	}
	defer unix.Chdir("/")
	opts := "lowerdir=" + strings.Join(names, ":") + writable
	err := unix.Mount("overlay", target, "overlay", 0, "volatile,"+opts)
	if errors.Is(err, unix.EINVAL) { // a kernel before 5.10 has no volatile
		err = unix.Mount("overlay", target, "overlay", 0, opts)
	}
	if err != nil {
		return fmt.Errorf("mount the container's root: overlay of %d layers in %s: %w", len(layers), base, err)
	}
	return nil
}

func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace(path)
}

// commonDir returns the deepest directory in which all paths lie.
func commonDir(paths []string) string {
	dir := filepath.Dir(paths[0])
	for _, p := range paths[1:] {
		for dir != "/" && !strings.HasPrefix(p, dir+"/") {
			dir = filepath.Dir(dir)
		}
	}
	return dir
}

func cwd(dir string) string {
	if dir == "" {
		return "/"
	}
	return dir
}

// env adds what a program expects to find.
func env(vars []string, tty bool) []string {
	has := func(name string) bool {
		for _, v := range vars {
			if strings.HasPrefix(v, name+"=") {
				return true
			}
		}
		return false
	}
	vars = vars[:len(vars):len(vars)]
	if !has("PATH") {
		vars = append(vars, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	if tty && !has("TERM") {
		vars = append(vars, "TERM=xterm")
	}
	return vars
}

// setStreams hands on the streams that podshim gave this process.
func setStreams(p *libcontainer.Process, tty bool, size *shim.Size) {
	if !tty {
		p.Stdin, p.Stdout, p.Stderr = os.Stdin, os.Stdout, os.Stderr
		return
	}
	unix.CloseOnExec(consoleFD)
	p.ConsoleSocket = os.NewFile(consoleFD, "console")
	if size != nil {
		p.ConsoleWidth, p.ConsoleHeight = size.Width, size.Height
	}
}

// setOOMScore sets who is killed first, on this process, from which the
// container has it. Lowering takes a privilege that not every machine gives.
func setOOMScore(adj *int, warnings *[]string) {
	if adj == nil {
		return
	}
	err := os.WriteFile("/proc/self/oom_score_adj", fmt.Append(nil, *adj), 0)
	if err != nil {
		*warnings = append(*warnings, fmt.Sprintf("oom_score_adj %d cannot be set, it stays as it is: %v", *adj, err))
	}
}
