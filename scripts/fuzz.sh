#!/usr/bin/env bash
# Feeds damaged input to every decoder of what altaz reads from outside, FUZZ_SECONDS each. Prints
# how often each was executed, and fails when one panicked, took ten seconds, or did not run.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
. scripts/tiers.sh
export ALTAZ_FUZZ_SECONDS=${FUZZ_SECONDS:-60}

mapfile -t tests < <(names fuzz)
[ ${#tests[@]} -gt 0 ] || { echo 'fuzz: there is nothing to fuzz' >&2; exit 1; }
packages=()
for crate in crates/*/; do
    if grep -qr 'ignore = ".*make fuzz"' "$crate"; then packages+=(-p "$(basename "$crate")"); fi
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT

echo "fuzz: ${#tests[@]} decoders, $ALTAZ_FUZZ_SECONDS s each"
status=0
cargo test --locked "${packages[@]}" --no-fail-fast --quiet -- --ignored --nocapture "${tests[@]}" \
    </dev/null >"$log" 2>&1 || status=$?
grep -oE 'fuzz [a-z_]+: [0-9].*' "$log" || true
ran=$(grep -cE 'fuzz [a-z_]+: [0-9]+ executions' "$log" || true)
if [ "$status" != 0 ] || [ "$ran" != ${#tests[@]} ]; then
    cat "$log" >&2
    echo "fuzz: $ran of ${#tests[@]} decoders ran to the end" >&2
    exit 1
fi
echo "fuzz: all $ran decoders, no panic"
