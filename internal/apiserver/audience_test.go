package apiserver_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/apierr"
)

// TestAudiencesOfNodes: a node asks for tokens for those audiences only that a
// volume of the pod is for, or that RBAC lets it.
func TestAudiencesOfNodes(t *testing.T) {
	c, _, _ := withTokens(t)
	c.must(c.create("csidrivers.storage.k8s.io", "", `{metadata: {name: inline.example}, spec: {volumeLifecycleModes: [Ephemeral], tokenRequests: [{audience: inline}]}}`))
	c.must(c.create("csidrivers.storage.k8s.io", "", `{metadata: {name: disk.example}, spec: {tokenRequests: [{audience: disk}]}}`))
	c.must(c.create("persistentvolumes", "", `{metadata: {name: v}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], csi: {driver: disk.example, volumeHandle: h}}}`))
	for _, claim := range []string{"data", "all-scratch"} {
		c.must(c.create("persistentvolumeclaims", "demo", `{metadata: {name: `+claim+`}, spec: {volumeName: v, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}`))
	}
	const spec = `nodeName: n1, serviceAccountName: app, containers: [{name: c, image: i}]`
	for name, volumes := range map[string]string{
		"all": `{name: t, projected: {sources: [{serviceAccountToken: {path: t, audience: vault}}]}}, {name: i, csi: {driver: inline.example}},` +
			` {name: scratch, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}`,
		"claims": `{name: d, persistentVolumeClaim: {claimName: data}}`,
		"lost":   `{name: d, persistentVolumeClaim: {claimName: none}}, {name: i, csi: {driver: none.example}}`,
	} {
		c.must(c.create("pods", "demo", `{metadata: {name: `+name+`}, spec: {`+spec+`, automountServiceAccountToken: false, volumes: [`+volumes+`]}}`))
	}
	c.must(c.create("clusterroles.rbac.authorization.k8s.io", "", `{metadata: {name: granted}, rules: [{apiGroups: [""], verbs: [request-serviceaccounts-token-audience], resources: [granted], resourceNames: [app]}]}`))
	c.must(c.create("clusterrolebindings.rbac.authorization.k8s.io", "", `{metadata: {name: granted}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: granted}, subjects: [{kind: Group, apiGroup: rbac.authorization.k8s.io, name: "system:nodes"}]}`))
	for _, tt := range []struct {
		pod, audiences string
		ok             bool
	}{
		{"mine", "", true}, // what every pod mounts
		{"mine", "vault", false},
		{"mine", "granted", true},
		{"mine", "vault, granted", false},
		{"all", "", false}, // it mounts none for the API
		{"all", "vault", true},
		{"all", "inline", true},
		{"all", "disk", true}, // by the claim that is its own
		{"all", "other", false},
		{"claims", "disk", true},
		{"claims", "inline", false},
		{"lost", "disk", false},
		{"lost", "granted", true},
	} {
		pod := get[*corev1.Pod](c, "pods", "demo", tt.pod)
		_, err := tokenOf(c, node("n1"), "app", fmt.Sprintf(`spec: {audiences: [%s], boundObjectRef: {kind: Pod, apiVersion: v1, name: %s, uid: %s}}`, tt.audiences, tt.pod, pod.UID))
		want := fmt.Sprintf(`serviceaccounts "app" is forbidden: audience %q not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience`, tt.audiences)
		if strings.Contains(tt.audiences, ",") {
			want = `serviceaccounts "app" is forbidden: node may only request 0 or 1 audiences`
		}
		switch {
		case tt.ok && err != nil:
			t.Errorf("pod %s, audience %q: %v", tt.pod, tt.audiences, err)
		case !tt.ok && (!errors.Is(err, apierr.ErrForbidden) || err.Error() != want):
			t.Errorf("pod %s, audience %q: %v; want %s", tt.pod, tt.audiences, err, want)
		}
	}
}
