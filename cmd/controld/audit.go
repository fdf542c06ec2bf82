package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/wherry-project/wherry/internal/audit"
)

// openAudit opens the audit log that the configuration asks for, nil if it asks
// for none. A policy or file that cannot be used is told at the start.
func (c config) openAudit(log *slog.Logger) (*audit.Log, error) {
	if c.AuditLog == "" {
		return nil, nil
	}
	policy := audit.AllMetadata()
	if c.AuditPolicy != "" {
		var err error
		if policy, err = audit.ReadPolicy(c.AuditPolicy); err != nil {
			return nil, fmt.Errorf("audit-policy: %w", err)
		}
	}
	f, err := os.OpenFile(c.AuditLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit-log: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("audit-log: %w", err)
	}
	return audit.Open(audit.File{Path: c.AuditLog, MaxMiB: c.AuditLogMaxMiB, MaxFiles: c.AuditLogMaxFiles, MaxDays: c.AuditLogMaxDays}, policy, log), nil
}
