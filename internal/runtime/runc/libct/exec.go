//go:build cgo && seccomp

package libct

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/runc/libcontainer"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/shim"
)

// execute starts a further program in a container.
func execute(l *shim.Launch) (*shim.Launched, error) {
	var cfg runtime.ContainerConfig
	if err := json.Unmarshal(l.Config, &cfg); err != nil {
		return nil, err
	}
	var x runtime.ExecConfig
	if err := json.Unmarshal(l.Exec, &x); err != nil {
		return nil, err
	}
	if l.Result == nil {
		return nil, shim.Errorf(shim.KindInternal, "podshim does not say what it executes in")
	}
	out := &shim.Launched{UID: l.Result.UID, GID: l.Result.GID, Groups: l.Result.Groups}
	if x.User != nil {
		id, err := lookup(fmt.Sprintf("/proc/%d/root", l.Result.PID), *x.User)
		if err != nil {
			return nil, err
		}
		out.UID, out.GID, out.Groups = id.uid, id.gid, id.groups
	}
	ct, err := libcontainer.Load(shim.StateRoot(l.RunDir), l.ID)
	if err != nil {
		return nil, startError(err)
	}
	dir := x.Cwd
	if dir == "" {
		dir = cwd(cfg.Cwd)
	}
	p := &libcontainer.Process{
		Args: x.Args, Env: env(append(cfg.Env[:len(cfg.Env):len(cfg.Env)], x.Env...), x.TTY), Cwd: dir,
		UID: out.UID, GID: out.GID, AdditionalGroups: out.Groups,
	}
	setStreams(p, x.TTY, l.Size)
	config := ct.Config()
	if err := start(ct, p, &config); err != nil {
		return nil, startError(err)
	}
	if out.PID, err = p.Pid(); err != nil {
		return nil, err
	}
	return out, nil
}
