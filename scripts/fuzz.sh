#!/usr/bin/env bash
# Feeds damaged input to every decoder of what altaz reads from outside, FUZZ_SECONDS each.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
. scripts/tiers.sh
export ALTAZ_FUZZ_SECONDS=${FUZZ_SECONDS:-60}

mapfile -t tests < <(names fuzz)
[ ${#tests[@]} -gt 0 ] || { echo 'fuzz: there is nothing to fuzz' >&2; exit 1; }
echo "fuzz: ${#tests[@]} decoders, $ALTAZ_FUZZ_SECONDS s each: ${tests[*]}"
cargo test --locked --workspace --quiet -- --ignored --nocapture "${tests[@]}" </dev/null |
    grep -E '^fuzz |panicked|FAILED|failed'
echo 'fuzz: no decoder panicked'
