#!/bin/bash
# Runs each fuzz target of the repository in turn, for the time given, on one
# processor: fuzz.sh FUZZTIME [PATTERN of target names]. Making inputs smaller that
# reach new code would take most of a short time, so little is tried.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10s}
want=${2:-.}
count=0
while IFS=: read -r file name; do
	[[ $name =~ $want ]] || continue
	printf '\033[1m== %s in %s for %s\033[0m\n' "$name" "$(dirname "$file")" "$time"
	GOMAXPROCS=1 "${GO:-go}" test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 100x -parallel 1 "./$(dirname "$file")"
	count=$((count + 1))
done < <(grep -rnoP --include='*_test.go' '^func \KFuzz\w+' internal cmd | sed -E 's/:[0-9]+:/:/' | sort)
if [ "$count" = 0 ]; then
	echo "no fuzz target matches $want" >&2
	exit 1
fi
printf '\033[1m== %d targets, nothing found\033[0m\n' "$count"
