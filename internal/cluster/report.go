package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/backup"
	"github.com/wherry-project/wherry/internal/store"
)

// The ConfigMap that says how the scheduled backups do.
const (
	reportNamespace = "kube-system"
	reportName      = "cluster-backup"
)

// Writer writes objects, as some user.
type Writer interface {
	Create(ctx context.Context, obj api.Object) (api.Object, error)
	Update(ctx context.Context, obj api.Object) (api.Object, error)
}

// Recorder notes Events.
type Recorder interface {
	Event(about api.Object, eventType, reason, message string)
}

// Report keeps the status of the scheduled backups in the ConfigMap
// kube-system/cluster-backup, with conditions as Kubernetes has them, and tells
// of failures by Events about it. It implements [backup.Keeper].
type Report struct {
	Store  store.Reader
	Door   Writer
	Events Recorder
}

var _ backup.Keeper = (*Report)(nil)

// kept is the ConfigMap's data, by key.
const (
	keyConditions = "conditions"
	keyStatus     = "status"
)

func (r *Report) now(ctx context.Context) (*corev1.ConfigMap, error) {
	snap, err := r.Store.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return nil, err
	}
	key := api.Key{Resource: "configmaps", Namespace: reportNamespace, Name: reportName}
	rec, ok := snap.Get(key)
	if !ok {
		return nil, nil
	}
	return store.Decode[*corev1.ConfigMap](snap, rec)
}

// Load implements [backup.Keeper].
func (r *Report) Load(ctx context.Context) (backup.Status, error) {
	var s backup.Status
	m, err := r.now(ctx)
	if err != nil || m == nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(m.Data[keyStatus]), &s); err != nil {
		return backup.Status{}, nil // somebody wrote into it: begin anew
	}
	return s, nil
}

// Save implements [backup.Keeper].
func (r *Report) Save(ctx context.Context, s backup.Status) error {
	old, err := r.now(ctx)
	if err != nil {
		return err
	}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: reportNamespace, Name: reportName}}
	if old != nil {
		m = old.DeepCopy()
	}
	if m.Data, err = reported(s, m.Data[keyConditions]); err != nil {
		return err
	}
	var obj api.Object
	if old == nil {
		obj, err = r.Door.Create(ctx, m)
	} else {
		obj, err = r.Door.Update(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("report backups in %s/%s: %w", reportNamespace, reportName, err)
	}
	for _, one := range []struct {
		backup.Outcome
		reason string
	}{{s.Backup, "BackupFailed"}, {s.Drill, "RestoreDrillFailed"}} {
		if !one.OK && !one.Done.IsZero() {
			r.Events.Event(obj, corev1.EventTypeWarning, one.reason, one.Message)
		}
	}
	return nil
}

// reported is the ConfigMap's data: for people, for tools that know conditions,
// and for the next leader.
func reported(s backup.Status, before string) (map[string]string, error) {
	var conditions []metav1.Condition
	_ = json.Unmarshal([]byte(before), &conditions) // what cannot be read is made anew
	conditions = condition(conditions, "BackupSucceeded", s.Backup)
	conditions = condition(conditions, "RestoreDrillSucceeded", s.Drill)
	c, err := json.MarshalIndent(conditions, "", "  ")
	if err != nil {
		return nil, err
	}
	status, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	data := map[string]string{keyConditions: string(c), keyStatus: string(status)}
	if !s.Newest.Created.IsZero() {
		data["newest"] = s.File
		data["host"] = s.Host
		data["made"] = s.Newest.Created.UTC().Format(time.RFC3339)
		data["revision"] = strconv.FormatUint(s.Newest.Revision, 10)
		data["objects"] = strconv.Itoa(s.Newest.Objects)
	}
	return data, nil
}

func condition(all []metav1.Condition, kind string, o backup.Outcome) []metav1.Condition {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionUnknown, Reason: "NotDoneYet", LastTransitionTime: metav1.Time{Time: o.Done}, Message: o.Message}
	if !o.Done.IsZero() {
		c.Status, c.Reason = metav1.ConditionFalse, "Failed"
		if o.OK {
			c.Status, c.Reason = metav1.ConditionTrue, "Succeeded"
		}
	}
	for i, was := range all {
		if was.Type == kind {
			if was.Status == c.Status {
				c.LastTransitionTime = was.LastTransitionTime
			}
			all[i] = c
			return all
		}
	}
	return append(all, c)
}
