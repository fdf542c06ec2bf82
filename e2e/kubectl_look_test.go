package e2e

// discovers asks what there is, and what it means.
func discovers(k *typist) {
	k.does("$K version", "Server Version: v1.34.")
	k.does("$K version -o json", `"serverVersion"`, `"major": "1"`)
	k.does("$K api-versions", "apps/v1\n", "metrics.k8s.io/v1beta1\n", "\nv1\n")
	k.does("$K api-resources --namespaced=false -o name", "nodes\n", "namespaces\n", "!pods\n")
	k.does("$K api-resources --api-group=apps --verbs=list,watch", "deployments", "deploy", "apps/v1", "!configmaps")
	k.does("$K api-resources -o wide", "pods", "create,delete,deletecollection,get,list,patch,update,watch")
	k.does("$K cluster-info", "is running at")
	k.does("$K explain deployment.spec.strategy.rollingUpdate", "GROUP:      apps", "KIND:       Deployment", "maxSurge", "The maximum number of pods that can be scheduled above")
	k.does("$K explain pods --recursive", "containers\t<[]Container> -required-", "imagePullPolicy")
	k.does("$K explain deployments.spec.replicas --output=plaintext-openapiv2", "FIELD:    replicas <integer>", "Number of desired pods")
	k.fails(1, "$K explain pods.spec.nothing", `field "nothing" does not exist`)
	k.fails(1, "$K get nothing", `the server doesn't have a resource type "nothing"`)
	k.does("$K get --raw /version", `"gitVersion": "v1.34.`)
	k.until("$K get --raw '/readyz?verbose'", "[+]", "readyz check passed") // not while a leader is being elected
	k.does("$K options", "--as-group")
}

// gets shows objects in every form.
func gets(k *typist) {
	k.has("all.yaml", sleeper("one", "app: x, tier: front", "true")+sleeper("two", "app: x", "true")+deployment("web", 1)+
		"apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}\n")
	k.does("$K apply -f all.yaml", "pod/one created", "service/web created")
	k.does("$K wait --for=condition=Ready pod -l app=x --timeout=120s", "pod/one condition met")
	k.does("$K rollout status deploy/web --timeout=120s", "successfully rolled out")
	k.does("$K get pods", "NAME", "READY", "1/1", "Running")
	k.does("$K get pods -o wide --show-labels", "NOMINATED NODE", "app=x,tier=front", "10.244.")
	k.does("$K get pods -L tier", "TIER", "front")
	k.is("$K get pods -l 'app in (x),!tier' -o name", "pod/two")
	k.is("$K get pods -l app=x --field-selector metadata.name!=two -o name", "pod/one")
	k.does("$K get pods -A --field-selector status.phase=Running", "NAMESPACE", "one")
	k.is("$K get pods -l app=x --sort-by=.metadata.name -o custom-columns=N:.metadata.name,P:.status.phase --no-headers | tr -s ' '", "one Running\ntwo Running")
	k.is("$K get pods -l app=x --sort-by='{.metadata.name}' -o jsonpath='{range .items[*]}{.metadata.name}={.spec.restartPolicy} {end}'", "one=Always two=Always")
	k.is("$K get pod one -o go-template='{{.metadata.name}} {{len .spec.containers}}'", "one 1")
	k.is("$K get pod one -o template --template='{{.kind}}'", "Pod")
	k.does("$K get pod one -o json", `"kind": "Pod"`, `"phase": "Running"`, "!managedFields")
	k.does("$K get pod one -o yaml --show-managed-fields", "managedFields:", "manager: kubectl-client-side-apply")
	k.does("$K get pods,services -o name", "pod/one", "service/web")
	k.does("$K get all", "pod/one", "service/web", "deployment.apps/web", "replicaset.apps/web-")
	k.does("$K get deploy web --subresource=scale", "NAME", "DESIRED", "AVAILABLE")
	k.does("$K get deploy web --subresource=status -o yaml", "readyReplicas: 1")
	k.does("$K get --raw /api/v1/namespaces/$N/pods?limit=1", `"kind":"PodList"`, `"remainingItemCount":2`, `"continue":"`)
	k.does("$K get -f all.yaml", "pod/one", "service/web")
	k.fails(1, "$K get pod three", `Error from server (NotFound): pods "three" not found`)
	k.does("$K get pod three --ignore-not-found")
	k.does("$K get configmap -l none=none", "No resources found")
	k.does("$K get pods -l app=x -w --no-headers > seen & p=$!; until grep -q one seen && grep -q two seen; do sleep .1; done; kill -0 $p && kill $p && cat seen", "one", "two")
	k.does("$K get pods -l app=x -w --output-watch-events -o name > seen & p=$!; until grep -q pod/one seen && grep -q pod/two seen; do sleep .1; done; kill -0 $p && kill $p && cat seen", "pod/one", "pod/two")
	k.until("$K describe pod one", "Name:             one", "QoS Class:", "Events:", "Started container main")
	k.does("$K describe deployment web", "StrategyType:           RollingUpdate", "NewReplicaSet:")
	k.until("$K describe service web", "Endpoints:                10.244.", "Selector:                 app=web")
	k.does("$K describe rs", "Controlled By:  Deployment/web")
	k.does("$K describe node n1", "Allocatable:", "Conditions:", "Non-terminated Pods:")
	k.does("$K describe namespace $N", "Status:       Active")
	k.does("$K describe sa default", "Name:                default")
	k.does("$K describe po on", "Name:             one") // by the beginning of its name
	k.until("$K events --for pod/one", "Scheduled", "Started")
	k.does("$K events --watch > seen & p=$!; until grep -q ScalingReplicaSet seen; do sleep .1; done; $K scale deploy web --replicas=2; until grep -q 'replica set web-.* to 2' seen || grep -q 'replica set web-.* from 1 to 2' seen; do sleep .1; done; kill $p; cat seen",
		"LAST SEEN", "deployment.apps/web scaled", "Deployment/web")
	k.does("$K events --types=Normal -o json", `"kind": "EventList"`)
	k.until("$K get events --sort-by=.lastTimestamp", "Started container main")
	k.has("limits.yaml", `apiVersion: v1
kind: ResourceQuota
metadata: {name: few}
spec: {hard: {pods: "20"}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: small}
spec: {limits: [{type: Container, max: {memory: 4Gi}, default: {memory: 64Mi}}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: disk}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: none}
`)
	k.does("$K apply -f limits.yaml", "resourcequota/few created", "limitrange/small created", "persistentvolumeclaim/disk created")
	k.does("$K describe quota few", "Name:", "few", "Resource", "Used", "Hard")
	k.does("$K describe limits small", "Name:", "small", "Type", "Container", "memory", "4Gi", "64Mi")
	k.does("$K describe pvc disk", "Name:          disk", "StorageClass:  none", "Status:        Pending", "Used By:       <none>")
	k.does("$K get quota,limits,pvc", "resourcequota/few", "limitrange/small", "persistentvolumeclaim/disk")
	k.does("$K delete -f limits.yaml", "deleted") // claims hold nothing up here
	k.does("$K cluster-info dump --namespaces=$N --output-directory=dump && ls dump dump/$N && cat dump/$N/one/logs.txt", "nodes.json", "pods.json", "replication-controllers.json", "START logs for container main of pod")
}

// locals are the commands that need no server, or little of it.
func locals(k *typist) {
	k.has("kustomization.yaml", "resources: [map.yaml]\nnamePrefix: my-\n")
	k.has("map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {a: b}\n")
	k.does("$K kustomize .", "name: my-map")
	k.does("$K apply -k .", "configmap/my-map created")
	k.does("$K delete -k .", `configmap "my-map" deleted`)
	k.does("$K completion bash", "complete")
	k.does("$K config view", "clusters:", "DATA+OMITTED")
	k.does("$K config current-context && $K config get-contexts && $K config get-clusters && $K config get-users", "CURRENT", "NAME")
	k.does("cp /root/.kube/config mine && "+k.program+" --kubeconfig mine config set-context other --namespace=x --cluster=y && "+k.program+" --kubeconfig mine config use-context other && "+
		k.program+" --kubeconfig mine config view -o jsonpath='{.contexts[?(@.name==\"other\")].context.namespace}'", `Context "other" created.`, `Switched to context "other".`, "x")
	k.does("$K plugin list; true", "plugin")
	k.does("$K create configmap dry --from-literal=a=b --dry-run=client -o yaml | $K label --local -f - x=y -o yaml", "x: \"y\"")
	k.does(k.program+" __complete get pod", ":")
	k.does("$K --help", "apply", "rollout", "debug")
}

// tops shows what nodes and pods use.
func tops(k *typist) {
	k.has("busy.yaml", sleeper("busy", "app: busy", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"))
	k.does("$K apply -f busy.yaml", "created")
	k.until("$K top nodes", "NAME", "CPU(cores)", "MEMORY(bytes)", "n1", "n2", "%")
	k.does("$K top node n1 --no-headers", "n1", "!n2")
	k.does("$K top nodes --sort-by=memory --show-capacity", "n1", "n2")
	k.does("$K get nodes.metrics.k8s.io", "NAME", "CPU", "WINDOW", "n1")
	k.does("$K wait --for=condition=Ready pod/busy --timeout=120s")
	k.until("$K top pods", "NAME", "busy", "m ", "Mi")
	k.does("$K top pod busy --containers", "POD", "main")
	k.does("$K top pods -A --sort-by=cpu", "NAMESPACE", "busy")
	k.does("$K top pods -l app=busy --sum", "________")
	k.does("$K get --raw /apis/metrics.k8s.io/v1beta1/namespaces/$N/pods/busy", `"kind":"PodMetrics"`, `"window":"`, `"timestamp":"`, `"name":"main"`)
	k.fails(1, "$K top pod nothing", "(NotFound)", `podmetrics.metrics.k8s.io "`+k.ns+`/nothing" not found`)
}

// authorizes asks who one is and what one may.
func authorizes(k *typist) {
	k.is("$K auth can-i create pods", "yes")
	k.fails(1, "$K auth can-i delete nodes --as jane", "no")
	k.does("$K auth whoami", "Username", "kubernetes-admin")
	k.does("$K auth whoami -o yaml", "system:masters")
	k.does("$K auth can-i --list", "*.*", "[*]")
	k.does("$K create role reader --verb=get,list --resource=pods", "role.rbac.authorization.k8s.io/reader created")
	k.does("$K create rolebinding readers --role=reader --user=jane --serviceaccount=$N:robot", "created")
	k.does("$K create serviceaccount robot", "serviceaccount/robot created")
	k.until("$K auth can-i list pods --as jane", "yes") // bindings are heard of a moment later
	k.fails(1, "$K auth can-i list secrets --as jane", "no")
	k.until("$K get pods --as jane", "No resources found")
	k.fails(1, "$K get secrets --as jane", "Error from server (Forbidden)", `User "jane" cannot list resource "secrets"`)
	k.until("$K auth can-i get pods --as system:serviceaccount:$N:robot", "yes")
	k.is("$K create token robot --duration=15m | grep -cE '^[^.]+[.][^.]+[.][^.]+$'", "1")
	k.has("secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: robot, annotations: {kubernetes.io/service-account.name: robot}}\ntype: kubernetes.io/service-account-token\n")
	k.does("$K apply -f secret.yaml", "created")
	k.until("$K describe secret robot", "token:")
	k.does("$K get secret robot -o jsonpath='{.data.token}' | base64 -d >token; $K --token $(cat token) auth whoami", "system:serviceaccount:"+k.ns+":robot")
	k.does("$K delete secret robot", "deleted")
	k.until("! $K --token $(cat token) auth whoami", "Unauthorized")
	k.has("role.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader, namespace: "+k.ns+"}\nrules: [{apiGroups: [''], resources: [configmaps], verbs: [get]}]\n")
	k.does("$K auth reconcile -f role.yaml", "reconciled")
	k.does("$K describe role reader", "configmaps", "pods")
	k.does("$K create clusterrole $N --verb=get --resource=nodes --dry-run=server", "created (server dry run)")
}
