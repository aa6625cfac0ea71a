# The two commands of the README, and those of the people who work on the code.
SHELL := /bin/bash
CARGO := cd backend && cargo
WITH_SERVERS := target/debug/with-servers --
# $(KEEP) 'COMMAND': what a check prints is kept in backend/results/TARGET.txt, from where `make audit-report` takes it.
KEEP = @scripts/keep.sh $@
# Queries are checked against the committed offline data, except where those are made or checked.
export SQLX_OFFLINE := true

.PHONY: run test fmt lint sqlx sqlx-check sql-audit deny bench-ingest bench-serve bench-limiter \
	bench-front-door bench-reads bench-instrumentation bench-sockets bench-draw sim alerts-check backup-test dashboards dashboards-check dashboards-preview \
	panels observe observe-tools stack-test upgrade-test chaos races rate-loops crash docs-check fuzz fuzz-all fuzz-api fuzz-tools \
	pentest query-plans load loadtest-tools locust ws-stress standards python-audit sbom audit-report setup help

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

sql-audit:  ## Look for SQL that is put together at run time or stands in the wrong place
	$(KEEP) '$(CARGO) run --quiet --locked -p tbg-sql-audit'

deny:  ## Licences, sources and duplicates of dependencies; known vulnerabilities where their database can be fetched
	$(KEEP) scripts/deny.sh

bench-ingest: setup  ## Throughput and latency of the path of a share
	$(CARGO) run --release --locked -p tbg-tests --bin bench-ingest -- $(ARGS)

bench-serve: setup  ## Start-up time and memory of the server
	$(CARGO) build --release --locked -p tbg
	$(CARGO) build --locked -p tbg-local
	cd backend && $(WITH_SERVERS) ../scripts/bench-serve.sh target/release/tbg

bench-limiter: setup  ## Decisions a second of the rate limiter (ARGS="--min 50000")
	$(CARGO) run --release --locked -p tbg-tests --bin bench-limiter -- $(ARGS)

bench-front-door: setup  ## What authentication and limits cost a request (needs wrk)
	$(CARGO) build --release --locked -p tbg -p tbg-tests
	$(CARGO) build --locked -p tbg-local
	cd backend && $(WITH_SERVERS) target/release/bench-front-door $(ARGS)

bench-reads: setup  ## The reads of a dashboard, each alone, with limits (needs wrk)
	$(CARGO) build --release --locked -p tbg -p tbg-tests
	$(CARGO) build --locked -p tbg-local
	cd backend && $(WITH_SERVERS) target/release/bench-reads $(ARGS)

bench-instrumentation: setup  ## What the numbers of /metrics cost a hot read (needs wrk)
	$(CARGO) build --release --locked -p tbg -p tbg-tests
	$(CARGO) build --locked -p tbg-local
	cd backend && $(WITH_SERVERS) target/release/bench-instrumentation $(ARGS)

bench-sockets: setup  ## Idle sockets, fan-out, share to frame (ARGS="--idle-seconds 60")
	$(CARGO) build --release --locked -p tbg -p tbg-tests
	$(CARGO) build --locked -p tbg-local
	cd backend && ulimit -n 65536 && $(WITH_SERVERS) target/release/bench-sockets $(ARGS)

bench-draw: setup  ## A weekly draw over a million entries (ARGS="--entries 100000")
	$(CARGO) build --release --locked -p tbg -p tbg-tests
	$(CARGO) build --locked -p tbg-local
	cd backend && $(WITH_SERVERS) target/release/bench-draw $(ARGS)

alerts-check:  ## Check Prometheus' configuration and rules, and run the rule tests (installs promtool)
	@scripts/setup.sh alerts
	$(KEEP) scripts/alerts-check.sh

backup-test: setup  ## Dump, restore, point in time, Redis after a kill: done, compared and timed
	$(CARGO) build --locked -p tbg
	$(KEEP) 'scripts/backup-test.sh backend/target/debug/tbg'

dashboards:  ## Write the Grafana dashboards from their one source
	python3 backend/monitoring/grafana/dashboards.py

dashboards-check:  ## The committed dashboards are those of the source, and sound
	python3 backend/monitoring/grafana/dashboards.py --check

dashboards-preview: observe-tools  ## Draw every panel's own query into backend/results/dashboards.png
	$(CARGO) build --release --locked -p tbg
	python3 -m venv backend/target/preview-venv
	backend/target/preview-venv/bin/pip install --quiet -r backend/monitoring/requirements.txt
	backend/target/preview-venv/bin/python scripts/observe.py preview backend/target/release/tbg --seconds 310

panels: observe-tools  ## Run every query of every panel against a Prometheus that watches a game: each returns data
	$(CARGO) build --release --locked -p tbg
	$(KEEP) 'python3 -u scripts/observe.py panels backend/target/release/tbg'

observe: observe-tools  ## A game with Prometheus, Alertmanager, exporters and load; a failure, its alert, its end
	$(CARGO) build --release --locked -p tbg
	$(KEEP) 'python3 -u scripts/observe.py alerts backend/target/release/tbg'

observe-tools: setup
	@scripts/setup.sh observe

# What an upgrade starts from: the commit before the newest migration.
PREVIOUS ?= $(shell git log -1 --format=%h --diff-filter=A -- backend/migrations)~1

upgrade-test: setup  ## The previous release on the new schema, then replaced under load (PREVIOUS=commit)
	$(CARGO) build --locked -p tbg
	[ -d backend/target/previous ] || { git worktree prune && git worktree add --detach backend/target/previous $(PREVIOUS); }
	git -C backend/target/previous checkout --quiet --detach $(PREVIOUS)
	cd backend/target/previous/backend && CARGO_TARGET_DIR=../../previous-build cargo build --locked -p tbg
	$(KEEP) 'scripts/upgrade-test.sh backend/target/previous-build/debug/tbg backend/target/debug/tbg'

chaos: setup  ## Everything that can break, broken: what was seen, how soon it was over, what was lost (ARGS="--only NAME")
	$(CARGO) build --release --locked -p tbg
	@scripts/setup.sh chaos
	$(KEEP) 'scripts/chaos.py backend/target/release/tbg $(ARGS)'

stack-test: setup  ## Deploy the production stack with images made of Debian packages, update it under load, kill a replica
	$(CARGO) build --release --locked -p tbg
	$(KEEP) 'scripts/stack-test.sh --binary backend/target/release/tbg'

docs-check: setup  ## Open /docs in a browser: no violation of its policy (needs chromium)
	$(CARGO) build --release --locked -p tbg
	$(CARGO) build --locked -p tbg-local
	cd backend && $(WITH_SERVERS) sh -c '../scripts/docs-check.sh target/release/tbg'

races: setup  ## Refresh, challenge, lockout and key limits under parallel attack (ARGS="--rounds 1000")
	$(CARGO) build --release --locked -p tbg-tests --bin races
	$(CARGO) build --locked -p tbg-local
	$(KEEP) 'cd backend && $(WITH_SERVERS) target/release/races $(ARGS)'

rate-loops: setup  ## The three loops of the specification, with the limits of production
	$(CARGO) build --release --locked -p tbg
	$(CARGO) build --locked -p tbg-local
	$(KEEP) 'cd backend && $(WITH_SERVERS) ../scripts/rate-loops.sh target/release/tbg'

FUZZ_TARGETS := address body cursor envelope signature
MINUTES ?= 10

fuzz-tools:
	@rustup toolchain list | grep -q '^nightly' || rustup toolchain install nightly --profile minimal
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

fuzz: fuzz-tools  ## Fuzz one decoder (TARGET=signature MINUTES=10)
	@[[ " $(FUZZ_TARGETS) " == *" $(TARGET) "* && -n "$(TARGET)" ]] || { echo "TARGET is one of: $(FUZZ_TARGETS)"; exit 2; }
	@mkdir -p backend/target/fuzz/$(TARGET)
	$(CARGO) +nightly fuzz run $(TARGET) target/fuzz/$(TARGET) fuzz/corpus/$(TARGET) -- -max_total_time=$$(( $(MINUTES) * 60 )) -timeout=10 -rss_limit_mb=2048 $(patsubst backend/%,-dict=%,$(wildcard backend/fuzz/dictionaries/$(TARGET).dict))

fuzz-all: fuzz-tools  ## Fuzz every decoder, two at a time (MINUTES=10 each)
	$(CARGO) +nightly fuzz build
	@mkdir -p backend/target/fuzz
	printf '%s\n' $(FUZZ_TARGETS) | xargs -P 2 -I{} sh -c '$(MAKE) --no-print-directory fuzz TARGET={} MINUTES=$(MINUTES) >backend/target/fuzz/{}.log 2>&1; rc=$$?; tail -n 3 backend/target/fuzz/{}.log; exit $$rc'

UNLIMITED := $(foreach tier,UNAUTH USER AUTH,--set TBG_RATE_LIMIT_$(tier)_PER_MIN=100000)

fuzz-api: setup  ## Fuzz every operation of the API as nobody, user and administrator
	@scripts/setup.sh python
	@[ -x backend/target/fuzz-api/venv/bin/pip ] || python3 -m venv --clear backend/target/fuzz-api/venv
	backend/target/fuzz-api/venv/bin/pip install -q -r backend/tests/fuzz_api/requirements.txt
	$(CARGO) build --locked -p tbg -p tbg-local -p tbg-tests
	cd backend && $(WITH_SERVERS) target/debug/with-game $(UNLIMITED) -- \
	    target/fuzz-api/venv/bin/python tests/fuzz_api/run.py --report-dir target/fuzz-api/report $(ARGS)

pentest: setup  ## The penetration checklist on the running program: injection, tokens, origins, traversal, leaks
	@scripts/setup.sh pentest
	$(CARGO) build --locked -p tbg -p tbg-local -p tbg-tests
	$(KEEP) 'cd backend && $(WITH_SERVERS) target/debug/pentest $(ARGS)'

query-plans: setup  ## The program's hot statements on a million events, and their plans: backend/docs/QUERY_PLANS.md
	$(CARGO) build --release --locked -p tbg-tests --bin query-plans
	$(KEEP) 'cd backend && target/release/query-plans $(ARGS)'

load: setup  ## 5,000 requests a second of 3,000 players, latency from the intended start (ARGS="--seconds 60")
	$(CARGO) build --release --locked -p tbg -p tbg-tests
	$(CARGO) build --locked -p tbg-local
	$(KEEP) 'cd backend && $(WITH_SERVERS) target/release/load $(ARGS)'

LOADTEST := target/loadtest/venv/bin
PEOPLE ?= 1000
FOR ?= 30m

loadtest-tools: setup
	@scripts/setup.sh python
	@[ -x backend/$(LOADTEST)/pip ] || python3 -m venv --clear backend/target/loadtest/venv
	backend/$(LOADTEST)/pip install -q -r backend/tests/loadtest/requirements.txt
	$(CARGO) build --release --locked -p tbg -p tbg-tests
	$(CARGO) build --locked -p tbg-local

locust: loadtest-tools  ## 1,000 players who wait half a second to two between requests, for 30 minutes (FOR=2m PEOPLE=200)
	$(KEEP) 'cd backend && PYTHONDONTWRITEBYTECODE=1 $(WITH_SERVERS) target/release/with-game --people $(PEOPLE) -- \
	    $(LOADTEST)/locust -f tests/loadtest/locustfile.py --headless --only-summary -u $(PEOPLE) -r 50 -t $(FOR) \
	    --csv target/loadtest/locust --html target/loadtest/locust.html'

ws-stress: loadtest-tools  ## 100 sockets of 20 players for five minutes: all stay open, each message comes once
	$(KEEP) 'cd backend && PYTHONDONTWRITEBYTECODE=1 $(WITH_SERVERS) target/release/with-game --people 20 -- \
	    $(LOADTEST)/python -u tests/loadtest/ws_stress_test.py $(ARGS)'

standards: setup  ## The tests that prove the rows of the security standards (backend/tests/standards.toml)
	$(CARGO) build --locked -p tbg -p tbg-local
	$(KEEP) 'cd backend && $(WITH_SERVERS) python3 ../scripts/audit_report.py tests'

python-audit:  ## Known vulnerabilities in the Python packages of load tests and tools, where their database can be reached
	@scripts/setup.sh python
	$(KEEP) scripts/python-audit.sh

sbom:  ## The list of what is linked into the program, as the image carries it: backend/results/sbom.json
	$(KEEP) scripts/sbom.sh

audit-report:  ## Write backend/SECURITY_AUDIT.md from the results of the checks (ARGS="--check": it is up to date)
	python3 scripts/audit_report.py report $(ARGS)

sim: setup  ## The game from seeds: late events, crashes, two replicas (ARGS="--seed 7 --seeds 1")
	$(CARGO) build --release --locked -p tbg-tests --bin sim
	$(CARGO) build --locked -p tbg-local
	cd backend && $(WITH_SERVERS) target/release/sim $(ARGS)

crash: setup  ## Kill everything at random: nothing lost, nothing twice
	$(CARGO) build --release --locked -p tbg
	$(CARGO) run --release --locked -p tbg-tests --bin crash -- $(ARGS)
