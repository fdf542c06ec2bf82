package link

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Sysctl is a setting below /proc/sys, named with slashes
// (net/ipv4/ip_forward), since link names may hold dots.
type Sysctl struct{ Name, Value string }

// SetSysctls sets network settings of the handle's namespace. What has its
// value already is not written.
func (h *Handle) SetSysctls(settings ...Sysctl) error {
	return h.within(func() error {
		for _, s := range settings {
			path := filepath.Join("/proc/sys", s.Name)
			now, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("read setting: %w", err)
			}
			if strings.TrimSpace(string(now)) == s.Value {
				continue
			}
			if err := os.WriteFile(path, []byte(s.Value), 0o644); err != nil {
				return fmt.Errorf("set %s to %s: %w", s.Name, s.Value, err)
			}
		}
		return nil
	})
}

// Sysctl returns the value of one setting.
func (h *Handle) Sysctl(name string) (value string, err error) {
	err = h.within(func() error {
		b, err := os.ReadFile(filepath.Join("/proc/sys", name))
		value = strings.TrimSpace(string(b))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read setting: %w", err)
	}
	return value, nil
}
