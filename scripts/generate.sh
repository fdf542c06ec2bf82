#!/usr/bin/env bash
# Writes what is generated from proto/: the Go code and the descriptor set that
# reflection serves. With --check it writes into a scratch folder instead, says
# what would change and fails if anything would; the tree stays as it is.
#
# usage: scripts/generate.sh [--check] [FOLDER OF THE TOOLS]
set -euo pipefail
cd "$(dirname "$0")/.."

check=
if [[ ${1:-} == --check ]]; then
	check=1
	shift
fi
tools=$(realpath "${1:-.cache/tools}")
export PATH="$tools:$PATH"

# What is generated, and nothing else: --check compares these.
generated=(internal/gen internal/descriptors/descriptors.binpb)

# The Kubernetes messages that travel inside google.protobuf.Any. No message of
# ours names one as a field, so no import of ours brings them; reflection is
# given them by this list.
kubernetes=(
	api/{core,apps,batch,policy,networking,discovery,events,coordination,rbac,storage,scheduling,node}/v1 api/scheduling/v1alpha3
	api/autoscaling/v{1,2}
	api/{authentication,authorization,certificates,admissionregistration,flowcontrol,resource}/v1
	apimachinery/pkg/{api/resource,apis/meta/v1,runtime,runtime/schema,util/intstr}
	apiextensions-apiserver/pkg/apis/apiextensions/v1 kube-aggregator/pkg/apis/apiregistration/v1
	metrics/pkg/apis/metrics/v1beta1
)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

root=.
if [[ -n $check ]]; then
	root=$scratch/out
	mkdir -p "$root/internal/descriptors"
fi

buf generate --output "$root"

protos=$scratch/protos
mkdir -p "$protos"
go mod download k8s.io/api k8s.io/apimachinery k8s.io/apiextensions-apiserver k8s.io/kube-aggregator k8s.io/metrics
cp -r proto/wherry "$protos/"
for at in "${kubernetes[@]}"; do
	module=k8s.io/${at%%/*}
	install -D -m 644 "$(go list -m -f '{{.Dir}}' "$module")/${at#*/}/generated.proto" "$protos/k8s.io/$at/generated.proto"
done
buf build "$protos" --exclude-source-info --as-file-descriptor-set -o "$root/internal/descriptors/descriptors.binpb"

[[ -z $check ]] && exit 0
stale=0
for at in "${generated[@]}"; do
	diff -rq "$at" "$root/$at" || stale=1
done
if ((stale)); then
	echo "generated files are not what proto/ and tools/go.mod make: run \`make generate\` and commit the result" >&2
	exit 1
fi
