# The lab's first process: one static program, built apart from the rest because its flags differ.
# Included by the Makefile; `make agent` builds it where altaz looks for it.

AGENT := target/x86_64-unknown-linux-gnu/release/altaz-agent

.PHONY: agent
agent:
	RUSTFLAGS="-C target-feature=+crt-static -C debuginfo=0 -C strip=debuginfo" \
	cargo build --release -p altaz-lab --bin altaz-agent --no-default-features \
	    --target x86_64-unknown-linux-gnu
