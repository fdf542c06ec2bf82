# What each target does: `make help`. The two that matter are `make demo` and
# `make test`; both install the Debian packages they need, and say which.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
MAKEFLAGS   += --no-print-directory
# The steps of `make test` come one after the other.
.NOTPARALLEL:

GO      ?= go
TOOLS   := $(CURDIR)/.cache/tools
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# The second is what kubectl's `version` takes for the client's.
INFO    := github.com/wherry-project/wherry/internal/version
LDFLAGS := -s -w -X main.version=$(VERSION) -X $(INFO).commit=$(shell git rev-parse HEAD 2>/dev/null) -X $(INFO).date=$(shell TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null) -X k8s.io/component-base/version.gitVersion=v1.34.0+wherry.$(VERSION:v%=%)

# The daemons and tools are pure Go. podrun links libcontainer, whose first
# steps inside a namespace are C: it alone is built with cgo, static. Without
# gRPC's trace pages, which nobody serves, a daemon is 7 MB smaller.
PURE    := controld noded wherry podshim
PODRUN  := -tags "seccomp netgo osusergo" -ldflags '$(LDFLAGS) -extldflags "-static"'

step = @printf '\033[1m== %s\033[0m\n' "$(1)"

.PHONY: help build demo fuzz test test-unit test-e2e test-chaos test-crash bench-failover bench-store bench-api bench-idle soak bench bench-write lint lint-proto drift vet archtest generate api-image tools deps deps-test deps-bench clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: deps ## all programs into bin/
	$(call step,build $(PURE) podrun into bin/)
	@CGO_ENABLED=0 $(GO) build -trimpath -tags grpcnotrace -ldflags '$(LDFLAGS)' -o bin/ $(PURE:%=./cmd/%)
	@CGO_ENABLED=1 $(GO) build -trimpath $(PODRUN) -o bin/ ./cmd/podrun

demo: deps-test build ## a cluster on this machine: apply, reach by name, lose the leader, carry on
	@WHERRY_BIN=$(CURDIR)/bin scripts/demo.sh

test: deps-test tools lint-proto drift vet archtest test-unit build test-e2e ## everything that must hold; .ci/run is this
	$(call step,all passed)

test-unit: ## all Go tests with the race detector
	$(call step,go test -race)
	@$(GO) test -race -tags seccomp -timeout 20m $$($(GO) list -tags seccomp ./... | grep -v /e2e)

test-e2e: build tools ## the end-to-end tests, on the built programs
	$(call step,end-to-end tests)
	@WHERRY_BIN=$(CURDIR)/bin WHERRY_TOOLS=$(TOOLS) $(GO) test -race -count=1 -timeout 20m ./e2e/...

# A plan of faults from a seed: `make test-chaos SEED=… ROUNDS=…` repeats one.
test-chaos: ## 200 rounds of faults under checked clients; ROUNDS= SEED=
	$(call step,go test ./internal/raftstore/chaos)
	@scripts/wallclock.sh .cache/wallclock
	@WHERRY_CHAOS_ROUNDS=$${ROUNDS:-200} WHERRY_CHAOS_SEED=$${SEED:-} $(GO) test -count=1 -v -timeout 60m -tags wallclock \
		-overlay .cache/wallclock/overlay.json ./internal/raftstore/chaos

test-crash: ## 1000 power cuts under the log and under a replica, 200 under a cluster; elections on very slow disks; CUTS= CRASH_SEED=
	$(call step,power cuts)
	@$(GO) test -count=1 -v -timeout 30m -run TestCrash ./internal/raftlog -cuts $${CUTS:-1000} -seed $${CRASH_SEED:-0}
	@$(GO) test -count=1 -v -timeout 60m -run TestCrash ./internal/raftstore -cuts $${CUTS:-1000} -seed $${CRASH_SEED:-0}
	@$(GO) test -count=1 -v -timeout 60m -run TestBoltPowerCut ./internal/raftstore -boltcuts $${CUTS:-1000} -seed $${CRASH_SEED:-0}
	@$(GO) test -count=1 -v -timeout 10m -run TestSlowElection ./internal/raftstore -long

bench-store: deps-bench build ## the store beside etcd: speed, memory, disk, start, fail-over; BENCH="-what … -sizes … -clients … -members …"
	@WHERRY_BIN=$(CURDIR)/bin $(GO) -C bench run . -only store,objects,failover $(BENCH)

bench-api: deps-bench build ## the Kubernetes API: rates, times, 1,000 watchers, memory of 10,000 pods; BENCH="-write FILE …"
	@WHERRY_BIN=$(CURDIR)/bin $(GO) -C bench run . -only kubeapi $(BENCH)

bench-idle: deps-bench build ## what an idle cluster of 3 controls and 2 nodes with 30 pods writes, scaled to a day; BENCH="-idle-for …"
	@WHERRY_BIN=$(CURDIR)/bin $(GO) -C bench run . -only idle $(BENCH)

bench-failover: ## the leader killed, to the next write; ROUNDS=
	$(call step,leader killed → next write)
	@WHERRY_FAILOVER_ROUNDS=$${ROUNDS:-50} $(GO) test -count=1 -v -timeout 30m -run TestFailover ./internal/raftstore/chaos

soak: ## full load on all processors for 20 minutes: no election may be needed; LENGTH= (seconds)
	$(call step,elections under full load)
	@WHERRY_SOAK=$${LENGTH:-1200} $(GO) test -count=1 -v -timeout 60m -run TestSoak ./internal/raftstore/chaos

lint-proto: tools ## the gRPC API: style, and nothing broken since proto/wherry.binpb
	$(call step,buf lint)
	@$(TOOLS)/buf lint
	$(call step,buf breaking)
	@$(TOOLS)/buf breaking --against proto/wherry.binpb

drift: tools ## generated files are what their sources make
	$(call step,generated files are up to date)
	@scripts/generate.sh --check $(TOOLS)

vet:
	$(call step,go vet)
	@$(GO) vet -tags seccomp ./...
	@$(GO) -C bench vet -tags seccomp ./...

archtest:
	$(call step,layers and other rules of docs/layout.md)
	@$(GO) test ./internal/archtest/...

lint: ## golangci-lint; not part of `make test`
	$(call step,golangci-lint)
	@$(GO) -C tools/lint build -o $(TOOLS)/ tool
	@$(TOOLS)/golangci-lint run

bench: deps-bench build ## the figures of docs/performance.md, each beside its floor
	@WHERRY_BIN=$(CURDIR)/bin $(GO) -C bench run . $(BENCH)

bench-write: ## make bench, and its figures into docs/performance.md
	@$(MAKE) bench BENCH="-write $(CURDIR)/docs/performance.md $(BENCH)"

FUZZTIME ?= 10s
fuzz: ## each fuzz target in turn, FUZZTIME=10s each; FUZZ=PATTERN takes some
	@scripts/fuzz.sh $(FUZZTIME) $(FUZZ)

generate: tools ## Go code and descriptor set from proto/
	@scripts/generate.sh $(TOOLS)

api-image: tools ## after a meant addition to the API: what `buf breaking` compares with
	@$(TOOLS)/buf build --exclude-source-info -o proto/wherry.binpb

tools: $(TOOLS)/buf

# All tools of tools/go.mod at once; again when a version changes there.
$(TOOLS)/buf: tools/go.mod tools/go.sum
	$(call step,build the tools that tools/go.mod pins)
	@$(GO) -C tools build -o $(TOOLS)/ tool
	@touch $@

deps:
	@scripts/deps.sh build

deps-test:
	@scripts/deps.sh build test

deps-bench:
	@scripts/deps.sh build test bench

clean: ## what was built
	rm -rf bin .cache
