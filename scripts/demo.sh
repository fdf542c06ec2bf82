#!/usr/bin/env bash
# The demo of the README: see e2e/demo. `make demo` builds what it needs first.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${WHERRY_BIN:=$PWD/bin}"
export WHERRY_BIN
exec go run ./e2e/demo "$@"
