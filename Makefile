# Carillon: one command for each thing that a developer does. The same commands run on a laptop and in CI.
# Everything here needs Go; `make test` also needs a C compiler (the race detector), git, bash, Node 20 or later with npm, and Debian's redis-server and
# chromium, and as root on Linux iproute2 and iptables: those packages it installs if it may.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
# Arguments for the server that `make run` starts, for example ARGS='--public-listen 127.0.0.1:9090'.
ARGS ?=
# Which packages, which benchmarks and for how long `make bench` runs.
PACKAGES ?= ./...
BENCH ?= .
BENCHTIME ?= 1s
# How long each fuzz target runs.
FUZZTIME ?= 10s
# Packages whose tests need the named failpoints; their tests start a binary that is built with them.
FAILPOINT_PACKAGES ?= ./server/gateway/...

# How many seeds `make test` and `make simulate` live through, and from which on.
SEEDS ?= 500
FIRST_SEED ?= 1

# What `make torture` torments, how long, and with how many messages a second (0: as many as come through one by one, some tens); SEED brings the same
# faults again. TORTURE_ARGS: more flags, as in TORTURE_ARGS='-durability process'; TORTURE_ARGS=-help lists them.
TORTURE ?= 10m
FORM ?= standalone
SEED ?= 0
TORTURE_RATE ?= 0
TORTURE_ARGS ?=

# How many users `make pushes` pushes to, and how often it kills whoever does so.
USERS ?= 1000000
KILLS ?= 30

export GO FUZZTIME FAILPOINT_PACKAGES SEEDS FIRST_SEED

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "; print "usage: make <target>\n"} \
		/^[a-z]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: build ## Start a development server on ./data (needs Go alone)
	@exec ./bin/carillon serve --dev --data ./data $(ARGS)

.PHONY: cluster
cluster: build ## Run Redis, three rooms, two centers and a balancer on this machine (needs redis-server): ARGS='-redis cluster'
	@exec $(GO) run ./server/cmd/cluster $(ARGS)

.PHONY: build
build: ## Build bin/carillon
	@$(GO) build -o bin/carillon ./server/cmd/carillon

.PHONY: test
test: ## Everything that must hold: formatting, drift, vet, staticcheck, tests, the SDK in a browser, crash tests, simulation, README, fuzzing
	@scripts/test.sh

.PHONY: lint
lint: ## The checks of `make test` that run no tests
	@scripts/test.sh format tidy generated vet staticcheck

.PHONY: fmt
fmt: ## Format every Go file
	@gofmt -w server

.PHONY: bench
bench: ## Run the benchmarks: PACKAGES=./server/room/... BENCH=Fanout BENCHTIME=3s
	@$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime '$(BENCHTIME)' -benchmem $(PACKAGES)

.PHONY: generate
generate: ## Write the generated code anew
	@$(GO) generate ./...

.PHONY: simulate
simulate: ## Live through simulated worlds: SEEDS=50000 FIRST_SEED=1
	@scripts/test.sh simulate

.PHONY: torture
torture: build ## Break a real cluster for a while and judge what was seen (needs redis-server): TORTURE=10m TORTURE_RATE=500 FORM=sentinel SEED=7
	@$(GO) run ./server/cmd/torture -length $(TORTURE) -form $(FORM) -seed $(SEED) -rate $(TORTURE_RATE) $(TORTURE_ARGS)

.PHONY: pushes
pushes: build ## Push to a million users while whoever does so is killed, frozen, paused, stopped: FORM=embedded USERS=1000000 KILLS=30 SEED=7
	@$(GO) run ./server/cmd/pushes -form $(FORM) -users $(USERS) -kills $(KILLS) -seed $(SEED)

.PHONY: fuzz
fuzz: ## Run every fuzz target, one after the other: FUZZTIME=5m
	@scripts/test.sh fuzz
