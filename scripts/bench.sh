#!/usr/bin/env bash
# Times what SPECIFICATION.md promises. Each bench asserts its answer before it times it.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"
export ALTAZ_BIN=${ALTAZ_BIN:-$PWD/target/release/altaz}

cargo bench --locked --workspace --benches -- --noplot </dev/null
for bench in benches/*.sh; do
    [ -x "$bench" ] || continue
    echo "== $bench"
    "$bench" </dev/null
done
