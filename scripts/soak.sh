#!/usr/bin/env bash
# Watches redis at full load in the lab with `altaz watch` for half an hour, and looks at altaz's memory, at lost
# events, at the service's own answers, and at how soon something new is reported. Writes docs/soak.md and keeps what
# it saw in target/soak; ends with 3 when a bound is missed.
#
# ALTAZ_SOAK_SECONDS (1800) makes it shorter; the page then goes to target/soak.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"

cargo build --locked --release -p altaz-e2e --example soak </dev/null
exec target/release/examples/soak </dev/null
