#!/usr/bin/env bash
# Times what SPECIFICATION.md promises. Each bench asserts its answer before it times it. The results
# are printed as a table and kept in target/bench/first.json.
#
# ALTAZ_BENCH_ROUNDS (3) labs of each kind are booted, in each ALTAZ_BENCH_PAIRS (4) pairs of runs of
# ALTAZ_BENCH_REQUESTS (50,000) requests are measured.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"

# The pure parts, with criterion. Libraries' own test harnesses are no benches.
packages=() benches=()
for file in crates/*/benches/*.rs; do
    crate=$(basename "$(dirname "$(dirname "$file")")") bench=$(basename "$file" .rs)
    packages+=(-p "$crate")
    [ "$bench" = instrument ] || benches+=(--bench "$bench")
done
rm -rf target/criterion
cargo bench --locked "${packages[@]}" "${benches[@]}" -- --noplot --quiet </dev/null

# The instrument in the lab, last: it writes all the results down.
cargo bench --locked "${packages[@]}" --bench instrument </dev/null
