#!/usr/bin/env bash
# Sees that this machine has what Wherry is built and tested with. What is there
# is left alone, and then nothing is asked of the network; what is missing is
# named with its reason and installed.
#
# usage: scripts/deps.sh build|test|bench …
set -euo pipefail

go_wanted=1.26
missing=()

# need WHAT PACKAGE REASON: WHAT is a command, or a path if it has a slash.
need() {
	local what=$1 package=$2 reason=$3
	if [[ $what == */* ]]; then
		[[ -e $what ]] && return
	else
		command -v "$what" >/dev/null && return
	fi
	echo "$package: $reason" >&2
	missing+=("$package")
}

# static PATH PACKAGE REASON: PATH is a program that asks for no loader.
static() {
	[[ -e $1 && $(ldd "$1" 2>&1) == *"not a dynamic"* ]] && return
	echo "$2: $3" >&2
	missing+=("$2")
}

build() {
	need gcc gcc "podrun's first steps inside a namespace are C, and the race detector needs it"
	need /usr/include/stdio.h libc6-dev "the headers and the static C library for podrun"
	need pkg-config pkg-config "finds libseccomp"
	need /usr/include/seccomp.h libseccomp-dev "podrun loads seccomp profiles; it links the static library"
	need git git "the version that the programs print"
}

test() {
	need /etc/ssl/certs/ca-certificates.crt ca-certificates "the Go modules come over HTTPS"
	static /bin/busybox busybox-static "the programs inside the test images"
}

bench() {
	need etcd etcd-server "the peer beside which writes are measured"
}

if ! command -v go >/dev/null; then
	echo "Go is not installed: get $go_wanted or newer from https://go.dev/dl/ and put it on the PATH" >&2
	exit 1
fi

for group in "$@"; do
	case $group in
	build | test | bench) "$group" ;;
	*)
		echo "usage: $0 build|test|bench …" >&2
		exit 2
		;;
	esac
done
((${#missing[@]} == 0)) && exit 0

if ! command -v apt-get >/dev/null || ((EUID != 0)); then
	echo "install these first (as root, with apt-get or your system's own tool): ${missing[*]}" >&2
	exit 1
fi
echo "installing: ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# No service may start by being installed: etcd is run by the benchmark itself.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
