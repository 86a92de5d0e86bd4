#!/usr/bin/env bash
# Times what SPECIFICATION.md promises. Each bench asserts its answer before it times it. The results
# are printed as a table and kept in target/bench/first.json.
#
# What watching a service costs it, under altaz and under other tools, goes to target/bench/overhead.json and
# docs/overhead.md.
#
# ALTAZ_BENCH_ROUNDS (3) labs of each kind are booted, in each ALTAZ_BENCH_PAIRS (4) pairs of runs of
# ALTAZ_BENCH_REQUESTS (50,000) requests are measured. crates/altaz/benches/overhead/main.rs has the settings of
# the other part.
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

# The exact instrument in the lab: it writes these results down. Its bound is for a quiet machine; that it
# was missed is said at the end.
failed=0
cargo bench --locked "${packages[@]}" --bench instrument </dev/null || failed=$?
cargo bench --locked -p altaz --bench overhead </dev/null || failed=$?
exit $failed
