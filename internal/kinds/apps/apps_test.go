package apps_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds/apps"
)

func made(t *testing.T, k *api.Kind, text string) api.Object {
	t.Helper()
	obj := k.New()
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatal(err)
	}
	obj.SetNamespace("default")
	k.OnCreate(obj)
	k.Default(obj)
	return obj
}

func check(k *api.Kind, obj api.Object) field.ErrorList {
	return append(api.ValidateMeta(k, obj), k.Validate(obj)...)
}

func match(t *testing.T, errs field.ErrorList, want ...string) {
	t.Helper()
	for i, e := range errs {
		if i >= len(want) || !strings.HasPrefix(e.Error(), want[i]) {
			t.Errorf("error %d is %s", i, e)
		}
	}
	if len(errs) != len(want) {
		t.Errorf("%d errors, want %d: %q", len(errs), len(want), want)
	}
}

const template = `template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: "i:1"}]}}`

func object(more string) string {
	return `{metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, ` + template + `, ` + more + `}}`
}

func TestDeploymentDefaults(t *testing.T) {
	k := apps.Deployment()
	d := made(t, k, `{metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, `+template+`}, status: {replicas: 5}}`).(*appsv1.Deployment)
	match(t, check(k, d))
	got, err := yaml.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	want := `metadata:
  name: x
  namespace: default
spec:
  progressDeadlineSeconds: 600
  replicas: 1
  revisionHistoryLimit: 10
  selector:
    matchLabels:
      a: b
  strategy:
    rollingUpdate:
      maxSurge: 25%
      maxUnavailable: 25%
    type: RollingUpdate
  template:
    metadata:
      labels:
        a: b
    spec:
      containers:
      - image: i:1
        imagePullPolicy: IfNotPresent
        name: c
        resources: {}
        terminationMessagePath: /dev/termination-log
        terminationMessagePolicy: File
      dnsPolicy: ClusterFirst
      restartPolicy: Always
      schedulerName: default-scheduler
      securityContext: {}
      terminationGracePeriodSeconds: 30
status: {}
`
	if string(got) != want {
		t.Errorf("got\n%s", got)
	}
	recreate := made(t, k, object(`strategy: {type: Recreate}`)).(*appsv1.Deployment)
	if recreate.Spec.Strategy.RollingUpdate != nil {
		t.Error("Recreate was given a rolling update")
	}
	match(t, check(k, recreate))
}

func TestInvalid(t *testing.T) {
	both := []struct {
		name, text string
		want       []string
	}{
		{"name", `{metadata: {name: X}, spec: {selector: {matchLabels: {a: b}}, ` + template + `}}`, []string{`metadata.name: Invalid value: "X": a lowercase RFC 1123 subdomain`}},
		{"no selector", `{metadata: {name: x}, spec: {` + template + `}}`, []string{"spec.selector: Required value"}},
		{"empty selector", `{metadata: {name: x}, spec: {selector: {}, ` + template + `}}`, []string{"spec.selector: Invalid value: {}: empty selector is invalid for "}},
		{"selector operator", `{metadata: {name: x}, spec: {selector: {matchExpressions: [{key: a, operator: Like, values: [b]}]}, ` + template + `}}`, []string{`spec.selector.matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator`, "spec.selector: Invalid value"}},
		{"other labels", `{metadata: {name: x}, spec: {selector: {matchLabels: {a: c}}, ` + template + `}}`, []string{"spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"}},
		{"replicas", object(`replicas: -1`), []string{"spec.replicas: Invalid value: -1: must be greater than or equal to 0"}},
		{"min ready", object(`minReadySeconds: -1`), []string{"spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"}},
		{"restart policy", `{metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}`, []string{`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`}},
		{"deadline", `{metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {activeDeadlineSeconds: 5, containers: [{name: c, image: i}]}}}}`, []string{"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"}},
		{"container", `{metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c_, image: i}]}}}}`, []string{`spec.template.spec.containers[0].name: Invalid value: "c_"`}},
		{"no containers", `{metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {}}}}`, []string{"spec.template.spec.containers: Required value"}},
		{"template label", `{metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b, c: "d e"}}, spec: {containers: [{name: c, image: i}]}}}}`, []string{`spec.template.labels: Invalid value: "d e"`}},
	}
	for _, k := range []*api.Kind{apps.Deployment(), apps.ReplicaSet()} {
		for _, tt := range both {
			t.Run(k.Kind+"/"+tt.name, func(t *testing.T) { match(t, check(k, made(t, k, tt.text)), tt.want...) })
		}
	}
	k := apps.Deployment()
	for _, tt := range []struct{ name, more, want string }{
		{"strategy", `strategy: {type: Yolo}`, `spec.strategy: Unsupported value: `},
		{"recreate with parts", `strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}`, "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"},
		{"nothing may move", `strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}`, "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"},
		{"nothing may move, in percent", `strategy: {rollingUpdate: {maxSurge: 0%, maxUnavailable: 0%}}`, "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"},
		{"too much", `strategy: {rollingUpdate: {maxUnavailable: 101%}}`, `spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`},
		{"not a part", `strategy: {rollingUpdate: {maxSurge: half}}`, `spec.strategy.rollingUpdate.maxSurge: Invalid value: "half": a valid percent string must be a numeric string followed by an ending '%'`},
		{"negative", `strategy: {rollingUpdate: {maxSurge: -1}}`, "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0"},
		{"history", `revisionHistoryLimit: -1`, "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0"},
		{"progress", `minReadySeconds: 600`, "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"},
	} {
		t.Run("Deployment/"+tt.name, func(t *testing.T) { match(t, check(k, made(t, k, object(tt.more))), tt.want) })
	}
}

func TestUpdate(t *testing.T) {
	for _, k := range []*api.Kind{apps.Deployment(), apps.ReplicaSet()} {
		old := made(t, k, object(`replicas: 2`))
		obj := made(t, k, `{metadata: {name: x}, spec: {selector: {matchLabels: {a: c}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: i}]}}}}`)
		match(t, k.ValidateUpdate(obj, old), `spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable`)
		match(t, k.ValidateUpdate(old, old))
	}
}

func TestStatus(t *testing.T) {
	k := apps.Deployment()
	old := made(t, k, object(`replicas: 2`)).(*appsv1.Deployment)
	two, one := int32(2), int32(1)
	old.Status.CollisionCount = &two
	obj := old.DeepCopy()
	*obj.Spec.Replicas = 9
	obj.Labels = map[string]string{"a": "b"}
	obj.Status = appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 2, ReadyReplicas: 3, AvailableReplicas: 4, UnavailableReplicas: -1, CollisionCount: &one}
	k.OnStatus(obj, old)
	if *obj.Spec.Replicas != 2 || obj.Labels != nil {
		t.Error("a write of the status changed more")
	}
	match(t, k.ValidateStatus(obj, old),
		"status.unavailableReplicas: Invalid value: -1",
		"status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
		"status.readyReplicas: Invalid value: 3: cannot be greater than status.replicas",
		"status.availableReplicas: Invalid value: 4: cannot be greater than status.replicas",
		"status.availableReplicas: Invalid value: 4: cannot be greater than readyReplicas",
		"status.collisionCount: Invalid value: 1: cannot be decremented")
	rs := apps.ReplicaSet()
	match(t, rs.ValidateStatus(&appsv1.ReplicaSet{Status: appsv1.ReplicaSetStatus{Replicas: -1, ReadyReplicas: 1}}, &appsv1.ReplicaSet{}),
		"status.replicas: Invalid value: -1",
		"status.fullyLabeledReplicas: Invalid value: 0: cannot be greater than status.replicas",
		"status.readyReplicas: Invalid value: 1: cannot be greater than status.replicas",
		"status.availableReplicas: Invalid value: 0: cannot be greater than status.replicas")
}

func TestScale(t *testing.T) {
	for _, k := range []*api.Kind{apps.Deployment(), apps.ReplicaSet()} {
		obj := made(t, k, object(`replicas: 2`))
		k.Scale.Set(obj, 7)
		spec, status := k.Scale.Get(obj)
		if spec.Replicas != 7 || status.Selector != "a=b" || fmt.Sprint(status.Replicas) != "0" {
			t.Errorf("%s: scale is %+v %+v", k.Kind, spec, status)
		}
	}
}
