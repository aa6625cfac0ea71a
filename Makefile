# The two commands of the README, and those of the people who work on the code.
SHELL := /bin/bash
CARGO := cd backend && cargo
WITH_SERVERS := target/debug/with-servers --
# Queries are checked against the committed offline data, except where those are made or checked.
export SQLX_OFFLINE := true

.PHONY: run test fmt lint sqlx sqlx-check deny bench-ingest bench-serve crash setup help

help:  ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

setup:  ## Install PostgreSQL, Redis and a C compiler if they are missing
	@scripts/setup.sh

run: setup  ## Build and start a whole game on http://localhost:8000 (ARGS="--miners 100")
	$(CARGO) build --release --locked -p tbg
	backend/target/release/tbg dev $(ARGS)

test: setup  ## Run every test, with private servers
	$(CARGO) build --locked -p tbg -p tbg-local
	$(CARGO) test --locked --workspace --no-run
	cd backend && $(WITH_SERVERS) cargo test --locked --workspace

fmt:  ## Format
	$(CARGO) fmt --all

lint:  ## Formatting and lints, as CI does
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

sqlx: setup  ## Write the offline data of the SQL queries after a change
	$(CARGO) build -p tbg-local
	cd backend && $(WITH_SERVERS) sh -c 'cargo sqlx migrate run --source migrations && SQLX_OFFLINE=false cargo sqlx prepare --workspace -- --all-targets'

sqlx-check: setup  ## Check the offline data of the SQL queries
	$(CARGO) build --locked -p tbg-local
	cd backend && $(WITH_SERVERS) sh -c 'cargo sqlx migrate run --source migrations && SQLX_OFFLINE=false cargo sqlx prepare --workspace --check -- --all-targets'

deny:  ## Licences, sources and duplicates of dependencies
	cd backend && cargo deny --offline --config ../deny.toml check bans licenses sources

bench-ingest: setup  ## Throughput and latency of the path of a share
	$(CARGO) run --release --locked -p tbg-tests --bin bench-ingest -- $(ARGS)

bench-serve: setup  ## Start-up time and memory of the server
	$(CARGO) build --release --locked -p tbg
	$(CARGO) build --locked -p tbg-local
	cd backend && $(WITH_SERVERS) ../scripts/bench-serve.sh target/release/tbg

crash: setup  ## Kill everything at random: nothing lost, nothing twice
	$(CARGO) build --release --locked -p tbg
	$(CARGO) run --release --locked -p tbg-tests --bin crash -- $(ARGS)
