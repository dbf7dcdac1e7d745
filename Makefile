# make demo: see it.  make test: test it.  make bench: measure it.  make supply: what it is made of.
# make storm: kill all of it at random.  make fuzz: attack its parsers and plans with inputs that nobody wrote.  make sanitize: watch its memory.
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: build supervisor demo test storm test-agent test-vhost test-vhost-supervisor test-reboot test-selinux weakened bench manual supply fuzz \
	sanitize

# Static, so that what runs as root depends on nothing that is installed.
STATIC := -C target-feature=+crt-static -C relocation-model=static -C symbol-mangling-version=v0
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
PROGRAM := $(TARGET)/$(HOST)/release/parhelion

# The program that runs inside, as build.rs builds it: clippy sees it by itself only in this way.
INIT := --profile freestanding --no-default-features --features freestanding --bin parhelion-init

build:
	RUSTFLAGS="$(STATIC)" cargo build --release --locked --target $(HOST) --bin parhelion

# What the release programs are compiled with, for tools/first-calls.
print-static:
	@echo "$(STATIC)"

# The supervisor's programs; apart, so that nothing of what they need is in the runtime.
supervisor:
	RUSTFLAGS="$(STATIC)" cargo build --release --locked --target $(HOST) $(SUPERVISOR) --bin parheliond --bin parctl

# Manual pages and completions for bash, zsh and fish, from the definitions of the commands.
manual:
	cargo run --quiet --locked $(SUPERVISOR) --example manual -- $(TARGET)/manual

demo:
	tools/setup demo
	$(MAKE) build supervisor
	tools/demo $(PROGRAM)

# Tests against the real kernel take root; without it, cargo is told to start them by sudo.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),--config 'target."cfg(all())".runner = "sudo"')

# The layers that are not the runtime's: looked at and tested with everything that takes no root, and never in the
# program that the tests below start.
SUPERVISOR := --features supervisor

test:
	tools/setup test
	cargo fmt --check
	cargo clippy --locked $(SUPERVISOR) --all-targets -- -D warnings
	cargo clippy --locked --bin parhelion -- -D warnings
	cargo clippy --locked $(INIT) -- -D warnings
	cargo test --locked $(SUPERVISOR) --lib --test architecture --test conformance --test manual --test supply --test store
	cargo test --locked $(SUPERVISOR) --test supervisor $(AS_ROOT)
	$(MAKE) weakened
	cargo test --locked --test runtime --test escapes $(AS_ROOT)
	$(MAKE) test-agent
	$(MAKE) test-vhost
	$(MAKE) test-reboot
	$(MAKE) test-selinux

# A runtime without mitigations, which tests/escapes attacks to show that an attack can succeed. Never for use.
WEAKENED := $(TARGET)/debug/parhelion-weakened

weakened:
	cargo build --locked --features weakened --bin parhelion-weakened

# Licences, sources, versions, and advisories as of today, or as of the copy of their database that RUSTSEC names.
supply:
	tools/supply

# Each target of fuzz/ for FUZZ_SECONDS; TARGETS="config log" runs some of them.
FUZZ_SECONDS ?= 60
fuzz:
	FUZZ_SECONDS=$(FUZZ_SECONDS) tools/fuzz $(TARGETS)

# Unit tests and kernel tests of a runtime with the address sanitizer; PARTS="exec mounts" runs those of some parts. As root.
sanitize:
	tools/sanitize $(PARTS)

# PARTS="restart side_by_side" runs some parts of it (tools/bench).
bench:
	tools/setup bench
	$(MAKE) build supervisor
	tools/bench $(PROGRAM) $(PARTS)

# The agent with real keepers and containers of the release program.
test-agent: build
	PARHELION=$(abspath $(PROGRAM)) cargo test --locked $(SUPERVISOR) --test agent $(AS_ROOT) -- $(FILTER)

# Kills programs, keepers and the daemon at random for so long, over so many instances of the release programs; a short
# one is in `make test`. STORM_SEED=N has others in another order.
STORM_SECONDS ?= 300
STORM_INSTANCES ?= 200
STORM_SEED ?= 1
PROGRAMS := $(abspath $(dir $(PROGRAM)))

storm: build supervisor
	PARHELION=$(PROGRAMS)/parhelion PARHELIOND=$(PROGRAMS)/parheliond PARCTL=$(PROGRAMS)/parctl \
		STORM_SECONDS=$(STORM_SECONDS) STORM_INSTANCES=$(STORM_INSTANCES) STORM_SEED=$(STORM_SEED) \
		cargo test --locked $(SUPERVISOR) --test supervisor $(subst "sudo","sudo -E",$(AS_ROOT)) -- storm

# The real-kernel tests again, on the release program, where every cgroup controller is. FILTER=NAME runs some of them.
test-vhost: build weakened
	PARHELION=$(abspath $(PROGRAM)) VHOST_SHARE=$(abspath $(WEAKENED)) cargo test --locked --test runtime --test escapes \
		--config 'target."cfg(all())".runner = "tests/vhost/runner"' -- $(FILTER)
	$(MAKE) test-vhost-supervisor

# Of the supervisor's tests those to which controllers or systemd make a difference: of the agent what is about cgroups that
# others have (limits) and a storm (cgroup.kill), of the programs all about the units of packaging/, and about networks, as
# iptables is there too. The others see the same kernel in make test, ten times as fast.
SUPERVISOR_PROGRAMS := $(TARGET)/$(HOST)/release/parheliond $(TARGET)/$(HOST)/release/parctl
SUPERVISOR_IN_VHOST := PARHELION=$(abspath $(PROGRAM)) VHOST_SHARE="$(abspath $(SUPERVISOR_PROGRAMS) packaging)" \
	cargo test --locked $(SUPERVISOR) --config 'target."cfg(all())".runner = "tests/vhost/runner"'

test-vhost-supervisor: build supervisor
	$(SUPERVISOR_IN_VHOST) --test agent -- $(or $(FILTER),--skip life:: --skip lost:: --skip health::)
	$(SUPERVISOR_IN_VHOST) --test supervisor -- $(or $(FILTER),--skip life:: --skip disk:: --skip looking:: --skip inside:: --skip errors:: --skip takeover:: --skip storm::)

# What was deployed runs again by itself after a crash of the host, and after an orderly reboot.
test-reboot: build supervisor
	tests/vhost/run --boots 3 $(addprefix --share ,$(abspath $(PROGRAM) $(SUPERVISOR_PROGRAMS) packaging)) tests/vhost/reboot

# The tests of SELinux, in the virtual host booted with it, under a policy of their own.
POLICY := $(TARGET)/selinux-policy

test-selinux: build
	checkpolicy -U allow -c 33 -o $(POLICY) tests/vhost/selinux.conf
	APPEND='lsm=landlock,lockdown,yama,selinux selinux=1 enforcing=0' \
		PARHELION=$(abspath $(PROGRAM)) VHOST_SHARE=$(abspath $(POLICY)) VHOST_SCRIPT=selinux cargo test --locked --test runtime \
		--config 'target."cfg(all())".runner = "tests/vhost/runner"'
