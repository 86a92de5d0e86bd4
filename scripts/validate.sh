#!/usr/bin/env bash
# Checks what the live instrument records against the exact one, and its counts against strace and perf, in
# the lab. Writes docs/validation.md and target/validate/validation.json; ends with 3 when a bound is missed.
#
# ALTAZ_VALIDATE_SERVICES (web,redis), ALTAZ_VALIDATE_SECONDS (75) and ALTAZ_VALIDATE_COUNTS=0 make it shorter; the
# page then goes to target/validate.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"

cargo build --locked --release -p altaz-e2e --example validate </dev/null
exec target/release/examples/validate </dev/null
