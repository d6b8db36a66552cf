# The commands that people and CI use. `make` lists them.

.DEFAULT_GOAL := help
.PHONY: help demo test faults soak bench planning dashboard lint audit deb image missing missing-for-tests missing-for-faults

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Not the release profile, which spends minutes on optimising across crates: the demo shows what
# happens to each message, and what it shows of time is mostly the broker's. `make test` uses the
# same build, and `make bench` is where speed is measured.
demo: missing ## see the whole bridge at work, on a private RabbitMQ
	cargo run --locked --quiet -- demo

# The faults first, and few at once: they are judged by time, too, and each has two brokers of its own.
test: missing-for-tests ## run every test, on a private RabbitMQ and a private PostgreSQL
	@status=0; set -x; \
	cargo test --locked --test integration -- --test-threads 2 faults:: || status=$$?; \
	cargo test --workspace --locked --no-fail-fast -- --skip faults:: || status=$$?; \
	exit $$status

# RABBITMQ=trixie or sid runs them on the RabbitMQ of that Debian (as root, on Debian), otherwise on
# the installed one. FAULTS_SEED repeats a run. One after the other: a fault is judged by time, too.
other_rabbitmq = $(if $(RABBITMQ),PATH="$$(tests/support/rabbitmq-from $(RABBITMQ) | tail -n 1):$$PATH")
faults: missing-for-faults ## break everything that can break, and account for every delivery (over an hour)
	$(other_rabbitmq) cargo test --locked --test integration faults:: -- \
		--ignored --skip a_long_time --test-threads 1 --nocapture

SOAK_MINUTES ?= 30
soak: missing ## random faults for SOAK_MINUTES, and what the bridge holds meanwhile
	$(other_rabbitmq) SOAK_MINUTES=$(SOAK_MINUTES) \
		cargo test --locked --test integration faults::random::a_long_time -- --ignored --nocapture

bench: missing ## measure speed and isolation, beside peers, and write docs/benchmarks.md (under 20 minutes)
	ulimit -n $$(ulimit -Hn) && cargo bench --locked --bench bench

planning: missing ## numbers for planning by size, fan-out, bridges, subscribers; write docs/planning.md (12 minutes)
	ulimit -n $$(ulimit -Hn) && cargo bench --locked --bench bench -- --planning

dashboard: missing-for-tests ## draw docs/dashboard.svg: the dashboard after traffic with failures (three minutes)
	DASHBOARD_PICTURE=docs/dashboard.svg cargo test --locked --test integration dashboard::

lint: ## check the format, the lints and the documentation
	cargo fmt --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Known vulnerabilities are not asked for here: that answer changes without a change of ours.
audit: ## check licences, banned crates and sources of the dependencies
	@command -v cargo-deny >/dev/null || { \
		echo "cargo-deny is missing; installing it takes some minutes: cargo install --locked cargo-deny"; \
		cargo install --locked cargo-deny; }
	cargo deny --locked check licenses bans sources

image: ## build the image
	DOCKER_BUILDKIT=1 docker build -f deploy/docker/Dockerfile -t hookbridge .

# Not static, as in the image: on a machine whose nsswitch.conf names modules of another glibc, a
# static program ends where it looks up a name.
deb: ## build the Debian package
	@command -v cargo-deb >/dev/null || { echo "cargo-deb is missing: cargo install --locked cargo-deb" >&2; exit 1; }
	cargo deb --locked --output target/debian/

missing:
	@deploy/install-missing

missing-for-tests:
	@deploy/install-missing postgresql prometheus

missing-for-faults:
	@deploy/install-missing libfaketime postgresql
