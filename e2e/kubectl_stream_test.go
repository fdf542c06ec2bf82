package e2e

// logs reads what containers have written.
func logs(k *typist) {
	k.has("p.yaml", `apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: two}}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: OnFailure
  initContainers: [{name: first, image: `+busyboxImage+`, command: [sh, -c, "echo begun"]}]
  containers:
  - {name: a, image: `+busyboxImage+`, command: [sh, -c, "for i in 1 2 3 4 5; do echo line $i; done; trap exit TERM; sleep 3600 & wait"]}
  - {name: b, image: `+busyboxImage+`, command: [sh, -c, "echo out; echo err >&2; [ -e /s/x ] && { trap exit TERM; sleep 3600 & wait; }; touch /s/x; exit 1"], volumeMounts: [{name: s, mountPath: /s}]}
  volumes: [{name: s, emptyDir: {}}]
`)
	k.does("$K apply -f p.yaml && $K wait --for=jsonpath='{.status.containerStatuses[1].restartCount}'=1 pod/two --timeout=120s && $K wait --for=condition=Ready pod/two --timeout=120s", "condition met")
	k.until("$K logs two -c a", "line 5") // Ready is not yet having said something
	k.until("$K logs two -c b", "out", "err")
	k.is("$K logs two -c a", "line 1\nline 2\nline 3\nline 4\nline 5")
	k.does("$K logs two", `Defaulted container "a" out of: a, b, first (init)`, "line 5")
	k.is("$K logs two -c first", "begun")
	k.is("$K logs two -c a --tail=2", "line 4\nline 5")
	k.is("$K logs two -c a --limit-bytes=8", "line 1\nl")
	k.is("$K logs two -c a --tail=1 --timestamps | sed 's/^20[0-9T:.-]*Z /at /'", "at line 5")
	k.is("$K logs two -c a --since=1h --tail=1", "line 5")
	k.is("$K logs two -c a --since-time=2020-01-01T00:00:00Z --tail=1; $K logs two -c a --since-time=2099-01-01T00:00:00Z", "line 5")
	k.does("$K logs two --all-containers --prefix", "[pod/two/a] line 1", "[pod/two/b] out", "[pod/two/b] err", "[pod/two/first] begun")
	k.does("$K logs two -c b --previous", "out", "err")
	k.fails(1, "$K logs two -c a --previous", `(BadRequest): previous terminated container "a" in pod "two" not found`)
	k.fails(1, "$K logs two -c x", "container x is not valid for pod two")
	k.fails(1, "$K get --raw /api/v1/namespaces/$N/pods/two/log", "(BadRequest): a container name must be specified for pod two, choose one of: [first a b]")
	k.fails(1, `$K get --raw "/api/v1/namespaces/$N/pods/two/log?container=a&tailLines=-1"`, "tailLines: Invalid value: -1: must be greater than or equal to 0")
	k.does("$K logs -l app=two -c a --max-log-requests=2", "line 5")
	k.does("$K logs -f two -c a --tail=1 > follow & p=$!; until grep -q 'line 5' follow; do sleep .1; done; $K exec two -c a -- sh -c 'echo line 6 >/proc/1/fd/1'; until grep -q 'line 6' follow; do sleep .1; done; kill $p; cat follow", "line 5\nline 6")
	k.has("d.yaml", deployment("web", 2))
	k.does("$K apply -f d.yaml && $K rollout status deploy/web --timeout=120s", "rolled out")
	k.until("$K logs deploy/web", "Found 2 pods, using pod/web-", "serving on")
	k.until("$K logs deploy/web --all-pods --prefix | sed 's/-[^/]*/-/'", "[pod/web-/main] ", "serving on")
	k.fails(1, "$K logs deploy/none", `deployments.apps "none" not found`)
	k.has("late.yaml", sleeper("late", "app: late", "true"))
	k.fails(1, "sed 's|"+busyboxImage+"|example.test/absent:1|' late.yaml | $K apply -f - && for i in $(seq 100); do $K get pod late | grep -q Pull && break; sleep .1; done; $K logs late", `(BadRequest): container "main" in pod "late" is waiting to start: `)
	// A log that is followed ends when its container does.
	k.has("short.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: short}\nspec: {restartPolicy: Never, containers: [{name: c, image: "+busyboxImage+", command: [sh, -c, 'echo 1; sleep 2; echo 2']}]}\n")
	k.does("$K apply -f short.yaml && until $K logs -f short 2>/dev/null; do sleep .2; done", "1\n2\n")
}

// both runs a script with each of the two protocols that kubectl speaks.
func (k *typist) both(script string, code int, want ...string) {
	k.t.Helper()
	for _, ws := range []string{"true", "false"} {
		k.fails(code, "export KUBECTL_REMOTE_COMMAND_WEBSOCKETS="+ws+" KUBECTL_PORT_FORWARD_WEBSOCKETS="+ws+"; "+script, want...)
	}
}

// execs runs programs in containers and joins theirs.
func execs(k *typist) {
	k.has("p.yaml", sleeper("box", "app: box", "true")+`apiVersion: v1
kind: Pod
metadata: {name: cat}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: `+busyboxImage+`, stdin: true, command: [sh, -c, 'while read l; do echo "heard $l"; done']}]}
`)
	k.does("$K apply -f p.yaml && $K wait --for=condition=Ready pod/box pod/cat --timeout=120s", "condition met")
	k.both("$K exec box -- hostname", 0, "box")
	k.both("$K exec box -- sh -c 'echo out; echo err >&2; exit 7'", 7, "out", "err", "command terminated with exit code 7")
	k.both("$K exec box -- nothing", 1, "Internal error occurred: error executing command in container", `exec: "nothing": executable file not found in $PATH`)
	k.both("echo to be read | $K exec -i box -- cat", 0, "to be read")
	k.both("head -c 3000000 /dev/zero | $K exec -i box -- wc -c", 0, "3000000")
	k.both("$K exec box -- head -c 3000000 /dev/zero | wc -c", 0, "3000000")
	k.both("script -qec \"stty rows 33 cols 77; $K exec -it box -- sh -c 'until stty size | grep -q 33; do sleep .1; done; stty size; tty; exit 3'\" /dev/null", 3, "33 77", "/dev/pts/")
	k.does("$K exec deploy/none -- true; $K exec box -c other -- true; true", "not found", "container other is not valid for pod box")
	// What a client leaves behind ends with it.
	k.both("$K exec box -- sleep 4242 & p=$!; until $K exec box -- ps | grep -q 'sleep 4242'; do sleep .1; done; kill $p; for i in $(seq 100); do $K exec box -- ps | grep -q 'sleep 4242' || exit 0; sleep .2; done; exit 1", 0)
	k.both("(echo you; sleep 1) | timeout 200 $K attach -i cat & until $K logs cat --tail=1 | grep 'heard you'; do sleep .1; done; kill $! 2>/dev/null; true", 0, "heard you")
}

// copies takes files into a pod and out of it.
func copies(k *typist) {
	k.has("p.yaml", sleeper("box", "app: box", "true"))
	k.does("$K apply -f p.yaml && $K wait --for=condition=Ready pod/box --timeout=120s", "condition met")
	k.does("mkdir -p d/e; head -c 2000000 /dev/urandom > d/e/big; echo small > d/small; $K cp d box:/tmp/d && rm -rf back && $K cp box:/tmp/d back && diff -r d back && echo same", "same")
	k.both("$K cp d/small box:/tmp/one && $K exec box -- cat /tmp/one && $K cp $N/box:/tmp/one -c main copied && cat copied", 0, "small")
	k.does("$K cp --retries=2 box:/tmp/d/e/big big && cmp big d/e/big && echo same", "same")
}

// forwards reaches ports of pods.
func forwards(k *typist) {
	k.has("web.yaml", deployment("web", 1)+"apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}\n")
	k.does("$K apply -f web.yaml && $K rollout status deploy/web --timeout=120s", "rolled out")
	const get = ` p=$!; until port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\) .*/\1/p' said) && [ "$port" ]; do sleep .1; done
ask() { exec 3<>/dev/tcp/127.0.0.1/$1; printf 'GET /hostname HTTP/1.0\r\n\r\n' >&3; cat <&3; exec 3>&-; }
`
	k.both("rm -f said; touch said; $K port-forward deploy/web :8080 > said 2>&1 &"+get+"ask $port; ask $port; kill $p", 0, "200 OK", "\nweb-")
	k.both("rm -f said; touch said; $K port-forward service/web :80 > said 2>&1 &"+get+"ask $port; kill $p", 0, "\nweb-")
	// A port that nobody listens on.
	k.both("rm -f said; touch said; $K port-forward $($K get pods -l app=web -o name) :9 > said 2>&1 &"+get+"ask $port; until grep -q refused said; do sleep .1; done; kill $p 2>/dev/null; cat said", 0, "forwarding port 9 to pod", "connection refused")
}

// proxies reaches pods, services and nodes through the API.
func proxies(k *typist) {
	k.has("web.yaml", deployment("web", 1)+"apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}\n")
	k.does("$K apply -f web.yaml && $K rollout status deploy/web --timeout=120s", "rolled out")
	k.until("$K get --raw /api/v1/namespaces/$N/services/web/proxy/hostname", "web-")
	k.does("$K get --raw /api/v1/namespaces/$N/services/http:web:http/proxy/hostname", "web-")
	k.does("$K get --raw /api/v1/namespaces/$N/services/web:80/proxy/hostname", "web-")
	k.does("pod=$($K get pods -l app=web -o jsonpath='{.items[0].metadata.name}'); $K get --raw /api/v1/namespaces/$N/pods/$pod/proxy/hostname; $K get --raw /api/v1/namespaces/$N/pods/$pod:8080/proxy/hostname", "web-")
	k.fails(1, "$K get --raw /api/v1/namespaces/$N/services/web:81/proxy/", "no service port 81 found for service")
	k.fails(1, "$K get --raw /api/v1/namespaces/$N/pods/none/proxy/", `pods "none" not found`)
	k.is("$K get --raw /api/v1/nodes/n1/proxy/healthz", "ok")
	k.does("$K get --raw /api/v1/nodes/n2:10250/proxy/metrics", "# HELP")
	k.does("$K get --raw /api/v1/nodes/n1/proxy/stats/summary", `"nodeName":"n1"`)
	k.does("pod=$($K get pods -l app=web -o jsonpath='{.items[0].metadata.name}') && node=$($K get pod $pod -o jsonpath={.spec.nodeName}) && $K get --raw /api/v1/nodes/$node/proxy/containerLogs/$N/$pod/main", "serving on")
	const local = ` p=$!; until port=$(sed -n 's/^Starting to serve on 127.0.0.1:\([0-9]*\)/\1/p' said) && [ "$port" ]; do sleep .1; done
ask() { exec 3<>/dev/tcp/127.0.0.1/$port; printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' $1 >&3; cat <&3; exec 3>&-; }
`
	k.does("rm -f said; touch said; $K proxy --port=0 > said 2>&1 &"+local+"ask /api/; ask /api/v1/namespaces/$N/services/web/proxy/hostname; ask /api/v1/namespaces/$N/services/web/proxy; kill $p",
		`"versions"`, "\nweb-", "301 Moved Permanently", "/services/web/proxy/")
	// A watch goes through as it comes, and so does what asks for another protocol.
	k.does("rm -f said; touch said; $K proxy --port=0 > said 2>&1 &"+local+`exec 3<>/dev/tcp/127.0.0.1/$port; printf 'GET /api/v1/namespaces/%s/configmaps?watch=true&fieldSelector=metadata.name=seen HTTP/1.0\r\nHost: localhost\r\n\r\n' $N >&3
$K create cm seen; grep -m1 '"type":"ADDED"' <&3; $K label cm seen a=b; grep -m1 '"type":"MODIFIED"' <&3; kill $p`, `"name":"seen"`, `"a":"b"`)
	k.has("box.yaml", sleeper("box", "app: box", "true"))
	k.does("$K apply -f box.yaml && $K wait --for=condition=Ready pod/box --timeout=120s", "condition met")
	k.both("rm -f said; touch said; $K proxy --port=0 --reject-paths='^$' > said 2>&1 &"+local+"echo through | $K --server http://127.0.0.1:$port exec -i box -- cat; kill $p", 0, "through")
	k.does("$K proxy --unix-socket=$PWD/sock > said 2>&1 & p=$!; until [ -S sock ] && grep -q Starting said; do sleep .1; done; kill $p; cat said", "Starting to serve on")
}

// debugs looks into pods and nodes.
func debugs(k *typist) {
	k.has("p.yaml", sleeper("box", "app: box", "true"))
	k.does("$K apply -f p.yaml && $K wait --for=condition=Ready pod/box --timeout=120s", "condition met")
	k.does("echo 'echo I see; ps; exit' | $K debug -i box --image="+busyboxImage+" --target=main -c look", "I see", "sleep 3600")
	k.until("$K get pod box -o jsonpath='{.status.ephemeralContainerStatuses[0]}'", `"terminated"`)
	k.does("$K debug box --image="+busyboxImage+" -c again -- sh -c 'echo hello from here; sleep 1' && until $K logs box -c again | grep 'hello from here'; do sleep .2; done", "hello from here")
	k.does("$K get pod box -o jsonpath='{.spec.ephemeralContainers[*].name} {.status.containerStatuses[0].restartCount}'", "look again 0")
	k.fails(1, "$K patch pod box --subresource=ephemeralcontainers -p '{\"spec\":{\"ephemeralContainers\":[{\"name\":\"look\",\"image\":\"other\"}]}}'", "may not be changed")
	k.does("echo 'hostname; exit' | $K debug -i box --image="+busyboxImage+" --copy-to=copy --container=new --share-processes", "copy")
	k.does("$K delete pod copy --now", "deleted")
	k.does("echo 'ls -d /host/etc; hostname; exit' | $K debug -i node/n1 --image="+busyboxImage+" --profile=general", "Creating debugging pod node-debugger-n1-", "/host/etc", "n1")
	k.does("$K delete pod -l app.kubernetes.io/managed-by=kubectl-debug --now; $K get pods -o name", "pod/box")
}

// runs makes pods from the command line.
func runs(k *typist) {
	k.does("$K run one --image="+busyboxImage+" --labels=a=b --env=X=y --restart=Never --command -- sh -c 'echo $X'", "pod/one created")
	k.until("$K logs one; $K get pod one", "Completed")
	k.does("$K logs one", "y")
	k.does("echo 'echo heard; exit' | $K run two -i --rm --quiet --image="+busyboxImage+" --restart=Never -- sh", "heard")
	k.does("script -qec \"$K run three -it --rm --image="+busyboxImage+" --restart=Never -- sh -c 'sleep 1; tty'\" /dev/null", "/dev/pts/", `pod "three" deleted`)
	k.fails(5, "$K run four --attach --rm --quiet --image="+busyboxImage+" --restart=Never -- sh -c 'sleep 1; exit 5'")
	k.does("$K run five --image="+helloImage+" --port=8080 --expose", "service/five created", "pod/five created")
	k.does("$K wait --for=delete pod/two pod/three pod/four --timeout=120s")
	k.is("$K get pods -o name | sort | tr '\\n' ' '", "pod/five pod/one")
}

// resizes changes what a running container may use.
func resizes(k *typist) {
	k.has("p.yaml", sleeper("box", "app: box", "true"))
	k.does("$K apply -f p.yaml && $K wait --for=condition=Ready pod/box --timeout=120s", "condition met")
	k.does(`$K patch pod box --subresource=resize -p '{"spec":{"containers":[{"name":"main","resources":{"requests":{"memory":"16Mi"},"limits":{"memory":"96Mi"}}}]}}'`, "pod/box patched")
	k.until("$K get pod box -o jsonpath='{.status.containerStatuses[0].resources.limits.memory} {.status.containerStatuses[0].restartCount}'", "96Mi 0")
	k.does("$K exec box -- sh -c 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true'", "100663296")
	k.does(`$K patch pod box --subresource=resize -p '{"spec":{"containers":[{"name":"main","resources":{"requests":{"memory":"9000Gi"},"limits":{"memory":"9000Gi"}}}]}}'`, "pod/box patched")
	k.until("$K get pod box -o jsonpath='{.status.conditions[?(@.type==\"PodResizePending\")].reason}'", "Infeasible")
	k.does("$K get pod box --subresource=resize", "Running")
	k.fails(1, `$K patch pod box -p '{"spec":{"containers":[{"name":"main","resources":{"limits":{"memory":"1Gi"}}}]}}'`, "pod updates may not change fields other than")
	k.fails(1, `$K patch pod box --subresource=resize -p '{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":null}}}]}}'`, "resource requests cannot be removed")
}
