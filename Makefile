# Everything that this file runs can also be run by hand; see the recipes.

# Tests and lints use the pinned tools of tests/requirements.txt.
TOOLS := .venv/.installed
WITH_TOOLS := PATH="$(CURDIR)/.venv/bin:$$PATH"
# A real S3 server beside a command.
WITH_SERVERS := python3 tests/servers.py --

.PHONY: help
help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 10

.PHONY: demo
demo: ## the main job end to end, without any server
	@cargo run --quiet --locked -- demo

.PHONY: test
test: check-tools $(TOOLS) ## all tests, against SeaweedFS and Litestream
	$(WITH_SERVERS) cargo nextest run --workspace --locked

.PHONY: chaos
chaos: SECONDS ?= 600
chaos: SEED ?= $(shell date +%s)
chaos: check-tools $(TOOLS) ## random faults for SECONDS=600 from SEED=n; ITERATION=k begins later
	cargo build --locked -p walrust-testkit --bins
	CHAOS_SECONDS=$(SECONDS) CHAOS_SEED=$(SEED) CHAOS_ITERATION=$(ITERATION) $(WITH_SERVERS) \
	    cargo test --locked --test chaos -- --exact --nocapture random_faults_lose_nothing

.PHONY: soak
soak: SECONDS ?= 600
soak: check-tools $(TOOLS) ## the long forms of tests that have one, for SECONDS=600 each
	cargo build --locked -p walrust-testkit --bins
	RETENTION_SECONDS=$(SECONDS) WALRUST_PITR_SECONDS=$(SECONDS) $(WITH_SERVERS) \
	    cargo test --locked --test integration -- --nocapture \
	    c06_retention_beside_restores c09_random_times_of_a_busy_database

.PHONY: lint
lint: $(TOOLS) ## format, clippy, licences and sources of dependencies
	@.ci/check-tools lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(WITH_TOOLS) cargo deny --locked check bans licenses sources

.PHONY: bench
bench: check-tools $(TOOLS) ## all benchmarks
	$(WITH_SERVERS) cargo bench --locked --bench daemon
	$(WITH_SERVERS) cargo bench --locked --bench application
	$(WITH_SERVERS) cargo bench --locked --bench restore
	$(WITH_SERVERS) cargo bench --locked --bench tenants -- idle 1000
	$(WITH_SERVERS) cargo bench --locked --bench tenants -- lag 400 50
	$(WITH_SERVERS) cargo bench --locked --bench tenants -- reload 400
	$(WITH_SERVERS) cargo bench --locked --bench tenants -- outage 100 300
	cargo bench --locked --bench healing
	cargo bench --locked -p walrust-ltx

.PHONY: tools
tools: $(TOOLS) ## install the tools of the tests into .venv

.PHONY: clean
clean: ## remove what was built and installed
	cargo clean
	rm -rf .venv

.PHONY: check-tools
check-tools:
	@.ci/check-tools

# Written last, so that an installation that was cut short is done again.
$(TOOLS): tests/requirements.txt | check-tools
	python3 -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
