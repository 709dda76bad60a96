# One command for each thing a person wants of a checkout; `make help` lists them. CI runs `make test` and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where rustup puts cargo, for a shell that has not been started anew since.
export PATH := $(HOME)/.cargo/bin:$(PATH)

TOOLS := $(CURDIR)/.tools/node_modules/.bin
SERVICE_PATH := $(TOOLS):/usr/local/bin:/usr/bin:/bin
WORKSPACE ?= $(or $(MHNOS_WORKSPACE),./workspace)
ADDRESS ?= ws://127.0.0.1:$(or $(MHNOS_RUNTIME_PORT),18790)
ARGS ?=
XTASK := cargo run --release --locked --quiet --package xtask --

.PHONY: help run dev demo test test-here test-docker test-tiers test-arm64 test-install test-system test-apparmor test-fronts test-proxies test-tools test-dist test-model test-threads bench bad-clients conformance fuzz soak \
  dist test-kills test-hostile test-race test-crowd lint tools tools-test rust rust-lints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: rust tools ## get what is missing, build, serve on port 18790 with ./workspace (ARGS="--sandbox none" adds flags)
	cargo build --release --locked --package mhnos-runtime
	@exec "$${CARGO_TARGET_DIR:-target}/release/mhnos-runtime" serve --path "$(SERVICE_PATH)" --workspace "$(WORKSPACE)" $(ARGS)

dev: rust tools ## the same, rebuilt and restarted when a source file changes
	@cargo run --locked --quiet --package xtask -- dev --path "$(SERVICE_PATH)" --workspace "$(WORKSPACE)" $(ARGS)

demo: tools ## show every process type against the running service
	@"$(TOOLS)/node" examples/demo/demo.mjs $(ADDRESS)

test: ## everything CI checks
	@deploy/tools/reachable $(MAKE) test-here

# The same, where everything is within reach of every account.
test-here: rust tools-test lint
	fuzz/run kept
	$(XTASK) test
	@deploy/test/fronts.sh start release
	@deploy/test/upgrade-tools.sh

lint: rust-lints ## formatting, clippy, and the rules that a program can check
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	$(XTASK) tidy
	@deploy/test/lint.sh

bench: rust tools ## measure the service, built as it is released, against running the programs directly
	cargo build --profile dist --locked --package mhnos-testing
	cargo bench --locked --profile dist --package mhnos-runtime --bench service

test-model: rust tools-test ## random clients, programs and dead bridges against an oracle, RUNS times with new seeds (default 100)
	MHNOS_MODEL_RUNS=$(or $(RUNS),100) cargo test --release --locked --package mhnos-runtime --test service -- --nocapture model

test-threads: rust ## the output log in every order in which its threads can meet (loom); part of make test
	cargo test --release --locked --package mhnos-process --lib --features model-threads threads::

test-kills: rust tools-test ## SIGKILL for keeper, bridge and init at random moments, KILLS rounds in every tier (default 50)
	MHNOS_TEST_KILLS=$(or $(KILLS),50) MHNOS_TEST_SEED=$(or $(SEED),1) \
	  cargo test --release --locked --package mhnos-runtime --test service -- --nocapture random_kills

test-hostile: rust ## a bridge that says what it likes, on every kind of host, ROUNDS rounds (default 300) from SEED
	MHNOS_TEST_ROUNDS=$(or $(ROUNDS),300) MHNOS_TEST_SEED=$(or $(SEED),1) \
	  cargo test --release --locked --package mhnos-keeper --test keeper -- hostile

test-race: rust ## links flipped under the file API, 200,000 operations of it, beside a check that they escape from
	cargo test --release --locked --package mhnos-workspace --test confinement -- --ignored --nocapture 200_000

test-crowd: rust ## a directory of a million files under the file API and a quota's count
	cargo test --release --locked --package mhnos-workspace --test confinement -- --ignored --nocapture a_million

bad-clients: rust tools-test ## hostile clients at full size: memory, and what others notice of them
	MHNOS_BAD_CLIENTS=1 cargo test --release --locked --package mhnos-runtime --test service -- --nocapture --test-threads=1 bad_clients

soak: rust tools-test ## half an hour of ordinary work (MINUTES=30): memory, descriptors and zombies stay where they were
	MHNOS_SOAK_MINUTES=$(or $(MINUTES),30) cargo test --release --locked --package mhnos-runtime --test service -- --ignored --nocapture soak

conformance: rust tools-test ## RFC 6455 case by case, after the Autobahn test suite
	cargo test --release --locked --package mhnos-runtime --test service -- --nocapture conformance

fuzz: rust ## run each fuzz target SECONDS long (default 60; TARGETS="request door" chooses); needs a C++ compiler
	fuzz/run $(or $(SECONDS),60) $(TARGETS)

test-docker: tools ## image, Compose files and tiers against a real Docker engine (ports 18790 and 18791)
	deploy/test/docker.sh

test-tiers: rust ## the tests of tiers T3+ and T3 in a container, under Docker's own profiles
	deploy/test/tiers.sh

test-arm64: rust ## aarch64 elsewhere: the crates' tests under QEMU, the image for linux/arm64 (a Docker engine)
	deploy/test/arm64.sh

test-install: rust ## install, upgrade and remove in a booted machine: MACHINE="deploy/test/over-ssh root@HOST"
	deploy/test/machine.sh install

test-system: rust ## the unit with cgroup v2 limits and AppArmor, in a booted machine: MACHINE as above
	deploy/test/machine.sh system

test-apparmor: rust ## where AppArmor keeps programs from user namespaces, as on Ubuntu 24.04: a booted machine with AppArmor 4, MACHINE as above
	deploy/test/machine.sh apparmor

test-fronts: rust tools ## `npm start` and `npm run dev`: they serve, notice a changed file, and leave nothing after Ctrl-C
	deploy/test/fronts.sh

test-proxies: rust tools ## the nginx and Caddy files of docs/operations.md, in front of the built service (both installed; own network)
	cargo build --release --locked --package mhnos-runtime
	deploy/test/proxies.sh

test-tools: ## Node.js and workerd by the npm of Ubuntu 22.04 (350 MB, removed again)
	deploy/test/tools.sh

test-dist: rust ## build the release twice, at two places, and compare the bytes
	deploy/test/dist.sh

dist: rust ## the release: tarball, Debian package, checksums, into target/release-files
	$(XTASK) dist

clean: ## remove what was built and installed; the workspace stays
	rm -rf target fuzz/target .tools

tools:
	@deploy/tools/install run

tools-test:
	@deploy/tools/install test

rust:
	@command -v cargo >/dev/null || { \
	  echo "Rust is missing. To install it: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2; exit 1; }

rust-lints: rust
	@command -v cargo-clippy >/dev/null && command -v rustfmt >/dev/null || { \
	  echo "clippy or rustfmt is missing. To install them: rustup component add clippy rustfmt" >&2; exit 1; }
