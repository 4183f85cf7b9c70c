# What a user runs. `make demo` is the main job, `make test` the proof; both set up what they need.

.PHONY: demo build test bench denial soak simulate coverage manifests fuzz deny sbom miri threads apiserver cluster cluster-down cluster-shell e2e bench-control bench-fleet man page-picture dashboard-picture lint-deploy images

# A relay, an application and load on this machine, with a kernel that pushes back half-way: about 30 s.
demo: build
	@target/release/ringside demo

build:
	@cargo build --release --quiet --package ringside

# Everything that can be tested here. Installs Debian packages that are missing, and says so first.
test:
	@tests/run

# Kubernetes' own API server, etcd and kubectl, for the tests of the controller: about 6 minutes, once, with nothing but Go.
apiserver:
	@e2e/kubernetes/build

# A real cluster: that of E2E_KUBECONFIG, one by kind where Docker is, or NODES (1) of them in namespaces of this machine, up in five seconds; the
# first time it installs containerd and builds Kubernetes: about 10 minutes, with nothing but Go and apt. CLUSTER names one of several.
cluster:
	@e2e/cluster/up

cluster-down:
	@e2e/cluster/down

# A shell in its network, with kubectl and helm.
cluster-shell:
	@e2e/cluster/shell

# The stories, on a real cluster in namespaces of this machine; STORY tells those of one file, such as s02; the table is target/stories/table.md.
e2e:
	@e2e/run

# HAProxy, nginx and Ringside on the same work, side by side: about 5 minutes.
bench:
	@cargo build --release --quiet --package ringside --package ringside-bench
	@target/release/ringside-load compare --ringside-settings file

# The tables of docs/tuning.md: settings before and after, in ROUNDS rounds (5) of about four minutes. ONLY=backoff measures what sets that.
.PHONY: tuning
tuning:
	@cargo build --release --quiet --package ringside --package ringside-bench --package ringside-tests --bins
	@ROUNDS="$(ROUNDS)" ONLY="$(ONLY)" nice -n -15 target/release/tuning

# One controller with SIDECARS (10,000) at a real API server: memory, CPU, changes, injections, statuses, restarts; about 15 minutes.
bench-control:
	@e2e/kubernetes/build
	@cargo build --release --quiet --package ringside --package ringside-controller --package ringside-e2e --bins
	@SIDECARS="$(SIDECARS)" IDLE_SECONDS="$(IDLE_SECONDS)" target/release/control-bench

# Deployments of PODS (5,000) with POLICIES (50) at a real API server, injected, run by KWOK, each with a sidecar's own client: install, changes,
# pushback of all, restarts, and what each program takes; about 10 minutes. Builds what is missing first.
bench-fleet:
	@e2e/kubernetes/build etcd kube-apiserver kube-controller-manager kube-scheduler kubectl
	@e2e/tools/build kwok
	@cargo build --release --quiet --package ringside --package ringside-controller --package ringside-e2e --bins
	@PODS="$(PODS)" POLICIES="$(POLICIES)" target/release/fleet-bench

# How much slower others' answers become under each attack of the denial tests, beside what the attack costs the machine: about 8
# minutes. Fails where the relay makes them more than twice as slow. The table is target/denial.md.
denial:
	@cargo build --profile proof --quiet --package ringside --bin ringside
	@cargo test --profile proof --quiet --package ringside-tests --test denial --no-run
	@rm -f target/denial.md
	@RINGSIDE_DENIAL_TABLE=$(CURDIR)/target/denial.md nice -n -15 \
		cargo test --profile proof --quiet --package ringside-tests --test denial -- --test-threads=1; \
		status=$$?; cat target/denial.md; exit $$status

# Mixed traffic, random faults, changes of settings, drains and restarts for MINUTES (10; 1.5 at least), from a SEED that is printed; also
# BACKEND (ring), WORKERS (2) and CLIENTS (40). The picture is target/soak/soak.svg.
soak:
	@cargo build --profile proof --quiet --package ringside --bin ringside --package ringside-tests --bin soak
	@MINUTES="$(MINUTES)" SEED="$(SEED)" BACKEND="$(BACKEND)" WORKERS="$(WORKERS)" CLIENTS="$(CLIENTS)" target/proof/soak

# What is generated, and checked in: made again. The tests compare it.
manifests:
	@cargo run --quiet --package ringside-tests --bin seccomp-profile >manifests/seccomp/new && \
		mv manifests/seccomp/new manifests/seccomp/ringside.json
	@cargo run --quiet --package ringside-controller -- crds >manifests/crds/new && \
		mv manifests/crds/new manifests/crds/ringside.yaml
	@cargo run --quiet --package ringside-controller -- roles >manifests/rbac/new && \
		mv manifests/rbac/new manifests/rbac/ringside.yaml
	@cargo run --quiet --package ringside-monitoring >manifests/grafana/new && \
		mv manifests/grafana/new manifests/grafana/ringside.json
	@e2e/tools/build helm
	@cargo run --quiet --package ringside-e2e --bin chart -- files

# docs/dashboard.svg: the dashboard's queries, answered by a real Prometheus that has watched real sidecars for five minutes.
dashboard-picture:
	@e2e/kubernetes/build
	@cargo build --quiet --package ringside --package ringside-controller --package ringside-e2e --bins
	@target/debug/dashboard-picture

# Manual pages of both programs, in target/man/man1: `man -l target/man/man1/ringside-relay.1`.
man:
	@cargo build --quiet --package ringside --package ringside-controller --bins
	@target/debug/ringside man target/man/man1 && target/debug/ringside-controller man target/man/man1
	@echo "target/man/man1"

# The picture of the live page in the README: a real relay under real traffic, refused by its kernel for four seconds; about 5 minutes.
page-picture:
	@cargo build --quiet --package ringside --bins --package ringside-tests --bin page-picture
	@target/debug/page-picture docs/page.png $${SECONDS_OF_TRAFFIC:-290}

# Both images as OCI archives, target/images/*.tar: static programs, no daemon, no registry; about 8 minutes.
images:
	@images/build

# What others think of the chart and of manifests/: helm lint, helm unittest, kubeconform, kube-score. Builds them the first time: about 4 minutes.
lint-deploy:
	@e2e/tools/lint-deploy

# Fuzzing with coverage, on the stable toolchain: a minute for each of four targets.
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cdebug-assertions=on -Coverflow-checks=on
fuzz:
	@cargo build --quiet --package ringside
	@RINGSIDE_FUZZ_SECONDS=$${RINGSIDE_FUZZ_SECONDS:-60} RINGSIDE_PROGRAM=$(CURDIR)/target/debug/ringside \
		RUSTFLAGS="$(FUZZ_FLAGS)" CARGO_PROFILE_RELEASE_LTO=off cargo test --quiet --release \
		--target "$$(rustc --print host-tuple)" --target-dir target/fuzz \
		--package ringside-tests --test fuzz -- --test-threads=1 --skip length::

# Licences, duplicate versions, sources; and known vulnerabilities, where their list can be had. Builds cargo-deny the
# first time, which takes several minutes. The tests check the first three as well, by cargo alone.
deny: target/tools/bin/cargo-deny
	@$< --log-level warn check bans licenses sources
	@if $< --log-level off fetch db; then $< check advisories; else echo "advisories not checked: their list cannot be had"; fi

# What the program is built of, as CycloneDX, in target/ringside.cdx.json. Builds cargo-cyclonedx the first time.
sbom: target/tools/bin/cargo-cyclonedx
	@$< cyclonedx --quiet --format json --target "$$(rustc --print host-tuple)" --no-build-deps \
		--manifest-path sidecar/Cargo.toml --override-filename ringside.cdx
	@mv sidecar/ringside.cdx.json target/ringside.cdx.json && rm -f */ringside.cdx.json
	@echo "target/ringside.cdx.json"

target/tools/bin/cargo-%:
	@cargo install --quiet --locked --root target/tools cargo-$*

# Undefined behaviour, looked for by Miri (nightly toolchain) in what makes no system calls; some minutes.
miri:
	@MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=4 \
		cargo +nightly miri test --quiet --target-dir target/miri --package ringside-api --lib
	@MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=4 \
		cargo +nightly miri test --quiet --target-dir target/miri --package ringside --lib -- \
		pressure:: flow:: backend::pool backend::token time:: --skip flow::tests --skip agrees_with_a_sorted_map

# What threads share: every order of it, by loom; then data races in the real thing, by ThreadSanitizer (nightly toolchain),
# without three tests of one thread that are too slow under it.
threads:
	@RUSTFLAGS="--cfg ringside_loom" cargo test --quiet --target-dir target/loom --package ringside --lib worker::sync
	@RUSTFLAGS=-Zsanitizer=thread cargo +nightly test --quiet -Zbuild-std --target "$$(rustc --print host-tuple)" \
		--target-dir target/sanitizer --package ringside --lib -- worker:: settings:: resolver:: process:: admin:: \
		--skip a_stream_ended_with_bytes --skip a_taker_that_stalls_again --skip a_stream_gives_back_its_pipes

# How much of the worker, flows and decisions the simulation's runs reach. Builds cargo-llvm-cov the first time.
COVERAGE = PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo llvm-cov
coverage: target/tools/bin/cargo-llvm-cov
	@rustup component add llvm-tools 2>/dev/null
	@$(COVERAGE) run --quiet --no-report --profile proof --package ringside --features simulation \
		--bin ringside-simulate -- search $${RUNS:-10000}
	@$(COVERAGE) report --profile proof --summary-only | grep -E '^(Filename|sidecar/src/(worker|flow|pressure))'

# Runs of the worker on a simulated kernel, from random seeds; RUNS says how many.
simulate:
	@cargo run --quiet --profile proof --package ringside --features simulation --bin ringside-simulate -- \
		search $${RUNS:-100000}
