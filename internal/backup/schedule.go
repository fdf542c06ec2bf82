package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wherry-project/wherry/internal/seal"
)

// Outcome is how something went when it was last done.
type Outcome struct {
	// Done is when; zero if never.
	Done    time.Time
	OK      bool
	Message string
}

// Status is what is known of the scheduled backups.
type Status struct {
	// Newest is the last backup that succeeded, File where it is on Host.
	Newest     Manifest
	File, Host string
	// Backup and Drill are how the last attempts went.
	Backup, Drill Outcome
}

// Keeper keeps the status where users see it.
type Keeper interface {
	Load(ctx context.Context) (Status, error)
	Save(ctx context.Context, s Status) error
}

// Schedule makes backups at intervals, keeps the newest ones, and tries after
// each whether it could be restored.
type Schedule struct {
	// Dir is where the files go, on this host.
	Dir   string
	Every time.Duration
	// Keep is how many files stay.
	Keep int
	// Host is this host's name.
	Host string
	// Passphrase gives the passphrase, each time anew.
	Passphrase func() ([]byte, error)
	// Source gives the state of now.
	Source func(ctx context.Context) (Source, error)
	// Drill tries whether a file could be restored, and says what it found.
	Drill   func(ctx context.Context, file string) (string, error)
	Keeper  Keeper
	Metrics *Metrics
	Now     func() time.Time
	Log     *slog.Logger

	cost seal.Cost // another than the proper one, in tests
}

// How soon it is tried again after a failure, and how long one turn may take.
const (
	retryFirst = time.Minute
	retryLast  = time.Hour
	turnWithin = 30 * time.Minute
)

// Run makes backups until ctx ends. Whoever ran before is taken into account:
// it goes on where the status says that the last one was made.
func (s *Schedule) Run(ctx context.Context) error {
	failures := 0
	for ctx.Err() == nil {
		wait := s.Every
		status, err := s.Keeper.Load(ctx)
		if err == nil {
			if wait = s.due(status); wait <= 0 {
				err = s.turn(ctx, status)
				wait = s.Every
			}
		}
		if err == nil {
			failures = 0
		} else if ctx.Err() == nil {
			wait = min(s.Every, retryFirst<<min(failures, 6), retryLast)
			failures++
			s.Log.Warn("scheduled backup failed", "err", err, "retry", wait)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// due is how long it is until the next backup. One that lies in the future was
// made under another clock and does not count.
func (s *Schedule) due(status Status) time.Duration {
	since := s.Now().Sub(status.Newest.Created)
	if status.Newest.Created.IsZero() || since < 0 {
		return 0
	}
	return s.Every - since
}

// turn makes one backup, tries it, and takes old ones away.
func (s *Schedule) turn(ctx context.Context, status Status) error {
	ctx, cancel := context.WithTimeout(ctx, turnWithin)
	defer cancel()
	file, m, err := s.make(ctx)
	now := s.Now().UTC().Truncate(time.Second)
	if ctx.Err() != nil && err != nil {
		return err // leadership went elsewhere, and with it the duty
	}
	status.Backup = Outcome{Done: now, OK: err == nil}
	s.Metrics.backup(m, err)
	if err != nil {
		status.Backup.Message = err.Error()
		return errors.Join(err, s.Keeper.Save(ctx, status))
	}
	status.Newest, status.File, status.Host = m, file, s.Host
	status.Backup.Message = fmt.Sprintf("%d objects at revision %d in %s on %s", m.Objects, m.Revision, file, s.Host)
	s.Log.Info("backup made", "file", file, "revision", m.Revision, "objects", m.Objects)
	found, drilled := s.Drill(ctx, file)
	if drilled != nil && ctx.Err() != nil {
		return errors.Join(drilled, s.Keeper.Save(context.WithoutCancel(ctx), status))
	}
	status.Drill = Outcome{Done: s.Now().UTC().Truncate(time.Second), OK: drilled == nil, Message: found}
	s.Metrics.drill(s.Now(), drilled)
	if drilled != nil {
		// The file stays, and so do the older ones: one of them may be good.
		status.Drill.Message = drilled.Error()
		drilled = fmt.Errorf("restore drill with %s: %w", file, drilled)
	} else if err := s.prune(m.Cluster); err != nil {
		status.Backup.Message += "; old ones could not be removed: " + err.Error()
		s.Log.Warn("old backups not removed", "err", err)
	}
	return errors.Join(drilled, s.Keeper.Save(ctx, status))
}

func (s *Schedule) make(ctx context.Context) (file string, m Manifest, err error) {
	passphrase, err := s.Passphrase()
	if err != nil {
		return "", m, err
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return "", m, fmt.Errorf("folder of backups: %w", err)
	}
	src, err := s.Source(ctx)
	if err != nil {
		return "", m, err
	}
	if m, err = src.Manifest(); err != nil {
		return "", m, err
	}
	file = filepath.Join(s.Dir, fileName(m))
	cost := s.cost
	if cost == (seal.Cost{}) {
		cost = seal.ProperCost()
	}
	return file, m, writeFile(file, passphrase, cost, m, src.Write)
}

// suffix ends the names of backups.
const suffix = ".wherry"

// fileName sorts by age among those of one cluster.
func fileName(m Manifest) string {
	return fmt.Sprintf("%s-%s-r%d%s", m.Cluster, m.Created.UTC().Format("20060102T150405Z"), m.Revision, suffix)
}

// prune removes all but the newest files of a cluster; others in the folder are
// left alone.
func (s *Schedule) prune(cluster string) error {
	files, err := listFiles(s.Dir, cluster)
	if err != nil {
		return err
	}
	for _, f := range files[:max(0, len(files)-s.Keep)] {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

// listFiles gives the scheduled backups of a cluster, the oldest first.
func listFiles(dir, cluster string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), cluster+"-")
		stamp, rest, whole := strings.Cut(rest, "-r")
		if _, err := time.Parse("20060102T150405Z", stamp); !ours || !whole || err != nil || !strings.HasSuffix(rest, suffix) || !e.Type().IsRegular() {
			continue
		}
		out = append(out, filepath.Join(dir, e.Name()))
	}
	slices.Sort(out)
	return out, nil
}

// Metrics counts backups and drills; a nil one counts nothing.
type Metrics struct {
	last, size, drilled prometheus.Gauge
	failures, bad       prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(r *prometheus.Registry) (*Metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &Metrics{
		last:     gauge("wherry_backup_last_success_timestamp_seconds", "When this controld last made a scheduled backup; 0 for never since it started."),
		size:     gauge("wherry_backup_last_objects", "Objects in the last scheduled backup of this controld."),
		drilled:  gauge("wherry_restore_drill_last_success_timestamp_seconds", "When a scheduled backup of this controld was last restored on trial; 0 for never since it started."),
		failures: counter("wherry_backup_failures_total", "Scheduled backups of this controld that failed."),
		bad:      counter("wherry_restore_drill_failures_total", "Scheduled backups of this controld that could not be restored on trial."),
	}
	for _, c := range []prometheus.Collector{m.last, m.size, m.drilled, m.failures, m.bad} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("backup metrics: %w", err)
		}
	}
	return m, nil
}

func (m *Metrics) backup(of Manifest, err error) {
	switch {
	case m == nil:
	case err != nil:
		m.failures.Inc()
	default:
		m.last.Set(float64(of.Created.Unix()))
		m.size.Set(float64(of.Objects))
	}
}

func (m *Metrics) drill(now time.Time, err error) {
	switch {
	case m == nil:
	case err != nil:
		m.bad.Inc()
	default:
		m.drilled.Set(float64(now.Unix()))
	}
}
