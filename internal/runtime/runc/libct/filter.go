//go:build cgo && seccomp

package libct

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"

	"github.com/opencontainers/runc/libcontainer/configs"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/runtime"
)

// filterFormat changes when the way of building filters does.
const filterFormat = 1

// cachedFilter returns the filter of a profile in the kernel's form. It is built
// once for each profile, set of capabilities, kernel and libseccomp.
func cachedFilter(cache, profile string, caps []string, full func() (*configs.Seccomp, error)) ([]byte, error) {
	key := sha256.New()
	major, minor, micro := libseccomp.GetLibraryVersion()
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	fmt.Fprintln(key, filterFormat, goruntime.GOARCH, major, minor, micro, unix.ByteSliceToString(uts.Release[:]), caps)
	if profile != "" && profile != runtime.SeccompDefault {
		b, err := os.ReadFile(profile)
		if err != nil {
			return nil, fmt.Errorf("seccomp profile: %w", err)
		}
		key.Write(b)
	}
	path := filepath.Join(cache, "seccomp-"+hex.EncodeToString(key.Sum(nil)[:16]))
	if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
		return b, nil
	}
	config, err := full()
	if err != nil {
		return nil, err
	}
	filter, err := buildFilter(config)
	if err != nil {
		return nil, fmt.Errorf("build the system call filter: %w", err)
	}
	// Many may build the same one at once; each writes a whole one.
	tmp, err := os.CreateTemp(cache, ".seccomp-*")
	if err != nil {
		return nil, err
	}
	_, err = tmp.Write(filter)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return filter, err
}

// buildFilter builds a profile's filter as libcontainer would: by libseccomp,
// with ENOSYS in front for system calls that are newer than the profile.
func buildFilter(config *configs.Seccomp) ([]byte, error) {
	action, err := scmpAction(config.DefaultAction, config.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	f, err := libseccomp.NewFilter(action)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	var archs []libseccomp.ScmpArch
	for _, name := range config.Architectures {
		arch, err := libseccomp.GetArchFromString(name)
		if err != nil {
			return nil, err
		}
		if err := f.AddArch(arch); err != nil {
			return nil, err
		}
		archs = append(archs, arch)
	}
	native, err := libseccomp.GetNativeArch()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(archs, native) {
		archs = append(archs, native)
	}
	if len(config.Syscalls) > 32 {
		_ = f.SetOptimize(2) // an older libseccomp cannot
	}
	for _, call := range config.Syscalls {
		if err := addRule(f, call, action); err != nil {
			return nil, fmt.Errorf("%s: %w", call.Name, err)
		}
	}
	code, err := export(f)
	if err != nil {
		return nil, err
	}
	if config.DefaultAction == configs.Allow || config.DefaultAction == configs.Log || config.DefaultAction == configs.Trace ||
		config.DefaultErrnoRet != nil && *config.DefaultErrnoRet == uint(unix.ENOSYS) {
		return code, nil
	}
	stub, err := newerStub(archs, config.Syscalls)
	return append(stub, code...), err
}

func addRule(f *libseccomp.ScmpFilter, call *configs.Syscall, deflt libseccomp.ScmpAction) error {
	action, err := scmpAction(call.Action, call.ErrnoRet)
	if err != nil || action == deflt {
		return err
	}
	nr, err := libseccomp.GetSyscallFromName(call.Name)
	if err != nil {
		return nil // unknown to this libseccomp: the default action holds
	}
	var conds []libseccomp.ScmpCondition
	seen := map[uint]bool{}
	twice := false
	for _, arg := range call.Args {
		op, err := scmpOperator(arg.Op)
		if err != nil {
			return err
		}
		c, err := libseccomp.MakeCondition(arg.Index, op, arg.Value, arg.ValueTwo)
		if err != nil {
			return err
		}
		conds = append(conds, c)
		twice = twice || seen[arg.Index]
		seen[arg.Index] = true
	}
	if len(conds) == 0 {
		return f.AddRule(nr, action)
	}
	if !twice {
		return f.AddRuleConditional(nr, action, conds)
	}
	// Several conditions on one argument are alternatives.
	for _, c := range conds {
		if err := f.AddRuleConditional(nr, action, []libseccomp.ScmpCondition{c}); err != nil {
			return err
		}
	}
	return nil
}

func scmpAction(a configs.Action, ret *uint) (libseccomp.ScmpAction, error) {
	code := int16(unix.EPERM)
	if ret != nil {
		code = int16(*ret)
	}
	switch a {
	case configs.Kill, configs.KillThread:
		return libseccomp.ActKillThread, nil
	case configs.KillProcess:
		return libseccomp.ActKillProcess, nil
	case configs.Errno:
		return libseccomp.ActErrno.SetReturnCode(code), nil
	case configs.Trap:
		return libseccomp.ActTrap, nil
	case configs.Allow:
		return libseccomp.ActAllow, nil
	case configs.Trace:
		return libseccomp.ActTrace.SetReturnCode(code), nil
	case configs.Log:
		return libseccomp.ActLog, nil
	}
	return 0, fmt.Errorf("seccomp action %d is not supported", a)
}

func scmpOperator(op configs.Operator) (libseccomp.ScmpCompareOp, error) {
	switch op {
	case configs.EqualTo:
		return libseccomp.CompareEqual, nil
	case configs.NotEqualTo:
		return libseccomp.CompareNotEqual, nil
	case configs.GreaterThan:
		return libseccomp.CompareGreater, nil
	case configs.GreaterThanOrEqualTo:
		return libseccomp.CompareGreaterEqual, nil
	case configs.LessThan:
		return libseccomp.CompareLess, nil
	case configs.LessThanOrEqualTo:
		return libseccomp.CompareLessOrEqual, nil
	case configs.MaskEqualTo:
		return libseccomp.CompareMaskedEqual, nil
	}
	return 0, fmt.Errorf("seccomp operator %d is not supported", op)
}

// export returns a filter as the kernel takes it.
func export(f *libseccomp.ScmpFilter) ([]byte, error) {
	fd, err := unix.MemfdCreate("filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "filter")
	defer file.Close()
	if err := f.ExportBPF(file); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(file)
}

// newerStub is the beginning of a filter that answers ENOSYS to system calls
// with greater numbers than any that the profile names: programs then try an
// older one, where EPERM would make them give up.
func newerStub(archs []libseccomp.ScmpArch, calls []*configs.Syscall) ([]byte, error) {
	last := map[uint32]map[bool]uint32{} // by audit number, and whether it is x32
	for _, arch := range archs {
		audit, ok := auditNumbers()[arch]
		if !ok {
			return nil, fmt.Errorf("architecture %s is not supported", arch)
		}
		top := uint32(0)
		for _, call := range calls {
			if nr, err := libseccomp.GetSyscallFromNameByArch(call.Name, arch); err == nil && nr > 0 {
				top = max(top, uint32(nr))
			}
		}
		if top == 0 {
			continue
		}
		if last[audit] == nil {
			last[audit] = map[bool]uint32{}
		}
		last[audit][arch == libseccomp.ArchX32] = top
	}
	var audits []uint32
	for a := range last {
		audits = append(audits, a)
	}
	slices.Sort(audits)

	const (
		ldAbs, ja, jeq, jgt, jge, ret = 0x20, 0x05, 0x15, 0x25, 0x35, 0x06
		enosys                        = 0x00050000 | uint32(unix.ENOSYS)
	)
	type ins = unix.SockFilter
	var code []ins
	var ends []int // jumps to the filter proper, to be filled in
	end := func() { ends = append(ends, len(code)); code = append(code, ins{Code: ja}) }
	code = append(code, ins{Code: ldAbs, K: 4})
	for _, a := range audits {
		var part []ins
		// over jumps over what follows in part unless the number is too great.
		check := func(top uint32) { part = append(part, ins{Code: jgt, Jf: 1, K: top}, ins{Code: ret, K: enosys}) }
		part = append(part, ins{Code: ldAbs, K: 0})
		normal, hasNormal := last[a][false]
		x32, hasX32 := last[a][true]
		switch {
		case hasNormal && hasX32:
			part = append(part, ins{Code: jge, Jf: 3, K: 0x40000000})
			check(x32)
			part = append(part, ins{Code: ja, K: 2})
			check(normal)
		case hasNormal:
			if a == auditX8664 { // without x32 the filter proper answers it
				part = append(part, ins{Code: jge, Jt: 2, K: 0x40000000})
			}
			check(normal)
		case hasX32:
			part = append(part, ins{Code: jge, Jf: 2, K: 0x40000000})
			check(x32)
		}
		code = append(code, ins{Code: jeq, Jf: uint8(len(part) + 1), K: a})
		code = append(code, part...)
		end()
	}
	for _, at := range ends {
		code[at].K = uint32(len(code) - at - 1)
	}
	var out bytes.Buffer
	err := binary.Write(&out, binary.NativeEndian, code)
	return out.Bytes(), err
}

const auditX8664 = 0xC000003E

func auditNumbers() map[libseccomp.ScmpArch]uint32 {
	return map[libseccomp.ScmpArch]uint32{
		libseccomp.ArchX86: 0x40000003, libseccomp.ArchAMD64: auditX8664, libseccomp.ArchX32: auditX8664,
		libseccomp.ArchARM: 0x40000028, libseccomp.ArchARM64: 0xC00000B7,
	}
}
