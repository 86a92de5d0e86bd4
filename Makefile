# Everything that is done with this repository. Each target does its own set-up (scripts/setup.sh).
SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH):/usr/sbin:/sbin
STATIC_TARGET := x86_64-unknown-linux-gnu
RELEASE := target/release
# Seconds that each fuzz target of `make fuzz` runs.
FUZZ_SECONDS ?= 60
# What `make demo` measures; `DEMO=full make demo` measures every deployment.
QUICK := process,runc,runsc-systrap,qemu-microvm,runc-in-qemu,login-hardened

.DEFAULT_GOAL := help
.PHONY: help setup build agent demo docs test lint bench validate soak claims replicate scanner fuzz clean

help: ## this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

setup: ## install packages and toolchain that are missing (Debian, Ubuntu)
	@scripts/setup.sh

build: setup agent ## altaz, its plugin and its agent, in target/release
	cargo build --locked --release -p altaz -p altaz-plugin

# The agent is the first process of the lab and of nested guests, so it must be static. Built
# without the host's dependencies: a minute instead of five, and 3 MB to unpack at every boot.
agent: setup
	RUSTFLAGS='-C target-feature=+crt-static -C debuginfo=0 -C strip=debuginfo' \
	cargo build --locked --release -p altaz-lab --bin altaz-agent --no-default-features \
		--target $(STATIC_TARGET)
	@mkdir -p $(RELEASE)
	@cmp -s target/$(STATIC_TARGET)/release/altaz-agent $(RELEASE)/altaz-agent || \
		cp target/$(STATIC_TARGET)/release/altaz-agent $(RELEASE)/altaz-agent

demo: build ## measure demo/web.toml in the quick matrix, with DEMO=full in every deployment; results in target/demo
	$(RELEASE)/altaz compare demo/web.toml --dir target/demo $(if $(filter full,$(DEMO)),,--deployment $(QUICK)) \
		-o text -o text=target/demo/compare.txt

test: build ## format, lints, then the three tiers of tests
	@scripts/test.sh

lint: setup ## format and lints only
	@scripts/lint.sh

bench: build ## time what is promised in SPECIFICATION.md; what watching costs, in docs/overhead.md
	@scripts/bench.sh

validate: build ## the live instrument against the exact one, in docs/validation.md
	@scripts/validate.sh

soak: build ## half an hour of altaz watch at full load, in docs/soak.md
	@scripts/soak.sh

claims: ## the essay's claims against the profiles of the last make demo, in docs/claims.md
	@scripts/claims.sh

replicate: build ## the published table of host-kernel functions on the same work, in docs/replication.md
	@scripts/replicate.sh

scanner: build ## an independent scanner (PyPI) reads the VEX of the last make demo
	@scripts/scanner.sh

docs: build ## take the table of the last make demo, and pictures of its page, into the docs
	@QUICK=$(QUICK) scripts/docs.sh

fuzz: setup ## feed damaged input to every decoder, FUZZ_SECONDS each (60)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz.sh

clean: ## remove what was built; the lab images stay in ~/.cache/altaz
	cargo clean
