package e2e

// creates makes objects of each kind that kubectl has a command for.
func creates(k *typist) {
	k.does("$K create configmap m --from-literal=a=b --from-literal=c=d", "configmap/m created")
	k.has("file.txt", "text\n")
	k.does("$K create configmap f --from-file=file.txt && $K get configmap f -o jsonpath='{.data.file\\.txt}'", "text")
	k.does("$K create secret generic s --from-literal=p=word && $K get secret s -o jsonpath='{.data.p}' | base64 -d", "word")
	k.does("$K create secret docker-registry r --docker-server=x --docker-username=u --docker-password=p", "secret/r created")
	k.does("openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -subj /CN=x 2>/dev/null; $K create secret tls t --cert=c.pem --key=k.pem", "secret/t created")
	k.does("$K create deployment d --image="+helloImage+" --replicas=2 --port=8080", "deployment.apps/d created")
	k.does("$K create service clusterip c --tcp=80:8080 && $K create service nodeport np --tcp=80:8080 && $K create service loadbalancer lb --tcp=80 && $K create service externalname en --external-name=example.test",
		"service/c created", "service/np created", "service/lb created", "service/en created")
	k.does("$K create job j --image="+busyboxImage+" -- sh -c 'exit 0'", "job.batch/j created")
	k.does("$K create cronjob cj --image="+busyboxImage+" --schedule='0 0 1 1 *' -- true", "cronjob.batch/cj created")
	k.does("$K create job from --from=cronjob/cj", "job.batch/from created")
	k.does("$K create ingress i --rule='a.example/*=c:80'", "ingress.networking.k8s.io/i created")
	k.does("$K create quota q --hard=pods=10", "resourcequota/q created")
	k.does("$K create poddisruptionbudget p --selector=app=d --min-available=1", "poddisruptionbudget.policy/p created")
	k.does("$K create priorityclass $N --value=1 --description=x && $K delete priorityclass $N", "priorityclass.scheduling.k8s.io/"+k.ns+" created", "deleted")
	k.does("$K create serviceaccount sa && $K create role ro --verb=get --resource=pods && $K create rolebinding rb --role=ro --serviceaccount=$N:sa", "rolebinding.rbac.authorization.k8s.io/rb created")
	k.does("$K create clusterrole $N --verb=list --resource=pods && $K create clusterrolebinding $N --clusterrole=$N --user=x; $K delete clusterrole,clusterrolebinding $N", "created", "deleted")
	k.does("$K create namespace $N-more && $K delete namespace $N-more", "created", "deleted")
	k.does("$K get all,cm,secret,ingress,pdb,quota", "configmap/m", "secret/s", "job.batch/j", "cronjob.batch/cj", "ingress.networking.k8s.io/i")
	k.fails(1, "$K create configmap m", `configmaps "m" already exists`)
	k.has("bad.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndata: {a: b}\nbogus: 1\n")
	k.fails(1, "$K create -f bad.yaml", `strict decoding error: unknown field "bogus"`)
	k.does("$K create -f bad.yaml --validate=warn", `Warning: unknown field "bogus"`, "configmap/bad created")
	k.does("$K create --dry-run=server -f bad.yaml --validate=ignore -o name; true", "configmaps \"bad\" already exists")
	k.does("$K create --raw /api/v1/namespaces/$N/configmaps -f <(echo '{\"metadata\":{\"name\":\"raw\"}}')", `"name":"raw"`)
}

const mapYAML = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, labels: {tier: front}}\ndata: {colour: red}\n"

// changes writes over objects in every way.
func changes(k *typist) {
	k.has("m.yaml", mapYAML)
	k.has("d.yaml", deployment("d", 1))
	k.does("$K apply -f m.yaml -f d.yaml", "configmap/m created", "deployment.apps/d created")
	k.does("$K apply -f m.yaml -f d.yaml", "configmap/m unchanged", "deployment.apps/d unchanged")
	k.does("$K diff -f m.yaml -f d.yaml")
	k.fails(1, "sed s/red/blue/ m.yaml | $K diff -f -", "-  colour: red", "+  colour: blue")
	k.does("sed s/red/blue/ m.yaml | $K apply -f - --dry-run=server && $K get cm m -o jsonpath={.data.colour}", "configured (server dry run)", "red")
	k.does("sed s/red/blue/ m.yaml | $K apply -f -", "configmap/m configured")
	k.does("$K apply view-last-applied cm/m", "colour: blue")
	k.does("$K apply set-last-applied -f m.yaml && $K apply view-last-applied cm/m", "colour: red")
	k.does("$K apply --server-side --force-conflicts -f m.yaml && $K get cm m --show-managed-fields -o jsonpath='{.metadata.managedFields[*].manager}'", "serverside-applied", "kubectl")
	k.does("$K apply --server-side --field-manager=other --dry-run=server -f m.yaml", "serverside-applied (server dry run)")
	k.fails(1, "sed s/red/green/ m.yaml | $K apply --server-side --field-manager=other -f -", "Apply failed with 1 conflict", ".data.colour")
	k.does("$K apply --prune -l tier=front --prune-allowlist=core/v1/ConfigMap -f m.yaml", "configmap/m")
	k.does("sed s/red/grey/ m.yaml | $K replace -f - && $K get cm m -o jsonpath={.data.colour}", "configmap/m replaced", "grey")
	k.does("$K replace --force -f m.yaml", `configmap "m" deleted`, "configmap/m replaced")
	k.has("editor", "#!/bin/sh\nsed -i s/red/edited/ \"$1\"\n")
	k.does("chmod +x editor; KUBE_EDITOR=$PWD/editor $K edit cm m && $K get cm m -o jsonpath={.data.colour}", "configmap/m edited", "edited")
	k.does("KUBE_EDITOR=true $K edit cm m", "Edit cancelled, no changes made.")
	// What is refused is opened again, with the reason, until it is right.
	k.has("again", `#!/bin/sh
if [ -e opened ]
then cp "$1" opened; sed -i 's|co/lour: wrong|colour: right|' "$1"
else touch opened; sed -i 's|colour: .*|co/lour: wrong|' "$1"
fi
`)
	k.does("chmod +x again; KUBE_EDITOR=$PWD/again $K edit cm m && cat opened && $K get cm m -o jsonpath={.data.colour}",
		"configmap/m edited", `# configmaps "m" was not valid:`, "# * data[co/lour]: Invalid value:", "right")
	k.does(`$K patch cm m -p '{"data":{"a":"b"}}' && $K patch cm m --type merge -p '{"data":{"a":null}}' && $K patch cm m --type json -p '[{"op":"add","path":"/data/z","value":"y"}]' && $K get cm m -o jsonpath='{.data}'`, "patched", `"z":"y"`, `!"a"`)
	k.does("$K label cm m x=y && $K label cm m x=z --overwrite && $K label cm m --list", "configmap/m labeled", "x=z")
	k.fails(1, "$K label cm m x=w", "--overwrite is false")
	k.does("$K label cm m x- && $K label cm --all all=yes && $K get cm -l all=yes -o name", "configmap/m unlabeled", "configmap/m")
	k.does("$K annotate cm m note='a b' && $K annotate cm m --list && $K annotate cm m note-", "configmap/m annotated", "note=a b")
	k.does("$K set image deploy/d main="+busyboxImage+" --dry-run=server -o jsonpath='{.spec.template.spec.containers[0].image}'", busyboxImage)
	k.does("$K set env deploy/d A=b && $K set env deploy/d --list && $K set env deploy/d --from=cm/m --prefix=M_ && $K set env deploy/d A-", "deployment.apps/d env updated", "A=b")
	k.does("$K set resources deploy d --limits=memory=64Mi --requests=memory=8Mi", "deployment.apps/d resource requirements updated")
	k.does("$K set serviceaccount deploy d default", "serviceaccount updated")
	k.does("$K create sa s && $K create role r --verb=get --resource=pods && $K create rolebinding b --role=r --user=u && $K set subject rolebinding b --serviceaccount=$N:s", "rolebinding.rbac.authorization.k8s.io/b subjects updated")
	k.does("$K expose deploy d --port=80 --target-port=http && $K set selector service d app=other && $K get service d -o jsonpath='{.spec.selector.app} {.spec.ports[0].targetPort}'", "service/d exposed", "selector updated", "other http")
	k.does("$K scale deploy d --replicas=2 && $K scale deploy d --current-replicas=2 --replicas=1", "deployment.apps/d scaled")
	k.fails(1, "$K scale deploy d --current-replicas=7 --replicas=1", "Expected replicas to be 7, was 1")
	k.fails(1, "$K scale deploy d --resource-version=1 --replicas=1", "Expected resource version to be 1, was ")
	k.until("$K scale deploy d --resource-version=$($K get deploy d -o jsonpath={.metadata.resourceVersion}) --replicas=1", "deployment.apps/d scaled")
	k.does("$K patch deploy d --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":2}}'", "scale.autoscaling/d patched")
	k.does("$K autoscale deploy d --min=1 --max=3 --cpu-percent=80 2>/dev/null || $K autoscale deploy d --min=1 --max=3 --cpu=80%; $K get hpa d -o jsonpath='{.spec.maxReplicas}'", "autoscaled", "3")
	k.fails(1, "$K patch deploy d -p '{\"spec\":{\"selector\":{\"matchLabels\":{\"app\":\"x\"}}}}'", "The Deployment \"d\" is invalid", "field is immutable")
}

// removes deletes objects in every way.
func removes(k *typist) {
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		k.does("$K create cm "+name+" && $K label cm "+name+" kind=of", "created")
	}
	k.does("$K delete cm a --dry-run=server && $K get cm a -o name", `configmap "a" deleted`, "(server dry run)", "configmap/a")
	k.does("$K delete cm a b", `configmap "a" deleted`, `configmap "b" deleted`)
	k.does("$K delete cm/c --wait=false -o name", "configmap/c")
	k.does("$K delete cm -l kind=of", `configmap "d" deleted`, `configmap "e" deleted`, `!configmap "a"`)
	k.fails(1, "$K delete cm a", "(NotFound)")
	k.does("$K delete cm a --ignore-not-found")
	k.does("$K create cm f && $K delete cm --field-selector metadata.name=f", `configmap "f" deleted`)
	k.does("$K create cm g && $K create cm h && $K delete cm --all && $K get cm g h --ignore-not-found", `configmap "g" deleted`, `configmap "h" deleted`, "!AGE")
	k.has("pods.yaml", sleeper("now", "a: b", "true")+sleeper("force", "a: b", "true")+sleeper("wait", "a: b", "true"))
	k.has("d.yaml", deployment("keep", 1)+deployment("front", 1))
	k.does("$K apply -f pods.yaml -f d.yaml", "created")
	k.does("$K wait --for=condition=Ready pod -l a=b --timeout=120s", "condition met")
	k.does("$K delete pod now --now", `pod "now" deleted`)
	k.does("$K delete pod force --grace-period=0 --force", "Immediate deletion does not wait", `pod "force" force deleted`)
	k.does("$K -v=6 wait --for=delete pod/wait --timeout=120s > waits 2>&1 & p=$!; until grep -q 'watch=true' waits; do sleep .1; done; $K delete pod wait --grace-period=1; wait $p; cat waits", `pod "wait" deleted`, "pod/wait condition met")
	k.does("$K rollout status deploy/keep --timeout=120s && $K rollout status deploy/front --timeout=120s", "rolled out")
	k.does("$K delete deploy keep --cascade=orphan && $K get rs -l app=keep -o name && $K delete rs -l app=keep", "replicaset.apps/keep-")
	k.does("$K delete deploy front --cascade=foreground --timeout=120s && $K get rs,pods -l app=front", `"front" deleted`, "No resources found")
	k.does("$K delete --raw /api/v1/namespaces/$N/configmaps/none; true", "not found")
	k.does("$K create deployment last --image="+helloImage+" && $K create service clusterip last --tcp=80:8080 && $K delete all --all --timeout=120s && $K get all", `"last" deleted`, "No resources found")
}

// rollouts follows, stops, repeats and undoes changes of a Deployment.
func rollouts(k *typist) {
	k.has("d.yaml", deployment("d", 1))
	k.does("$K apply -f d.yaml", "created")
	k.does("$K rollout status deploy/d --timeout=120s", `deployment "d" successfully rolled out`)
	k.does("$K annotate deploy d kubernetes.io/change-cause=first", "annotated")
	k.does("$K set env deploy/d A=b && $K rollout status deploy d --timeout=120s", "rolled out")
	k.until("$K rollout history deploy/d", "REVISION", "CHANGE-CAUSE", "1 ", "2 ")
	k.does("$K rollout history deploy/d --revision=2", "A:", "b")
	k.does("$K rollout undo deploy/d && $K rollout status deploy/d --timeout=120s && $K set env deploy/d --list", "deployment.apps/d rolled back", "!A=b")
	k.does("$K rollout undo deploy/d --to-revision=2 --dry-run=server", "rolled back (server dry run)")
	k.fails(1, "$K rollout undo deploy/d --to-revision=77", "unable to find specified revision 77")
	k.does("$K rollout pause deploy/d && $K get deploy d -o jsonpath={.spec.paused}", "deployment.apps/d paused", "true")
	k.fails(1, "$K rollout undo deploy/d", "cannot rollback a paused deployment")
	k.does("$K rollout resume deploy/d", "deployment.apps/d resumed")
	k.does("$K rollout restart deploy/d && $K rollout status deploy/d --timeout=120s", "deployment.apps/d restarted", "rolled out")
	k.does("$K wait --for=condition=Available deploy/d && $K wait --for=jsonpath='{.status.readyReplicas}'=1 deploy/d --timeout=120s", "condition met")
	k.fails(1, "$K wait --for=condition=Never deploy/d --timeout=1s", "timed out waiting for the condition")
	k.does("($K wait --for=create cm/late --timeout=120s & sleep 1; $K create cm late; wait)", "configmap/late condition met")
	k.has("stuck.yaml", deployment("stuck", 1))
	k.does("sed 's/replicas: 1/replicas: 1\\n  progressDeadlineSeconds: 2/; s|"+helloImage+"|example.test/none:1|' stuck.yaml | $K apply -f -", "created")
	k.fails(1, "$K rollout status deploy/stuck --timeout=120s", "exceeded its progress deadline")
}

// tendsNodes cordons, taints and drains.
func tendsNodes(k *typist) {
	k.does("$K cordon n2 && $K get node n2 && $K uncordon n2", "node/n2 cordoned", "SchedulingDisabled", "node/n2 uncordoned")
	k.does("$K cordon -l kubernetes.io/hostname=n2 && $K uncordon n2", "node/n2 cordoned")
	k.does("$K taint nodes n2 $N=x:PreferNoSchedule && $K describe node n2 && $K taint nodes n2 $N-", "node/n2 tainted", k.ns+"=x:PreferNoSchedule", "node/n2 untainted")
	k.does("$K label node n2 $N=yes && $K get nodes -l $N=yes -o name && $K label node n2 $N-", "node/n2 labeled", "node/n2")
	k.has("d.yaml", deployment("d", 2)+"apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: d}\nspec: {minAvailable: 2, selector: {matchLabels: {app: d}}}\n")
	k.has("bare.yaml", sleeper("bare", "app: d2", "true"))
	k.does("$K apply -f d.yaml && $K rollout status deploy/d --timeout=120s", "rolled out")
	k.does("sed 's/^spec:/spec:\\n  nodeName: n2/' bare.yaml | $K apply -f - && $K wait --for=condition=Ready pod/bare --timeout=120s", "condition met")
	k.fails(1, "$K drain n2 --pod-selector=app=d2; code=$?; $K uncordon n2; exit $code", "cannot delete", "use --force to override")
	k.does("$K drain n2 --pod-selector=app=d2 --force --dry-run=server", "evicting pod "+k.ns+"/bare (server dry run)", "drained (server dry run)")
	k.does("$K drain n2 --pod-selector=app=d2 --force --grace-period=1 --timeout=120s && $K uncordon n2", "pod/bare evicted", "node/n2 drained")
	// A budget that is spent lets nobody go.
	k.does(`$K patch pdb d --subresource=status --type=merge -p '{"status":{"observedGeneration":1,"disruptionsAllowed":0,"currentHealthy":2,"desiredHealthy":2,"expectedPods":2}}'`, "patched")
	k.fails(1, "n=$($K get pods -l app=d -o jsonpath='{.items[0].spec.nodeName}'); $K drain $n --pod-selector=app=d --timeout=8s; code=$?; $K uncordon $n; exit $code",
		"error when evicting pods", "Cannot evict pod as it would violate the pod's disruption budget.", "global timeout reached")
	k.does("$K delete pdb d && n=$($K get pods -l app=d -o jsonpath='{.items[0].spec.nodeName}') && $K drain $n --pod-selector=app=d --timeout=120s; $K uncordon $n", "evicted", "drained")
	k.does("$K rollout status deploy/d --timeout=120s", "rolled out")
}

// certifies asks for a certificate, answers, and is whom the certificate names.
func certifies(k *typist) {
	k.does(`openssl req -new -newkey rsa:2048 -nodes -keyout k.pem -out r.pem -subj /O=painters/CN=jane 2>/dev/null
cat >csr.yaml <<EOF
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: $N-yes}
spec: {request: $(base64 -w0 r.pem), signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}
EOF
$K apply -f csr.yaml && sed s/-yes/-no/ csr.yaml | $K apply -f -`, "created")
	k.does("$K get csr $N-yes", "Pending", "kubernetes.io/kube-apiserver-client")
	k.does("$K certificate approve $N-yes && $K get csr $N-yes", "certificatesigningrequest.certificates.k8s.io/"+k.ns+"-yes approved", "Approved")
	k.until("$K get csr $N-yes", "Approved,Issued")
	k.does(`$K get csr $N-yes -o jsonpath='{.status.certificate}' | base64 -d >k.crt
$K config view --raw --minify -o jsonpath='{.clusters[0].cluster.certificate-authority-data}' | base64 -d >ca.crt
J="$K --kubeconfig /dev/null --certificate-authority ca.crt --client-certificate k.crt --client-key k.pem"
$J auth whoami && $J get pods; true`, "jane", "painters", "system:authenticated", `pods is forbidden: User "jane" cannot list`)
	k.fails(1, `openssl req -new -key k.pem -out m.pem -subj /O=system:masters/CN=jane && sed "s/-yes/-masters/; s/request: [^,]*/request: $(base64 -w0 m.pem)/" csr.yaml | $K create -f -`,
		"use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed")
	k.does("$K certificate deny $N-no && $K get csr $N-no", "denied", "Denied")
	k.does("$K get csr $N-yes -o jsonpath='{.status.conditions[0].reason}'", "KubectlApprove")
	k.does("$K delete csr $N-yes $N-no", "deleted")
}
