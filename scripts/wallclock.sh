#!/usr/bin/env bash
# Makes an overlay for `go test -overlay`: the standard library with a wall
# clock that a test can put forward and back in its own process. What is
# monotonic stays as it is, as when a machine's clock is set.
#
# usage: scripts/wallclock.sh FOLDER    (writes FOLDER/overlay.json)
set -euo pipefail
out=$(realpath -m "$1")
mkdir -p "$out"
from=$(go env GOROOT)/src/time/time.go

awk '
/^func Now\(\) Time \{$/ {
	print "// wallOffset is what a test adds to the wall clock, in nanoseconds."
	print "//"
	print "//go:linkname wallOffset"
	print "var wallOffset int64"
	print ""
	print; getline; print
	print "\tsec += atomic.LoadInt64(&wallOffset) / 1e9"
	done = 1
	next
}
/^import \($/ { print; print "\t\"sync/atomic\""; next }
{ print }
END { if (!done) exit 1 }
' "$from" >"$out/time.go.new" || {
	echo "$from has no func Now as this script knows it" >&2
	exit 1
}
# An unchanged file keeps its time, and the build cache its packages.
cmp -s "$out/time.go.new" "$out/time.go" || mv "$out/time.go.new" "$out/time.go"
rm -f "$out/time.go.new"
printf '{"Replace": {"%s": "%s"}}\n' "$from" "$out/time.go" >"$out/overlay.json"
