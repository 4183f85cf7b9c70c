# What a user runs. `make demo` is the main job, `make test` the proof; both set up what they need.

.PHONY: demo build test bench manifests

# A relay, an application and load on this machine, with a kernel that pushes back half-way: about 30 s.
demo: build
	@target/release/ringside demo

build:
	@cargo build --release --quiet --package ringside

# Everything that can be tested here. Installs Debian packages that are missing, and says so first.
test:
	@tests/run

# HAProxy, nginx and Ringside on the same work, side by side: about 5 minutes.
bench:
	@cargo build --release --quiet --package ringside --package ringside-bench
	@target/release/ringside-load compare

# What is generated, and checked in: made again. The tests compare it.
manifests:
	@cargo run --quiet --package ringside-tests --bin seccomp-profile >manifests/seccomp/new && \
		mv manifests/seccomp/new manifests/seccomp/ringside.json
