# make demo: see it.  make test: test it.
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: build demo test

# Static, so that what runs as root depends on nothing that is installed.
STATIC := -C target-feature=+crt-static
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')

build:
	RUSTFLAGS="$(STATIC)" cargo build --release --locked --target $(HOST) --bin parhelion

demo: build
	tools/demo $(TARGET)/$(HOST)/release/parhelion

test:
	tools/setup test
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --lib --test architecture
	cargo test --locked --test runtime
